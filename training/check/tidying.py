"""Do what is left in a table of suggestions: move pictures to another class, or out of the way; never delete any.

What is left out lies in ``.left-out/`` in the folder, which no training reads, with a journal of all that was moved.
"""

import csv
import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.check.findings import ADD, LEAVE_OUT, LOOK_AT, MOVE_TO, REMOVE
from training.data.folders import find
from training.errors import TrainingError

LEFT_OUT = ".left-out"
_JOURNAL = "journal.jsonl"
_NEEDED = ("path", "suggestion")
_SHOWN = 10


@dataclass(frozen=True)
class Move:
    """A file's way from one place to another, both relative to the folder, with forward slashes."""

    source: str
    target: str


def apply(folder: Path, table: Path) -> list[Move]:
    """Do what the lines of the CSV ``table`` suggest, and return what was moved; ``look at`` asks for nothing.

    Either all lines are good, or nothing is moved.

    Raises:
        TrainingError: a line is wrong, told by its number; the table cannot be read; the folder not be written.
    """
    moves, faults = _planned(folder, table)
    if faults:
        raise TrainingError(f"nothing was moved, since {table} has faults: {faults_in_words(faults)}")
    if moves:
        _carry_out(folder, moves)
    return moves


def undo(folder: Path) -> list[Move]:
    """Take back the last ``apply`` that was not taken back yet, and return how each file was moved.

    Raises:
        TrainingError: there is nothing to take back, something is in the way, or the folder cannot be written.
    """
    journal = folder / LEFT_OUT / _JOURNAL
    entries = _entries(journal)
    if not entries:
        raise TrainingError(f"nothing was moved in {folder} that could be taken back")
    moves = [Move(target, source) for source, target in reversed(entries[-1]) if (folder / target).exists()]
    blocked = [move.target for move in moves if (folder / move.target).exists()]
    if blocked:
        raise TrainingError(f"nothing was moved, since something is in the place of {', '.join(blocked[:_SHOWN])}")
    try:
        for move in moves:
            _move(folder, move)
        _write(journal, entries[:-1])
    except OSError as error:
        raise _not_writable(folder, error) from error
    return moves


def suggestions_in(table: Path) -> Iterator[tuple[int, str, str]]:
    """Yield number, path and suggestion of each line; spreadsheets may have put semicolons and a byte order mark in.

    Raises:
        TrainingError: the table cannot be read, or lacks a column.
    """
    try:
        with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as opened:
            head = opened.readline()
            opened.seek(0)
            reader = csv.DictReader(opened, delimiter=max(",;\t", key=head.count), skipinitialspace=True)
            missing = [column for column in _NEEDED if column not in (reader.fieldnames or ())]
            if missing:
                raise TrainingError(
                    f"{table} has no column {missing[0]}; its first line names the columns, as --csv does"
                )
            for row in reader:
                yield reader.line_num, (row["path"] or "").strip(), (row["suggestion"] or "").strip()
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TrainingError(f"{table} cannot be read ({reason})") from error


def faults_in_words(faults: list[str]) -> str:
    """Return the first of the lines with faults, and how many more there are."""
    more = [f"and {len(faults) - _SHOWN} more lines"] if len(faults) > _SHOWN else []
    return "; ".join([*faults[:_SHOWN], *more])


def label_in(suggestion: str, of: str) -> str:
    """Return the label that a suggestion names behind ``of``, such as ``move to``."""
    return unicodedata.normalize("NFC", suggestion.removeprefix(of).strip())


@dataclass(frozen=True)
class _Places:
    """Where pictures are: the folder of its class by a picture's path, and the folders of a label, one in a split."""

    home_of: dict[str, PurePosixPath]
    folders_of: dict[str, list[PurePosixPath]]


def _places(folder: Path) -> _Places:
    found = find(folder, fewest_classes=1)
    home_of: dict[str, PurePosixPath] = {}
    folders_of: defaultdict[str, list[PurePosixPath]] = defaultdict(list)
    for file in (*found.train, *(found.validation or []), *(found.test or [])):
        path = PurePosixPath(file.path.relative_to(folder).as_posix())
        home = path.parents[len(PurePosixPath(file.name).parts) - 2]
        home_of[path.as_posix()] = home
        if home not in folders_of[file.label]:
            folders_of[file.label].append(home)
    return _Places(home_of, folders_of)


def _planned(folder: Path, table: Path) -> tuple[list[Move], list[str]]:
    """Return what the table asks for, and what is wrong with its lines."""
    places = _places(folder)
    moves: dict[str, Move] = {}
    faults: list[str] = []
    for line, path, suggestion in suggestions_in(table):
        if suggestion in ("", LOOK_AT) or path in moves:
            continue  # of two suggestions for a picture, the first one counts
        if fault := _fault(folder, path, suggestion, places):
            faults.append(f"line {line}: {fault}")
        else:
            taken = {move.target for move in moves.values()}
            moves[path] = Move(path, _target(folder, path, suggestion, places, taken))
    return [move for move in moves.values() if move.source != move.target], faults


def _fault(folder: Path, path: str, suggestion: str, places: _Places) -> str:
    if path not in places.home_of:
        return f"{path} is no picture in {folder}"
    if suggestion == LEAVE_OUT:
        return ""
    if suggestion.startswith((ADD, REMOVE)):
        return f"{suggestion!r} changes a table of labels, not a folder; give the table with --labels, and --corrected"
    if not suggestion.startswith(MOVE_TO):
        return f"{suggestion!r} is none of {LEAVE_OUT!r}, '{MOVE_TO}LABEL' and {LOOK_AT!r}"
    label = label_in(suggestion, MOVE_TO)
    return "" if label in places.folders_of else f"there is no class {label!r}; it needs a folder with a picture first"


def _target(folder: Path, path: str, suggestion: str, places: _Places, taken: set[str]) -> str:
    """Return where a picture goes, with a number behind its name where that is taken."""
    source = PurePosixPath(path)
    if suggestion == LEAVE_OUT:
        wanted = PurePosixPath(LEFT_OUT) / source
    else:
        split, folders = places.home_of[path].parent, places.folders_of[label_in(suggestion, MOVE_TO)]
        home = next(
            (each for each in folders if each.parent == split), split / folders[0].name
        )  # it stays in its split
        if home == places.home_of[path]:
            return path
        wanted = home / source.name
    target, number = wanted, 1
    while target.as_posix() in taken or (folder / target).exists():
        number += 1
        target = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    return target.as_posix()


def _carry_out(folder: Path, moves: list[Move]) -> None:
    """Write down first what is moved, so that whatever ends it early can be taken back."""
    journal = folder / LEFT_OUT / _JOURNAL
    try:
        journal.parent.mkdir(exist_ok=True)
        _write(journal, [*_entries(journal), [[move.source, move.target] for move in moves]])
        for move in moves:
            _move(folder, move)
    except OSError as error:
        raise _not_writable(folder, error) from error


def _move(folder: Path, move: Move) -> None:
    target = folder / move.target
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / move.source).rename(target)


def _entries(journal: Path) -> list[list[list[str]]]:
    try:
        return [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise TrainingError(f"{journal} cannot be read ({error})") from error


def _write(journal: Path, entries: list[list[list[str]]]) -> None:
    draft = journal.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as opened:
        opened.writelines(f"{json.dumps(entry)}\n" for entry in entries)
        opened.flush()
        os.fsync(opened.fileno())
    draft.replace(journal)


def _not_writable(folder: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"{folder} cannot be changed ({error.strerror or error}); copy it to a place where you may write, or ask "
        "whoever owns it. Nothing is lost: --undo takes back what was moved by then"
    )
