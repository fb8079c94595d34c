"""Read the labels of pictures from a CSV file, for pictures that do not lie in a folder for each class.

A header names the columns, in any order: ``path`` below the folder of the pictures, ``label`` for exactly one label, or
``labels`` for several or none, and ``split`` where the parts of the data are given. Labels in a cell are separated by
``;`` or ``|``, and rows of the same path add up. Columns are separated by commas, or as some spreadsheets do, by
semicolons or tabs. What is wrong with a row is told by its line, and the row is left out.
"""

import contextlib
import csv
import io
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from artifact.pictures import has_suffix
from training.data.folders import File, Found, alike_in_words, few, role_of
from training.errors import TrainingError

_MOST_BYTES = 2**28
_SHOWN = 20  # broken rows
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SEPARATOR = re.compile("[;|]")
_ROLES = ("train", "validation", "test")
_FEWEST = 2  # pictures of a label, where pictures may have several

Broken = dict[int, str]
"""What is wrong with rows, by their lines."""


class _Row(NamedTuple):
    line: int
    path: Path
    name: str
    labels: tuple[str, ...]
    role: str | None


@dataclass(frozen=True)
class _Columns:
    """Where the columns stand, how many there are, and whether a picture may have several labels."""

    path: int
    label: int
    split: int | None
    number: int
    several: bool


