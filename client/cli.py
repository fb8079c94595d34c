"""The command line: ``predict`` classifies pictures, ``model`` says what does it."""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from client import api, paths
from client.api import Client, Found
from client.output import STDOUT, clean, opened, writer_for
from client.results import RequestFailed, Result, Unreachable

SOME_FAILED, NOTHING_DONE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

_URL_VARIABLE = "DARKROOM_URL"
_NAMED_FAILURES = 20
_CLIENT_OPTIONS = ("url", "top", "jobs", "batch_size", "timeout", "retries")  # those of Client that are options here

_PREDICT_HELP = """\
Classify pictures, in batches and with several requests at once. A PATH is a file; a folder, in which pictures are found
at any depth; a pattern in quotes, where ** stands for folders at any depth; or - for one picture on standard input.

What is wrong with one picture does not stop the others. What failed is listed at the end, and in JSON lines and CSV.
"""
_PREDICT_EXAMPLES = """\
examples:
  {prog} predict frog.jpg                            a table on the terminal
  {prog} predict photos --output labels.csv          all pictures below a folder, into a file
  {prog} predict 'photos/**/*.png' --top 3           a pattern, and the three most probable labels
  {prog} predict photos | jq -r 'select(.predictions) | .file + " " + .predictions[0].label'
  find . -name '*.jpg' -print0 | {prog} predict --files-from - --null
  curl -s https://example.org/frog.jpg | {prog} predict -
  {prog} predict photos --url https://example.org --header 'Authorization: Bearer TOKEN'

exit codes: 0 all pictures were classified, 1 some failed, 2 nothing could be done (the last line says why),
130 interrupted, 141 the reader of the output is gone
"""


class UsageError(Exception):
    """The command cannot do anything as it was given."""


@dataclass
class Tally:
    """How many pictures are done, and what went wrong with the first ones of those that failed."""

    done: int = 0
    failed: int = 0
    first: list[Result] = field(default_factory=list)

    def add(self, results: Sequence[Result]) -> None:
        """Count ``results``."""
        failures = [result for result in results if result.error]
        self.done += len(results)
        self.failed += len(failures)
        self.first += failures[: _NAMED_FAILURES - len(self.first)]

    def report(self) -> str:
        """Return the list of what failed, ready to print; empty where nothing did."""
        lines = [f"{self.failed:,} of {self.done:,} failed:"] if self.failed else []
        lines += [f"  {clean(result.file)}: {clean(result.message)}" for result in self.first]
        if self.failed > len(self.first):
            lines.append(f"  and {self.failed - len(self.first):,} more")
        return "".join(f"{line}\n" for line in lines)


def main(arguments: Sequence[str], environment: Mapping[str, str], prog: str) -> int:
    """Run the command line, which people call ``prog``, and return its exit code; see ``--help``."""
    options = _parser(environment, prog).parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # What is still in the buffer has nowhere to go; without this the interpreter would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:  # of the output or the list; that of a picture is in its result
        reason = error.strerror or str(error)
        return _give_up(f"{error.filename}: {reason}" if error.filename else reason)
    except Unreachable as error:
        return _give_up(f"{error} Does the service run? Its address is set with --url or {_URL_VARIABLE}.")
    except (RequestFailed, UsageError) as error:
        return _give_up(str(error))


def _give_up(message: str) -> int:
    print(f"error: {clean(message)}", file=sys.stderr)
    return NOTHING_DONE


def _predict(options: argparse.Namespace) -> int:
    """Classify; the exit code tells whether everything was."""
    tally = Tally()
    try:
        with _found(options) as found:
            _classify(options, found, tally)
    except KeyboardInterrupt:
        sys.stderr.write(f"Interrupted after {tally.done:,} pictures.\n{tally.report()}")
        return INTERRUPTED
    sys.stderr.write(tally.report())
    return SOME_FAILED if tally.failed else 0


def _classify(options: argparse.Namespace, found: Iterator[Found], tally: Tally) -> None:
    kind = options.format or _format_for(options.output)
    with (
        _client(options) as client,
        opened(options.output, table=kind == "table") as stream,
        contextlib.closing(client.predict_found(found)) as batches,
        _progress(options) as bar,
    ):
        writer = writer_for(kind, stream)
        for results in batches:
            with bar.external_write_mode(stream):  # the bar steps aside where both are on the terminal
                writer.write(results)
            tally.add(results)
            bar.set_postfix({"failed": tally.failed} if tally.failed else {}, refresh=False)
            bar.update(len(results))
        if not tally.done:
            raise UsageError("There is nothing to classify: the list names no file.")


def _client(options: argparse.Namespace) -> Client:
    values = {name: value for name in _CLIENT_OPTIONS if (value := getattr(options, name, None)) is not None}
    try:
        return Client(headers=dict(options.header), **values)
    except ValueError as error:
        raise UsageError(f"{error} Set it with --url or {_URL_VARIABLE}.") from error


@contextlib.contextmanager
def _found(options: argparse.Namespace) -> Generator[Iterator[Found], None, None]:
    """Give the pictures behind the paths and the list of files, found when they are asked for."""
    with contextlib.ExitStack() as stack:
        names: Iterator[str] = iter(())
        if options.files_from is not None:
            stream = stack.enter_context(_list(options.files_from))
            names = paths.listed(stream, b"\0" if options.null else b"\n")
        yield _all(options.paths, names)


