"""``python -m training predict``: classify files with a published version, decoded as the service decodes them."""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import artifact
from artifact import Input, Metadata
from training.commands.options import at_least
from training.data.batching import batch_of
from training.data.dataset import Pixels
from training.data.decoding import UnreadablePicture, read
from training.data.folders import pictures_in
from training.errors import Interruption
from training.evaluation.inference import Answer, Outputs, openvino_answer

_BATCH, _MOST_PIXELS = 64, 2**22  # pictures that are asked about together; decoded, 12 MB
_SOME_FAILED = 1
_GAP = "  "
_NO_TEXT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Result:
    """What came of one file, or of a folder that has none.

    Either ``predictions`` are there, labels with their probabilities and the most probable first, or ``error``, a word
    for programs, and ``message``, a sentence for people. ``familiar`` says whether the picture looks like those that
    the version was trained on, where the version tells it. ``labels`` are those that the picture has, where it may have
    several.
    """

    file: Path
    predictions: tuple[tuple[str, float], ...] = ()
    error: str = ""
    message: str = ""
    familiar: bool | None = None
    labels: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True)
class PredictSettings:
    """Which version classifies which files and folders, and how many labels each picture gets."""

    version: Path
    paths: tuple[Path, ...]
    top: int
    json: bool


def parse(arguments: Sequence[str]) -> PredictSettings:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="darkroom predict",
        description="Classify pictures with a version, without a service: a line for each. They are decoded and scaled "
        "as the service does it. What cannot be read is listed at the end, and does not stop the others.",
        epilog="exit codes: 0 all pictures were classified, 1 some failed, or all (the last lines say why), "
        "2 wrong usage, 130 and 143 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("version", type=Path, help="folder of the version, e.g. models/cifar10/5")
    parser.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="a picture, or a folder with pictures at any depth"
    )
    parser.add_argument(
        "--top", type=at_least(1), default=1, metavar="K", help="labels a picture (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object a line instead of a table")
    options = parser.parse_args(arguments)
    return PredictSettings(options.version, tuple(options.paths), options.top, options.json)


def run(settings: PredictSettings, _interruption: Interruption) -> int:
    """Classify the files and print a line for each; return the exit code.

    Raises:
        InvalidVersion: the folder is no version that can be trusted.
        OSError: a folder cannot be read.
    """
    metadata = artifact.validate(settings.version)
    files = [file for path in settings.paths for file in find(path)]
    line = _json_line(metadata) if settings.json else _table(files, metadata.labels)
    failures = []
    bar = tqdm(total=len(files), unit="picture", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    with bar, warnings.catch_warnings(action="ignore"):  # damaged metadata of pictures and the like
        for result in classify(files, metadata, openvino_answer(settings.version), settings.top):
            tqdm.write(line(result), file=sys.stdout)
            failures += [result] if result.error else []
            bar.update()
    return _report(failures, len(files))


def find(path: Path) -> list[Path]:
    """Return the pictures at any depth in the folder ``path``, sorted, or ``path`` itself where it is no folder.

    They are those that a training would take of a class's folder. A folder without any stands for itself, since that
    it has none should be told.
    """
    return (pictures_in(path) or [path]) if path.is_dir() else [path]


def classify(files: Sequence[Path], metadata: Metadata, answer: Answer, top: int) -> Iterator[Result]:
    """Yield a result for each of ``files`` in their order, with its ``top`` most probable labels."""
    size = batch_of(metadata.input.height, metadata.input.width, _BATCH, _MOST_PIXELS)
    for begin in range(0, len(files), size):
        batch = [(file, _read(file, metadata.input)) for file in files[begin : begin + size]]
        pictures = [picture for _, picture in batch if not isinstance(picture, str)]
        answers = iter(_rows(answer(np.stack(pictures)), metadata)) if pictures else iter(())
        for file, picture in batch:
            if isinstance(picture, str):
                yield Result(file, error="unreadable", message=picture)
            else:
                row, familiar = next(answers)
                best = _best(row, metadata.labels, top)
                yield Result(file, best, familiar=familiar, labels=_told(row, metadata))


def _read(file: Path, size: Input) -> Pixels | str:
    """Return the picture in ``file`` as uint8 [H, W, 3], or a sentence on why there is none."""
    if file.is_dir():
        return "there is no picture in this folder"
    try:
        return read(file, size)
    except UnreadablePicture as error:
        return str(error)


def _rows(outputs: Outputs, metadata: Metadata) -> list[tuple[NDArray[np.float32], bool | None]]:
    """Return the probabilities float32 [classes] of each picture, and whether it is familiar."""
    rows = outputs["probabilities"]
    if metadata.familiarity is None:
        return [(row, None) for row in rows]
    familiar = outputs["familiarity"] >= metadata.familiarity.threshold
    return list(zip(rows, familiar.tolist(), strict=True))


def _best(row: NDArray[np.float32], labels: tuple[str, ...], top: int) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-row, kind="stable")[:top]
    return tuple((labels[index], float(row[index])) for index in order)


def _told(row: NDArray[np.float32], metadata: Metadata) -> tuple[tuple[str, float], ...] | None:
    """Return the labels that reach their thresholds, the likeliest first; None where a picture has one label."""
    if metadata.thresholds is None:
        return None
    best = _best(row, metadata.labels, len(row))
    # In float32, as the service compares them.
    return tuple(each for each in best if np.float32(each[1]) >= np.float32(metadata.thresholds[each[0]]))


def _json_line(metadata: Metadata) -> Callable[[Result], str]:
    """Return what writes a result as the client and the service do: a JSON object."""
    model = {"name": metadata.name, "version": metadata.version}

    def line(result: Result) -> str:
        if result.error:
            return json.dumps({"file": str(result.file), "error": result.error, "message": result.message})
        predictions = _records(result.predictions)
        labels = {} if result.labels is None else {"labels": _records(result.labels)}
        familiar = {} if result.familiar is None else {"familiar": result.familiar}
        return json.dumps({"file": str(result.file), "predictions": predictions, **labels, **familiar, "model": model})

    return line


def _records(labels: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"label": label, "probability": probability} for label, probability in labels]


def _table(files: Sequence[Path], labels: tuple[str, ...]) -> Callable[[Result], str]:
    """Print the head of a table and return what writes a result as a line of it."""
    name_width = max(len("file"), *(len(str(file)) for file in files))
    label_width = max(len("label"), *map(len, labels))
    print(f"{'file':{name_width}}{_GAP}{'label':{label_width}}{_GAP}probability")

    def line(result: Result) -> str:
        told = result.predictions if result.labels is None else result.labels
        cells = [f"{_clean(label):{label_width}}{_GAP}{probability:7.2%}" for label, probability in told]
        cells += ["no label"] if not told and not result.error else []
        cells += ["unfamiliar"] if result.familiar is False else []
        rest = f"failed: {result.error}" if result.error else _GAP.join(cells)
        return f"{_clean(str(result.file)):{name_width}}{_GAP}{rest}"

    return line


def _clean(text: str) -> str:
    """Return ``text`` without what a terminal would act on: control characters, and bytes that are no text."""
    return "".join(character if character.isprintable() else _NO_TEXT for character in text)


def _report(failures: Sequence[Result], count: int) -> int:
    """List on standard error what failed; return the exit code."""
    if not failures:
        return 0
    lines = [f"{len(failures):,} of {count:,} failed:", *(f"  {_clean(str(r.file))}: {r.message}" for r in failures)]
    print("\n".join(lines), file=sys.stderr)
    return _SOME_FAILED
