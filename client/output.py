"""Results as text: a table for people, JSON and CSV for programs; and files that are whole or not there."""

import csv
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from client.results import Prediction, Result

STDOUT = "-"
FORMATS = ("table", "json", "jsonl", "csv")
SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""The formats of files, by what their names end in."""

_NO_TEXT = "\N{REPLACEMENT CHARACTER}"
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_GAP = "  "
_PERCENT = 7  # columns of "100.00%"
_UNFAMILIAR = f"{_GAP}unfamiliar"  # behind the labels of a picture unlike those that the model learned from
_NO_LABEL = "no label"  # of a picture that may have several
_LEAST_NAME = 20  # columns of a name, however narrow the terminal is


class Writer(Protocol):
    """Writes results as they come."""

    def write(self, results: Sequence[Result]) -> None:
        """Write ``results`` after those that were written before."""

    def end(self) -> None:
        """Write what comes after the last result."""


class JsonLines:
    """A JSON object a line: ``file`` with ``predictions`` and ``model``, or with ``error`` and ``message``.

    ``familiar`` is there where the model tells it, and ``labels`` where a picture may have several.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, results: Sequence[Result]) -> None:
        """Write a line for each of ``results``."""
        for result in results:
            self._stream.write(f"{_json(result)}\n")
        self._stream.flush()

    def end(self) -> None:
        """Write nothing more."""