def _list(file: str) -> io.BufferedReader:
    if file == paths.STDIN:
        return os.fdopen(sys.stdin.fileno(), "rb", closefd=False)
    return Path(file).open("rb")


def _all(given: Sequence[str], names: Iterator[str]) -> Iterator[Found]:
    for path in given:
        yield from paths.given(path)
    for name in names:
        yield from paths.named(name)


def _format_for(output: str) -> str:
    if output == STDOUT:
        return "table" if sys.stdout.isatty() else "jsonl"
    return "csv" if output.lower().endswith(".csv") else "jsonl"


def _progress(options: argparse.Namespace) -> "tqdm[Any]":
    """Return the bar; how many pictures there are is known at once only where each is named."""
    each_named = options.files_from is None and all(os.path.isfile(path) for path in options.paths)  # noqa: PTH113 - never raises
    return tqdm(
        total=len(options.paths) if each_named else None,
        unit=" pictures",
        disable=options.quiet or not sys.stderr.isatty(),
        dynamic_ncols=True,
    )


def _model(options: argparse.Namespace) -> int:
    """Say what the service serves."""
    with _client(options) as client:
        model = client.model()
    if not model.get("version"):
        return _give_up(str(model.get("reason")))
    metrics, size = model["metrics"], model["input"]
    print(f"name      {clean(model['name'])}")
    print(f"version   {model['version']}")
    if metrics["images"]:
        print(f"accuracy  {metrics['accuracy']:.2%} of {metrics['images']:,} images: {clean(metrics['measured_on'])}")
    print(f"input     {size['width']} x {size['height']} pixels")
    print(f"labels    {clean(', '.join(model['labels']))}")
    return 0


def _parser(environment: Mapping[str, str], prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Ask a Darkroom service.", allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    service = _service_options(environment)
    model = commands.add_parser("model", parents=[service], help="say which model is served, with its labels")
    model.set_defaults(command=_model)
    predict = commands.add_parser(
        "predict",
        parents=[service],
        help="classify pictures",
        description=_PREDICT_HELP,
        epilog=_PREDICT_EXAMPLES.format(prog=prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_predict_options(predict)
    return parser


def _service_options(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    service = parser.add_argument_group("service")
    service.add_argument(
        "--url",
        default=environment.get(_URL_VARIABLE) or api.DEFAULT_URL,
        help=f"address of the service (default: ${_URL_VARIABLE} or {api.DEFAULT_URL}; now %(default)s)",
    )
    service.add_argument(
        "--header", type=_header, action="append", default=[], metavar="'NAME: VALUE'", help="sent too; repeatable"
    )
    service.add_argument(
        "--timeout",
        type=_seconds,
        default=api.TIMEOUT,
        metavar="SECONDS",
        help="longest wait for an answer (default: %(default)g)",
    )
    service.add_argument(
        "--retries",
        type=_at_least(0),
        default=api.RETRIES,
        metavar="N",
        help="times to ask again where the service is busy or was there and is gone (default: %(default)s)",
    )
    return parser


def _add_predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="file, folder, pattern in quotes, or - for stdin")
    parser.add_argument("--files-from", metavar="FILE", help="read paths from FILE (- for stdin), one a line")
    parser.add_argument("--null", action="store_true", help="a NUL byte ends each path in FILE, as from find -print0")
    result = parser.add_argument_group("results")
    result.add_argument(
        "--format",
        choices=("table", "jsonl", "csv"),
        help="default: table on a terminal, csv for an --output of that suffix, else jsonl",
    )
    result.add_argument("--top", type=_at_least(1), default=1, metavar="K", help="labels a picture (default: 1)")
    result.add_argument("--output", default=STDOUT, metavar="FILE", help="file to write once all is done")
    result.add_argument("--quiet", action="store_true", help="no progress bar")
    speed = parser.add_argument_group("speed")
    speed.add_argument(
        "--jobs", type=_at_least(1), default=api.JOBS, metavar="N", help="requests at once (default: %(default)s)"
    )
    speed.add_argument(
        "--batch-size",
        type=_at_least(1),
        default=api.BATCH_SIZE,
        metavar="N",
        help="most pictures in one request, of at most 8 MiB together (default: %(default)s)",
    )
    parser.set_defaults(command=lambda options: _predict(_checked(parser, options)))


def _checked(parser: argparse.ArgumentParser, options: argparse.Namespace) -> argparse.Namespace:
    """Return ``options``; end with a usage message where they do not go together."""
    if not options.paths and options.files_from is None:
        parser.error("name a PATH, or a list of them with --files-from")
    if options.files_from == paths.STDIN and paths.STDIN in options.paths:
        parser.error("standard input is either a picture (-) or a list of paths (--files-from -)")
    if options.null and options.files_from is None:
        parser.error("--null says how --files-from is written; name that too")
    return options


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not name.strip() or not colon or not (text.isascii() and text.isprintable()):
        raise argparse.ArgumentTypeError(f"{text!r} is no header; write it as 'Name: value'")
    return name.strip(), value.strip()


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 86_400:  # also false for NaN
        raise argparse.ArgumentTypeError("it must be more than 0, and less than a day")
    return seconds


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"it must be {least} or more")
        return value

    return integer