class _Folders:
    """The pictures in folders by their names without suffixes, each folder listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def called(self, path: Path) -> list[Path]:
        """Return the pictures that are called ``path`` but for the suffix, which lists of ids leave out."""
        if path.parent not in self._listed:
            self._listed[path.parent] = self._by_stem(path.parent)
        return [path.parent / name for name in self._listed[path.parent].get(path.name, ())]

    def _by_stem(self, folder: Path) -> dict[str, list[str]]:
        by_stem: defaultdict[str, list[str]] = defaultdict(list)
        with contextlib.suppress(OSError, ValueError):  # it is not there, or no folder can have this name
            for name in sorted(path.name for path in folder.iterdir()):
                if has_suffix(name):
                    by_stem[Path(name).stem].append(name)
        return by_stem


def find(table: Path, folder: Path, fewest_classes: int = 2, most_broken: float = 0.1) -> Found:
    """List the pictures below ``folder`` that the CSV file ``table`` names, with their labels.

    Where every picture has exactly one, they are found as those in a folder for each class are.

    Raises:
        TrainingError: the file cannot be read, its columns have other names, more than the share ``most_broken`` of its
            rows are broken, or what is left has too few classes, or too few pictures of one.
    """
    broken: Broken = {}
    rows, number, columns, notes = _rows(table, folder, broken)
    kept = _agreeing(rows, broken, several=columns.several)
    _require_rows(table, broken, number, most_broken)
    if broken:
        notes = [*notes, f"Left out {len(broken):,} of {number:,} rows of {table.name}: {_in_words(broken)}."]
    several = any(len(row.labels) != 1 for row in kept)
    parts = {role: [row for row in kept if (row.role or "train") == role] for role in _ROLES}
    labels = _labels(table, parts, fewest_classes, several=several)
    notes = [*notes, *alike_in_words(labels)]
    counts = Counter(label for row in kept for label in row.labels)
    files = {role: [_file(row, counts, several=several) for row in part] for role, part in parts.items()}
    return Found(labels, files["train"], files["validation"] or None, files["test"] or None, tuple(notes))


def _rows(table: Path, folder: Path, broken: Broken) -> tuple[list[_Row], int, _Columns, list[str]]:
    """Return the rows that are whole, how many there are with the others, the columns, and what was passed over."""
    lines = _lines(table)
    first, header = next(lines, (1, []))
    if len(header) == 1 and (delimiter := _other_delimiter(header[0])):
        lines = _lines(table, delimiter)
        first, header = next(lines)
    columns, notes = _columns(table, first, header)
    rows, number, folders = [], 0, _Folders()
    for line, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        number += 1
        try:
            rows.append(_row(line, cells, columns, folder, folders))
        except ValueError as fault:
            broken[line] = str(fault)
    return rows, number, columns, notes


def _lines(table: Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each row begins at, counted from 1, with the row's cells."""
    try:
        with table.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise TrainingError(f"{table} cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise TrainingError(f"{table} has more than {_MOST_BYTES / 2**20:.0f} MiB; it is not a list of labels")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise TrainingError(f"{table} is not text in UTF-8; save it as CSV in UTF-8")
    # What is no UTF-8 is told with its line, when the row is looked at.
    text = io.StringIO(content.decode("utf-8-sig", errors="surrogateescape"), newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    begin = 1
    try:
        for cells in reader:
            yield begin, cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise TrainingError(f"{table}, line {begin}: {error}; a quotation mark may have no closing one") from error


def _other_delimiter(header: str) -> str | None:
    return next((mark for mark in _DELIMITERS if mark in header), None)


def _columns(table: Path, line: int, header: list[str]) -> tuple[_Columns, list[str]]:
    names = [cell.strip().casefold() for cell in header]
    named = [name for name in ("label", "labels") if name in names]
    if "path" not in names or len(named) != 1 or len(set(names)) < len(names):
        has = f"has the columns {few([repr(name) for name in names])}" if any(names) else "is empty"
        raise TrainingError(
            f"{table}, line {line}: it {has}; the first line names them: path and label, or path and labels where a "
            "picture may have several, and split if the parts of the data are given"
        )
    split = names.index("split") if "split" in names else None
    others = [name for name in names if name not in ("path", "split", *named)]
    notes = [f"Passed over columns of {table.name}: {few(others)}."] if others else []
    several = named == ["labels"]
    return _Columns(names.index("path"), names.index(named[0]), split, len(names), several), notes


def _row(line: int, cells: list[str], columns: _Columns, folder: Path, folders: _Folders) -> _Row:
    """Return what a row says.

    Raises:
        ValueError: it is broken; the message says how.
    """
    if len(cells) != columns.number:
        more = "; several labels in a cell stand in quotation marks, or between |" if columns.several else ""
        raise ValueError(f"it has {len(cells)} cells, and the header {columns.number}{more}")
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        raise ValueError("it is not UTF-8") from None
    path, name = _path(cells[columns.path].strip(), folder, folders)
    labels = _labels_in(cells[columns.label], several=columns.several)
    role = None if columns.split is None else _role(cells[columns.split].strip())
    return _Row(line, path, name, labels, role)


def _path(text: str, folder: Path, folders: _Folders) -> tuple[Path, str]:
    """Return the file that a row names, and its path below ``folder``.

    Windows's and Unicode's spellings are tried, and then names without a suffix, as those of ids are.
    """
    if not text:
        raise ValueError("it has no path")
    spellings = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))
    called: list[Path] = []
    for spelling in dict.fromkeys([*spellings, *(each.replace("\\", "/") for each in spellings)]):
        path = Path(os.path.normpath(folder / spelling))
        below = os.path.relpath(path, os.path.normpath(folder))
        if below == ".." or below.startswith("../"):
            raise ValueError(f"{text!r} lies outside of {folder}")
        if os.path.isfile(path):  # noqa: PTH113 - which says no to names that no file can have
            return folder / below, unicodedata.normalize("NFC", below)
        called = called or folders.called(path)
    if len(called) > 1:
        raise ValueError(f"{text!r} may be {' or '.join(each.name for each in called)}; give its suffix")
    if called and called[0].is_file():
        below = os.path.relpath(called[0], os.path.normpath(folder))
        return folder / below, unicodedata.normalize("NFC", below)
    raise ValueError(f"{text!r} is not there, or no file, below {folder}")


def _labels_in(cell: str, *, several: bool) -> tuple[str, ...]:
    """Return the labels in a cell, sorted and in Unicode's NFC."""
    if not cell.strip():
        if several:
            return ()
        raise ValueError("it has no label; where a picture may have none, the column is called labels")
    labels = [unicodedata.normalize("NFC", part.strip()) for part in _SEPARATOR.split(cell)]
    if not all(labels):
        raise ValueError(f"{cell!r} has an empty label")
    if len(labels) > 1 and not several:
        raise ValueError(f"{cell!r} looks like several labels; where a picture may have those, call the column labels")
    return tuple(sorted(set(labels)))


