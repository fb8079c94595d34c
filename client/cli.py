"""The command line: ``predict`` classifies pictures, ``explain`` draws why, ``model`` says what does it."""

import argparse
import contextlib
import io
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from client import api, paths
from client.api import Client, Found
from client.explain import explained
from client.output import FORMATS, STDOUT, SUFFIXES, clean, opened, writer_for
from client.results import RequestFailed, Result, Unreachable

SOME_FAILED, NOTHING_DONE, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141

_URL_VARIABLE = "DARKROOM_URL"
_TRACE_VARIABLES = ("TRACEPARENT", "TRACESTATE")  # by which OpenTelemetry hands a trace to the programs of a job
_NAMED_FAILURES = 20
_NAMED_ENDINGS = 5
_EXACT = 1000  # images that need no interval beside their accuracy
_CLIENT_OPTIONS = (
    "url",
    "model",
    "version",
    "top",
    "jobs",
    "batch_size",
    "timeout",
    "retries",
)  # those of Client that are options here

_PREDICT_HELP = """\
Classify pictures, in batches and with several requests at once. A PATH is a file; a folder, in which pictures are found
at any depth; a pattern in quotes, where ** stands for folders at any depth; or - for one picture on standard input.

What is wrong with one picture does not stop the others. What failed is listed at the end, and in JSON and CSV. The last
line, on standard error, says how many pictures were done, how fast, and how many failed.
"""
_EXPLAIN_HELP = """\
Write a heat map over each picture as FILE.why.png: yellow spoke for the label most, violet not at all, and what is grey
the model did not see. The heat map of standard input goes to standard output.
"""
_PREDICT_EXAMPLES = """\
examples:
  {prog} predict frog.jpg                            a table on the terminal
  {prog} predict photos --output labels.csv          all pictures below a folder, into a file by its suffix
  {prog} predict 'photos/**/*.png' --top 3           a pattern, and the three most probable labels
  {prog} predict photos | jq -r 'select(.predictions) | .file + " " + .predictions[0].label'
  find . -name '*.jpg' -print0 | {prog} predict --files-from - --null
  curl -s https://example.org/frog.jpg | {prog} predict -
  {prog} predict photos --model pets --version canary
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
    passed_over: paths.PassedOver = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)  # seconds

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

    def summary(self) -> str:
        """Return the last line: how many are done, in which time, and how many failed; before it, what was left out."""
        most = self.passed_over.most_common(_NAMED_ENDINGS)
        endings = ", ".join(f"{count:,} {clean(ending) or 'that are no files'}" for ending, count in most)
        left_out = f"{self.passed_over.total():,} passed over, which are no pictures by their names: {endings}\n"
        seconds = max(time.monotonic() - self.began, 1e-3)
        pictures = "picture" if self.done == 1 else "pictures"
        failed = f"{self.failed:,} failed" if self.failed else "none failed"
        last = f"{self.done:,} {pictures} in {seconds:,.1f} s ({self.done / seconds:,.1f} a second), {failed}\n"
        return left_out + last if self.passed_over else last


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
        with _found(options, tally.passed_over) as found:
            _classify(options, found, tally)
    except KeyboardInterrupt:
        sys.stderr.write(f"Interrupted after {tally.done:,} pictures.\n{tally.report()}")
        return INTERRUPTED
    sys.stderr.write(tally.report() + ("" if options.quiet else tally.summary()))
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
        writer.end()


def _client(options: argparse.Namespace) -> Client:
    values = {name: value for name in _CLIENT_OPTIONS if (value := getattr(options, name, None)) is not None}
    try:
        return Client(headers=dict(options.header), **values)
    except ValueError as error:
        raise UsageError(f"{error} Set it with --url or {_URL_VARIABLE}.") from error


@contextlib.contextmanager
def _found(options: argparse.Namespace, passed_over: paths.PassedOver) -> Generator[Iterator[Found], None, None]:
    """Give the pictures behind the paths and the list of files, found when they are asked for."""
    with contextlib.ExitStack() as stack:
        names: Iterator[str] = iter(())
        if options.files_from is not None:
            stream = stack.enter_context(_list(options.files_from))
            names = paths.listed(stream, b"\0" if options.null else b"\n")
        yield _all(options.paths, names, passed_over)


def _list(file: str) -> io.BufferedReader:
    if file == paths.STDIN:
        return os.fdopen(sys.stdin.fileno(), "rb", closefd=False)
    return Path(file).open("rb")


def _all(given: Sequence[str], names: Iterator[str], passed_over: paths.PassedOver) -> Iterator[Found]:
    for path in given:
        yield from paths.given(path, passed_over)
    for name in names:
        yield from paths.named(name, passed_over)


def _format_for(output: str) -> str:
    """Return the format that the name ``output`` asks for, where no other is asked for.

    Raises:
        UsageError: the name says nothing of it.
    """
    if output == STDOUT:
        return "table" if sys.stdout.isatty() else "jsonl"
    path = Path(output)
    if path.exists() and not path.is_file():  # a device or a pipe
        return "jsonl"
    if path.suffix.lower() in SUFFIXES:
        return SUFFIXES[path.suffix.lower()]
    if output.lower() in FORMATS:
        raise UsageError(
            f"--output names a file. For the format, give --format {output.lower()}; or name a file that ends in it."
        )
    raise UsageError(
        f"--output {clean(output)} does not end in {', '.join(SUFFIXES)}; say with --format what to write into it."
    )


def _progress(options: argparse.Namespace) -> "tqdm[Any]":
    """Return the bar; how many pictures there are is known at once only where each is named."""
    each_named = options.files_from is None and all(os.path.isfile(path) for path in options.paths)  # noqa: PTH113 - never raises
    return tqdm(
        total=len(options.paths) if each_named else None,
        unit=" pictures",
        disable=options.quiet or not sys.stderr.isatty(),
        dynamic_ncols=True,
    )


def _explain(options: argparse.Namespace) -> int:
    """Write heat maps; the exit code tells whether all are there."""
    tally = Tally()
    with _client(options) as client:
        for result in explained(client, _all(options.paths, iter(()), tally.passed_over), options.label, options.out):
            tally.add([result])
            if not result.error:
                print(clean(result.file))
    sys.stderr.write(tally.report() + (tally.summary() if tally.done else ""))
    return SOME_FAILED if tally.failed else 0


def _model(options: argparse.Namespace) -> int:
    """Say what the service serves."""
    with _client(options) as client:
        model = client.model()
    if not model.get("version"):
        return _give_up(str(model.get("reason")))
    metrics, size = model["metrics"], model["input"]
    print(f"name      {clean(model['name'])}")
    print(f"version   {model['version']}")
    several = model.get("multi_label")
    if several:
        print(f"ranking   mean average precision {several['mean_average_precision']:.4f} of several labels a picture")
    elif metrics["images"]:
        measured_on = clean(metrics["measured_on"])
        if metrics["images"] < _EXACT and (interval := model.get("accuracy_95")):
            measured_on += f"; 95%: {100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
        print(f"accuracy  {metrics['accuracy']:.2%} of {metrics['images']:,} images ({measured_on})")
    print(f"input     {size['width']} x {size['height']} pixels")
    print(f"labels    {clean(', '.join(model['labels']))}")
    return 0


def _parser(environment: Mapping[str, str], prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Ask a Darkroom service.", allow_abbrev=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    service = _service_options(environment)
    model = commands.add_parser(
        "model",
        parents=[service],
        help="say which model is served, with its labels",
        description="Say which model is served, with its labels.",
    )
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
    explain = commands.add_parser(
        "explain",
        parents=[service],
        help="draw which parts of pictures spoke for a label",
        description=_EXPLAIN_HELP,
        allow_abbrev=False,
    )
    explain.add_argument("paths", nargs="+", metavar="PATH", help="file, folder, pattern in quotes, or - for stdin")
    explain.add_argument("--label", help="what to look for (default: the most probable label of each picture)")
    explain.add_argument("--out", type=Path, metavar="FOLDER", help="where heat maps go (default: beside the pictures)")
    explain.set_defaults(command=_explain)
    return parser


def _service_options(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    service = parser.add_argument_group("service")
    service.add_argument(
        "--url",
        default=environment.get(_URL_VARIABLE) or api.DEFAULT_URL,
        help=f"address of the service (default: ${_URL_VARIABLE} or {api.DEFAULT_URL}; now %(default)s)",
    )
    service.add_argument("--model", metavar="NAME", help="model to ask (default: the service's own)")
    service.add_argument(
        "--version", metavar="V", help="version to ask, a number or a label (default: whichever answers)"
    )
    service.add_argument(
        "--header",
        type=_header,
        action="append",
        default=_trace_headers(environment),
        metavar="'NAME: VALUE'",
        help="header to send as well; may be given several times",
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
        help="times to ask again if the service is busy, or answered before and is gone (default: %(default)s)",
    )
    return parser


def _add_predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="*", metavar="PATH", help="file, folder, pattern in quotes, or - for stdin")
    parser.add_argument("--files-from", metavar="FILE", help="read paths from FILE (- for stdin), one a line")
    parser.add_argument("--null", action="store_true", help="a NUL byte ends each path in FILE, as from find -print0")
    result = parser.add_argument_group("results")
    result.add_argument(
        "--format",
        choices=FORMATS,
        help="default: by the suffix of --output; else a table on a terminal, and jsonl (an object a line) elsewhere",
    )
    result.add_argument("--top", type=_at_least(1), default=1, metavar="K", help="labels a picture (default: 1)")
    result.add_argument(
        "--output", default=STDOUT, metavar="FILE", help="file to write, which appears once all is done"
    )
    result.add_argument("--quiet", action="store_true", help="no progress bar, and no line at the end")
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


def _trace_headers(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the headers that put the requests into the trace that this command runs in, if it runs in one."""
    found = ((name.lower(), environment.get(name, "")) for name in _TRACE_VARIABLES)
    return [(name, value) for name, value in found if value and value.isascii() and value.isprintable()]


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
