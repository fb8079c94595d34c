"""Write a table of labels anew as suggestions say; the table that was given and its pictures stay as they are."""

import csv
import io
from pathlib import Path

from training.check.findings import ADD, LEAVE_OUT, LOOK_AT, MOVE_TO, REMOVE
from training.check.tidying import faults_in_words, label_in, suggestions_in
from training.data import label_table
from training.errors import TrainingError

_SPLITS = ("train", "val", "test")


def correct(folder: Path, labels: Path, suggestions: Path, corrected: Path) -> tuple[int, tuple[str, ...]]:
    """Write the table ``corrected``: that of ``labels`` with what the lines of the CSV ``suggestions`` ask for.

    It has a row for each picture of ``folder`` with the columns that count: path, label or labels, and split where
    that is given. Either all lines are good, or nothing is written. Returns how many pictures have other labels or are
    left out, and sentences on what of ``labels`` is not in it.

    Raises:
        TrainingError: a line is wrong, told by its number; a table cannot be read; ``corrected`` is there already.
        OSError: it cannot be written.
    """
    found = label_table.find(labels, folder, fewest_classes=1)
    parts = (found.train, found.validation or [], found.test or [])
    files = {file.path.relative_to(folder).as_posix(): file for part in parts for file in part}
    several = any(file.labels is not None for file in files.values())
    before = {path: {file.label} if file.labels is None else set(file.labels) for path, file in files.items()}
    after, faults = _changed(before, suggestions, found.labels, folder, several=several)
    if faults:
        raise TrainingError(f"nothing was written, since {suggestions} has faults: {faults_in_words(faults)}")
    rows = [
        (path, ";".join(sorted(after[path])), split)
        for part, split in zip(parts, _SPLITS, strict=True)
        for path in (file.path.relative_to(folder).as_posix() for file in part)
        if path in after
    ]
    columns = ("path", "labels" if several else "label", "split")
    _write(corrected, [columns, *rows], 2 if found.validation is None and found.test is None else 3)
    return sum(after.get(path) != has for path, has in before.items()), found.notes


def _changed(
    before: dict[str, set[str]], suggestions: Path, labels: tuple[str, ...], folder: Path, *, several: bool
) -> tuple[dict[str, set[str]], list[str]]:
    """Return the labels of the pictures that stay, by their paths, and what is wrong with lines."""
    after = {path: set(has) for path, has in before.items()}
    faults = []
    moved: set[str] = set()
    for line, path, suggestion in suggestions_in(suggestions):
        if suggestion in ("", LOOK_AT):
            continue
        if fault := _fault(path, suggestion, before, labels, folder, several=several):
            faults.append(f"line {line}: {fault}")
        elif suggestion == LEAVE_OUT:
            after.pop(path, None)
        elif path not in after or path in moved:
            continue  # of two fates for a picture, the first one counts
        elif suggestion.startswith(ADD):
            after[path].add(label_in(suggestion, ADD))
        elif suggestion.startswith(REMOVE):
            after[path].discard(label_in(suggestion, REMOVE))
        else:
            after[path] = {label_in(suggestion, MOVE_TO)}
            moved.add(path)
    return after, faults


def _fault(
    path: str, suggestion: str, before: dict[str, set[str]], labels: tuple[str, ...], folder: Path, *, several: bool
) -> str:
    if path not in before:
        return f"{path} is no picture of the table in {folder}"
    if suggestion == LEAVE_OUT:
        return ""
    allowed = (ADD, REMOVE) if several else (MOVE_TO,)
    of = next((each for each in allowed if suggestion.startswith(each)), None)
    if of is None:
        wanted = " and ".join(f"'{each}LABEL'" for each in allowed)
        has = "pictures may have several labels" if several else "each picture has one label"
        return f"{suggestion!r} is none of {LEAVE_OUT!r}, {LOOK_AT!r} and, since {has}, {wanted}"
    label = label_in(suggestion, of)
    return "" if label in labels else f"there is no label {label!r}; the table needs a picture of it first"


def _write(file: Path, rows: list[tuple[str, str, str]], columns: int) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(row[:columns] for row in rows)
    try:
        with file.open("x", encoding="utf-8", newline="") as opened:
            opened.write(text.getvalue())
    except FileExistsError as error:
        raise TrainingError(f"{file} is there already; name another file, or remove it first") from error