def _role(cell: str) -> str:
    role = role_of(cell)
    if role not in _ROLES:
        raise ValueError(f"the split {cell!r} is not one of train, val and test")
    return role


def _agreeing(rows: list[_Row], broken: Broken, *, several: bool) -> list[_Row]:
    """Return one row for each picture, with the labels of all its rows; those that contradict each other are broken."""
    by_name: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_name[row.name].append(row)
    kept = []
    for name, same in by_name.items():
        faults = [fault for row in same[1:] if (fault := _contradiction(same[0], row, several=several))]
        if faults:
            broken.update({row.line: f"{name!r} {faults[0]}, so none of its rows counts" for row in same})
        else:
            kept.append(same[0]._replace(labels=tuple(sorted({label for row in same for label in row.labels}))))
    return kept


def _contradiction(first: _Row, other: _Row, *, several: bool) -> str:
    """Return what two rows of a picture disagree on; nothing where they agree."""
    if first.role != other.role:
        return f"is in {first.role} in line {first.line} and in {other.role} in line {other.line}"
    disagree = bool(first.labels) != bool(other.labels) if several else first.labels != other.labels
    if not disagree:
        return ""
    one, another = (" and ".join(row.labels) or "nothing" for row in (first, other))
    return f"is {one} in line {first.line} and {another} in line {other.line}"


def _require_rows(table: Path, broken: Broken, number: int, most_broken: float) -> None:
    if not number:
        raise TrainingError(f"{table} has no rows below its header; give a path and a label in each")
    if len(broken) > most_broken * number:
        raise TrainingError(
            f"{len(broken):,} of the {number:,} rows of {table} are broken: {_in_words(broken)}; put them right, or "
            "allow more with --max-unreadable. Paths are below --data, or without it, below the folder of the table"
        )


def _in_words(broken: Broken) -> str:
    told = [f"line {line}: {fault}" for line, fault in sorted(broken.items())]
    more = [f"and {len(told) - _SHOWN:,} more"] if len(told) > _SHOWN else []
    return "; ".join([*told[:_SHOWN], *more])


def _labels(table: Path, parts: dict[str, list[_Row]], fewest_classes: int, *, several: bool) -> tuple[str, ...]:
    """Return the labels of the pictures to train on, sorted, once there are enough of them and of their pictures."""
    counts = Counter(label for row in parts["train"] for label in row.labels)
    if not parts["train"]:
        raise TrainingError(f"no row of {table} is for the training; give some the split train")
    held_out = {label for role in _ROLES[1:] for row in parts[role] for label in row.labels}
    if new := sorted(held_out - counts.keys()):
        raise TrainingError(f"{table} has labels in val or test alone: {few(new)}; give the training some of them")
    if not counts:
        raise TrainingError(f"no picture in {table} has a label")
    if several and fewest_classes > 1:
        _require_both(table, counts, len(parts["train"]))
    elif len(counts) < fewest_classes:
        raise TrainingError(f"{table} has one label, {next(iter(counts))}, and a classifier needs two or more")
    return tuple(sorted(counts))


def _require_both(table: Path, counts: Counter[str], pictures: int) -> None:
    """Find out that there is nothing to learn of a label, since too few pictures have it, or all do."""
    rare = sorted(label for label, count in counts.items() if count < _FEWEST)
    if rare:
        raise TrainingError(
            f"{table} has labels of a single picture to train on: {few(rare)}; a label needs {_FEWEST}, so give more, "
            "or leave these out"
        )
    if everywhere := sorted(label for label, count in counts.items() if count == pictures):
        raise TrainingError(
            f"in {table} every picture to train on has {few(everywhere)}, so nothing can be learned of that; add "
            "pictures without it, or leave it out"
        )


def _file(row: _Row, counts: Counter[str], *, several: bool) -> File:
    if not several:
        return File(row.path, row.name, row.labels[0])
    rarest = min(row.labels, key=lambda label: (counts[label], label), default="")
    return File(row.path, row.name, rarest, row.labels)
