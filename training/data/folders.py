"""Find labelled pictures on disk: a subfolder for each class, or ``train/``, ``val/`` and ``test/`` of those."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.data.decoding import suffixes
from training.errors import TrainingError

_ROLES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_NOT_DATA = ("__macosx", "thumbs.db", "@eadir", "lost+found", "$recycle.bin", "system volume information")
_SHOWN = 5


@dataclass(frozen=True)
class File:
    """A file that should be a picture.

    ``name`` is its path from the folder of its class on, with forward slashes and in Unicode's NFC, so that it is the
    same on every file system.
    """

    path: Path
    name: str
    label: str


@dataclass(frozen=True)
class Found:
    """What a folder holds; ``validation`` and ``test`` are None where it has no folders for them.

    ``labels`` are sorted; ``notes`` are sentences on what was passed over.
    """

    labels: tuple[str, ...]
    train: list[File]
    validation: list[File] | None = None
    test: list[File] | None = None
    notes: tuple[str, ...] = ()


def find(folder: Path, fewest_classes: int = 2) -> Found:
    """List the pictures below ``folder`` with their labels, which are the names of the folders that they lie in.

    Folders within a class's are searched too. What is hidden, and what systems leave behind, is passed over.

    Raises:
        TrainingError: fewer than ``fewest_classes`` or an empty one are there, or the splits' classes do not match.
        OSError: a folder cannot be read.
    """
    splits = _split_folders(folder)
    passed_over: Counter[str] = Counter()
    train = splits.get("train", folder)
    labels, files = _of_classes(train, fewest_classes, passed_over)
    held_out = {
        role: _of_known_classes(splits[role], train, labels, passed_over)
        for role in ("validation", "test")
        if role in splits
    }
    return Found(labels, files, **held_out, notes=tuple(_notes(folder, splits, passed_over)))


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return the folders of the splits by their role; empty where ``folder`` has the classes themselves."""
    splits: dict[str, Path] = {}
    others = 0
    for entry in _subfolders(folder):
        role = _ROLES.get(entry.name.casefold())
        if role is None:
            others += 1
        elif role in splits:
            raise TrainingError(f"{folder} has both {splits[role].name}/ and {entry.name}/; keep one of them")
        else:
            splits[role] = entry
    if "train" in splits and _subfolders(splits["train"]):
        return splits
    if splits and not others:
        missing = "has no subfolders" if "train" in splits else "is missing"
        raise TrainingError(f"{folder}/train {missing}; {_wanted(folder / 'train')}")
    return {}  # a class may well be called test


def _of_classes(folder: Path, fewest: int, passed_over: Counter[str]) -> tuple[tuple[str, ...], list[File]]:
    """Return the labels below ``folder``, sorted, and its files; every label has at least one."""
    by_label = _by_label(folder, passed_over)
    if not by_label:
        raise TrainingError(f"{folder} has no subfolders; {_wanted(folder)}")
    empty = [label for label, files in by_label.items() if not files]
    if empty:
        raise TrainingError(
            f"{folder} has {len(empty)} of {len(by_label)} folders without a picture: {_few(empty)}; "
            "remove them, or put pictures into them" + _other_files(passed_over)
        )
    if len(by_label) < fewest:
        (only,) = by_label
        raise TrainingError(
            f"{folder} has one class, {only}, and a classifier needs two or more; "
            f"if the folders of the classes lie in it, give {folder / only}"
        )
    labels = tuple(sorted(by_label))
    return labels, [file for label in labels for file in by_label[label]]


def _of_known_classes(folder: Path, train: Path, labels: tuple[str, ...], passed_over: Counter[str]) -> list[File]:
    """Return the files of a split that was given beside ``train``; classes may be missing, but none be new."""
    by_label = _by_label(folder, passed_over)
    new = sorted(by_label.keys() - set(labels))
    if new:
        raise TrainingError(f"{folder} has classes that {train} does not have: {_few(new)}; rename or remove them")
    files = [file for label in sorted(by_label) for file in by_label[label]]
    if not files:
        raise TrainingError(f"{folder} has no pictures in folders of classes; remove it, or {_wanted(folder)}")
    return files


def _by_label(folder: Path, passed_over: Counter[str]) -> dict[str, list[File]]:
    by_label: dict[str, list[File]] = {}
    for entry in _subfolders(folder):
        label = _label(entry)  # two spellings of one name in Unicode are one class
        by_label.setdefault(label, []).extend(
            File(path, unicodedata.normalize("NFC", path.relative_to(folder).as_posix()), label)
            for path in _files(entry, passed_over)
        )
    return by_label


def _label(folder: Path) -> str:
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise TrainingError(f"the name of the folder {os.fsencode(folder)!r} is not UTF-8; rename it") from error
    return unicodedata.normalize("NFC", folder.name)


def _files(folder: Path, passed_over: Counter[str]) -> Iterator[Path]:
    """Yield the files below ``folder`` that may be pictures, and count the others by their suffix."""
    pending, seen = [folder], set()
    while pending:
        current = pending.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:  # a link leads back
            continue
        seen.add((status.st_dev, status.st_ino))
        for path in _visible(current):
            if path.is_dir():
                pending.append(path)
            elif path.suffix.lower() in suffixes() and _ends(path):
                yield path
            else:
                passed_over[path.suffix.lower() or path.name] += 1


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir())
    return [path for path in entries if not path.name.startswith(".") and path.name.casefold() not in _NOT_DATA]


def _ends(path: Path) -> bool:
    """Say whether reading ``path`` comes to an end; that of a pipe need not. A broken link fails, which is an end."""
    return path.is_file() or not path.exists()


def _notes(folder: Path, splits: dict[str, Path], passed_over: Counter[str]) -> Iterator[str]:
    if passed_over:
        yield f"Passed over files that are not pictures: {passed_over.total():,}{_other_files(passed_over)}."
    beside = [entry.name for entry in _subfolders(folder) if entry not in splits.values()] if splits else []
    if beside:
        yield f"Passed over what lies beside {splits['train'].name}/: {_few(beside)}."
    loose = sum(path.suffix.lower() in suffixes() and path.is_file() for path in _visible(folder))
    if loose:
        yield f"Passed over pictures that lie in {folder} itself and so have no class: {loose:,}."


def _other_files(passed_over: Counter[str]) -> str:
    """Return in brackets which suffixes were seen that no picture has."""
    return f" ({_few([name for name, _ in passed_over.most_common()])})" if passed_over else ""


def _wanted(folder: Path) -> str:
    return f"put the pictures of each class into a subfolder named after it, such as {folder}/cat/1.jpg"


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