class Json:
    """One JSON document: a list of what ``JsonLines`` writes, an object a line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._before = "[\n"

    def write(self, results: Sequence[Result]) -> None:
        """Write an object for each of ``results``."""
        for result in results:
            self._stream.write(f"{self._before}{_json(result)}")
            self._before = ",\n"
        self._stream.flush()

    def end(self) -> None:
        """End the list."""
        self._stream.write("\n]\n")


class Csv:
    """A row for each label of a picture, and one for a picture that failed, below a header.

    Where a picture may have several labels, they are those that it has; one that has none has a row without.
    ``familiar`` is true or false, and empty where the model does not tell it.
    """

    HEADER = ("file", "rank", "label", "probability", "error", "message", "familiar")

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rows = csv.writer(stream, lineterminator="\n")
        self._begun = False

    def write(self, results: Sequence[Result]) -> None:
        """Write the rows of ``results``, before the first ones the header."""
        if not self._begun:
            self._rows.writerow(self.HEADER)
            self._begun = True
        for result in results:
            if result.error:
                self._rows.writerow((result.file, "", "", "", result.error, result.message, ""))
            familiar = "" if result.familiar is None else json.dumps(result.familiar)
            if not result.error and not result.told:
                self._rows.writerow((result.file, "", "", "", "", "", familiar))
            for rank, prediction in enumerate(result.told, start=1):
                self._rows.writerow((result.file, rank, prediction.label, prediction.probability, "", "", familiar))
        self._stream.flush()

    def end(self) -> None:
        """Write nothing more."""


class Table:
    """A line for each picture in columns, which grow with what comes but not over the width of the terminal."""

    def __init__(self, stream: TextIO, columns: int | None) -> None:
        """Take how many columns the terminal has; None where there is none, and names are not shortened."""
        self._stream = stream
        self._columns = columns
        self._name = self._label = 0

    def write(self, results: Sequence[Result]) -> None:
        """Write a line for each of ``results``, before the first ones the header."""
        header = not self._name
        self._measure(results)
        if header:
            self._line("file", _fitted("label", self._label) + _GAP + "probability")
        for result in results:
            labels = _GAP.join(self._cell(prediction) for prediction in result.told)
            answer = (labels or _NO_LABEL) + (_UNFAMILIAR if result.familiar is False else "")
            self._line(result.file, f"failed: {clean(result.error)}" if result.error else answer)
        self._stream.flush()

    def end(self) -> None:
        """Write nothing more."""

    def _measure(self, results: Sequence[Result]) -> None:
        labels = [prediction.label for result in results for prediction in result.told]
        self._label = max(self._label, width("label"), *(width(clean(label)) for label in labels), 0)
        self._name = max(self._name, width("file"), *(width(clean(result.file)) for result in results))
        if self._columns is not None:
            shown = max([len(result.told) for result in results] + [1])
            rest = self._columns - shown * (len(_GAP) + self._label + len(_GAP) + _PERCENT)
            rest -= len(_UNFAMILIAR) if any(result.familiar is False for result in results) else 0
            self._name = min(self._name, max(rest, _LEAST_NAME))

    def _cell(self, prediction: Prediction) -> str:
        percent = f"{prediction.probability:.2%}"
        return f"{_fitted(clean(prediction.label), self._label)}{_GAP}{percent:>{_PERCENT}}"

    def _line(self, name: str, rest: str) -> None:
        self._stream.write(f"{_fitted(shortened(clean(name), self._name), self._name)}{_GAP}{rest}\n")


@contextmanager
def opened(target: str, *, table: bool) -> Iterator[TextIO]:
    """Open ``target`` for results; ``-`` is standard output.

    A file appears under its name when the block ends well; until then, and if it does not, an older one stays.

    Raises:
        OSError: it cannot be written.
    """
    if target == STDOUT:
        # JSON and CSV are UTF-8 whatever the terminal's encoding is.
        encoding, errors = (sys.stdout.encoding, "replace") if table else ("utf-8", "surrogateescape")
        sys.stdout.reconfigure(encoding=encoding, errors=errors)  # type: ignore[union-attr]  # TextIO on paper
        yield sys.stdout
        return
    path = Path(target).resolve()  # a link stays one
    if path.exists() and not path.is_file():  # /dev/null must not be replaced
        with _open(path, "w") as stream:
            yield stream
        return
    with drafted(path) as draft, _open(draft, "x") as stream:
        yield stream
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """Give the path of a draft beside ``path``, which takes its place where the block ends well, and else goes."""
    draft = path.with_name(f".darkroom-{os.getpid()}.partial")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def writer_for(kind: str, stream: TextIO) -> Writer:
    """Return what writes ``kind``, one of ``FORMATS``."""
    makers: dict[str, Callable[[TextIO], Writer]] = {"table": _table, "json": Json, "jsonl": JsonLines, "csv": Csv}
    return makers[kind](stream)


def clean(text: str | None) -> str:
    """Return ``text`` without what a terminal would act on: control characters, and bytes that are no text."""
    return "".join(character if character.isprintable() else _NO_TEXT for character in text or "")


def width(text: str) -> int:
    """Return how many columns of a terminal ``text`` takes."""
    return sum(_width(character) for character in text)


def shortened(text: str, columns: int) -> str:
    """Return ``text`` with its middle left out, so that it takes no more than ``columns`` of a terminal."""
    if width(text) <= columns:
        return text
    head = _first(text, (columns - 1) // 2)
    tail = _first(text[::-1], columns - 1 - width(head))[::-1]
    return head + _ELLIPSIS + tail


def _table(stream: TextIO) -> Table:
    return Table(stream, shutil.get_terminal_size().columns if stream.isatty() else None)


def _open(path: Path, mode: str) -> TextIO:
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")  # type: ignore[return-value]


def _json(result: Result) -> str:
    # Half of a surrogate pair, as bytes in names become that are no text, is JSON only as an escape.
    return json.dumps(_record(result), ensure_ascii=not _is_text(result.file), separators=(",", ":"))


def _record(result: Result) -> dict[str, Any]:
    if result.error:
        return {"file": result.file, "error": result.error, "message": result.message}
    model = result.model and {"name": result.model.name, "version": result.model.version}
    predictions = _records(result.predictions)
    labels = {} if result.labels is None else {"labels": _records(result.labels)}
    familiar = {} if result.familiar is None else {"familiar": result.familiar}
    return {"file": result.file, "predictions": predictions, **labels, **familiar, "model": model}


def _records(predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
    return [{"label": each.label, "probability": each.probability} for each in predictions]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):  # drawn over the character before
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _first(text: str, columns: int) -> str:
    """Return as much of the beginning of ``text`` as ``columns`` hold."""
    end = 0
    while end < len(text) and (columns := columns - _width(text[end])) >= 0:
        end += 1
    return text[:end]


def _fitted(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))
