"""Find labelled pictures on disk: a subfolder for each class, or ``train/``, ``val/`` and ``test/`` of those.

The parts of a data set have many names (``training_set``, ``valid``, ``test_images``), and a class may have one of
them. Where both may be meant, that is an error which says how to tell, since a wrong guess would be found by nobody.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from artifact.pictures import has_suffix, is_visible
from training.data.dataset import Classes
from training.errors import TrainingError

Layout = Literal["classes", "splits"]
"""What the folders in a data set are."""

_ROLES = {
    "train": ("train", "training", "trn"),
    "validation": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "tests", "testing", "tst", "holdout"),
    "evaluation": ("eval", "evaluation"),  # the one of the last two that is not there
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words}
_MORE = r"(?:data|set|sets|images|image|imgs|img|pictures|photos|samples|split|files)*"
_SPLIT_NAME = re.compile(f"{_MORE}({'|'.join(_ROLE_OF)}){_MORE}")
_TOOLS = (".git", ".svn", ".hg", ".dvc", ".cache", ".ipynb_checkpoints", ".thumbnails", ".idea", ".vscode", ".venv")
_UNREAD = (
    *(".dcm", ".dicom", ".nii", ".mha", ".nrrd", ".svs", ".ndpi", ".czi"),  # of medicine and microscopes
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"),  # of cameras, before development
    *(".jxl", ".svg", ".eps", ".ai", ".pdf", ".npy", ".npz", ".mat", ".h5", ".tfrecord"),
)
"""What pictures are kept in that nothing here reads."""
_SHOWN = 5


@dataclass(frozen=True)
class File:
    """A file that should be a picture.

    ``name`` is its path below the folder of the classes, with forward slashes and in Unicode's NFC, so that it is the
    same on every file system. Where pictures may have several labels, or none, ``labels`` are those of this one, and
    ``label`` is the rarest of them, by which the pictures are split evenly.
    """

    path: Path
    name: str
    label: str
    labels: tuple[str, ...] | None = None


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


@dataclass
class _PassedOver:
    """What was not taken: files by their suffixes, hidden folders, and pictures that lie in no class's folder."""

    suffixes: Counter[str] = field(default_factory=Counter)
    hidden: list[str] = field(default_factory=list)
    loose: Counter[Path] = field(default_factory=Counter)


def find(folder: Path, fewest_classes: int = 2, layout: Layout | None = None) -> Found:
    """List the pictures below ``folder`` with their labels, which are the names of the folders that they lie in.

    Folders within a class's are searched too. What is hidden, and what systems leave behind, is passed over. ``layout``
    says what the folders are; without it their names do.

    Raises:
        TrainingError: it is a file, fewer than ``fewest_classes`` or an empty one are there, the splits' classes do not
            match, the folders may be classes as well as splits, or one is a link to nowhere.
        OSError: a folder cannot be read.
    """
    if folder.is_file():
        raise TrainingError(f"{folder} is a file; where it is an archive, unpack it and give the folder")
    splits = {} if layout == "classes" else _split_folders(folder, layout)
    passed_over = _PassedOver()
    train = splits.get("train", folder)
    labels, files = _of_classes(train, fewest_classes, passed_over, layout)
    held_out = {
        role: _of_known_classes(splits[role], train, labels, passed_over)
        for role in ("validation", "test")
        if role in splits
    }
    places = [folder, *(place for path in splits.values() for place in (path, path.parent))]
    for place in dict.fromkeys(places):
        _note_loose(place, passed_over)
    return Found(labels, files, **held_out, notes=tuple(_notes(folder, splits, labels, passed_over)))


def classes_of(files: list[File], labels: tuple[str, ...]) -> Classes:
    """Return the place in ``labels`` of each file's label, int64 [N]; of several, int64 [N, labels] of 0 and 1."""
    place_of = {label: place for place, label in enumerate(labels)}
    if all(file.labels is None for file in files):
        return np.array([place_of[file.label] for file in files], np.int64)
    classes = np.zeros((len(files), len(labels)), np.int64)
    for row, file in zip(classes, files, strict=True):
        row[[place_of[label] for label in file.labels or ()]] = 1
    return classes


def pictures_in(folder: Path) -> list[Path]:
    """Return the files below ``folder`` that may be pictures, at any depth, sorted; links are followed."""
    return sorted(_files(folder, _PassedOver()))


def _split_folders(folder: Path, layout: Layout | None) -> dict[str, Path]:
    """Return the folders of the splits by their role; empty where ``folder`` has the classes themselves."""
    entries = _subfolders(folder)
    named = {entry: role for entry in entries if (role := role_of(entry.name))}
    if not named and layout is None:
        return {}
    others = [entry.name for entry in entries if entry not in named and any(_files(entry, _PassedOver()))]
    if layout is None and others and not _surely_splits(named):
        divided = [entry.name for entry in named if _subfolders(entry)]
        if divided:
            raise TrainingError(
                f"{folder} has {few(divided)}, with folders inside as a split of the data has, beside {few(others)}, "
                "which look like classes; --layout classes takes all of them for classes, --layout splits takes "
                "train/, val/ and test/ and passes over the others"
            )
        return {}  # a class may well be called test
    splits = _by_role(folder, named)
    if "train" not in splits or not _subfolders(splits["train"]):
        missing = "has no subfolders" if "train" in splits else "is missing"
        raise TrainingError(
            f"{splits.get('train', folder / 'train')} {missing}; {_wanted(folder / 'train')}; or give --layout classes "
            f"where {few([entry.name for entry in named])} are classes"
        )
    return splits


def role_of(name: str) -> str | None:
    """Return the role of a split in its name, such as ``train`` of ``Training-Set``; None where it has none."""
    found = _SPLIT_NAME.fullmatch("".join(letter for letter in name.casefold() if letter.isalpha()))
    return _ROLE_OF[found[1]] if found else None


def _surely_splits(named: dict[Path, str]) -> bool:
    """Say whether folders with the names of splits have folders of the same names inside, as splits do."""
    classes = [{entry.name for entry in _subfolders(_innermost(path))} for path in named]
    trained = [inside for inside, role in zip(classes, named.values(), strict=True) if role == "train"]
    return len(classes) > 1 and len(trained) == 1 and sum(bool(inside & trained[0]) for inside in classes) > 1


def _by_role(folder: Path, named: dict[Path, str]) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    for entry, role in sorted(named.items(), key=lambda item: item[1] == "evaluation"):
        if role == "evaluation":
            role = "test" if "validation" in splits else "validation"
        if role in splits:
            raise TrainingError(
                f"{folder} has both {splits[role].name}/ and {entry.name}/; keep one of them, or give --layout classes "
                "where they are classes"
            )
        splits[role] = _innermost(entry)
    return splits


def _innermost(split: Path) -> Path:
    """Return the folder inside where ``split`` holds nothing but one of the same role, as archives are packed."""
    inside = _subfolders(split)
    packed = len(inside) == 1 and role_of(inside[0].name) == role_of(split.name) and _subfolders(inside[0])
    return inside[0] if packed else split


def _of_classes(
    folder: Path, fewest: int, passed_over: _PassedOver, layout: Layout | None
) -> tuple[tuple[str, ...], list[File]]:
    """Return the labels below ``folder``, sorted, and its files; every label has at least one."""
    by_label = _by_label(folder, passed_over)
    if not by_label:
        raise TrainingError(
            f"{folder} has no subfolders; {_wanted(folder)}; or give --labels, a table of the pictures and their labels"
        )
    if layout is None and all(map(_has_splits, _subfolders(folder))):
        raise TrainingError(
            f"the classes in {folder} have the splits of the data inside; put it the other way round, as "
            f"{folder}/train/{next(iter(by_label))}, or give --layout classes to take each class as a whole"
        )
    empty = [label for label, files in by_label.items() if not files]
    if empty:
        raise TrainingError(
            f"{folder} has {len(empty)} of {len(by_label)} folders without a picture: {few(empty)}; "
            f"remove them, or put pictures into them{_in_brackets(passed_over.suffixes)}{_advice(passed_over)}"
        )
    if len(by_label) < fewest:
        (only,) = by_label
        raise TrainingError(
            f"{folder} has one class, {only}, and a classifier needs two or more; "
            f"if the folders of the classes lie in it, give {folder / only}"
        )
    labels = tuple(sorted(by_label))
    return labels, [file for label in labels for file in by_label[label]]


def _of_known_classes(folder: Path, train: Path, labels: tuple[str, ...], passed_over: _PassedOver) -> list[File]:
    """Return the files of a split that was given beside ``train``; classes may be missing, but none be new."""
    by_label = _by_label(folder, passed_over)
    new = sorted(by_label.keys() - set(labels))
    if new:
        raise TrainingError(f"{folder} has classes that {train} does not have: {few(new)}; rename or remove them")
    files = [file for label in sorted(by_label) for file in by_label[label]]
    if not files:
        raise TrainingError(f"{folder} has no pictures in folders of classes; remove it, or {_wanted(folder)}")
    return files


def _by_label(folder: Path, passed_over: _PassedOver) -> dict[str, list[File]]:
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


def _has_splits(folder: Path) -> bool:
    """Say whether ``folder`` holds nothing but the splits of the data."""
    roles = {role_of(path.name) for path in _entries(folder, _PassedOver()) if path.is_dir()}
    return "train" in roles and len(roles) > 1 and None not in roles


def _files(folder: Path, passed_over: _PassedOver) -> Iterator[Path]:
    """Yield the files below ``folder`` that may be pictures, each folder's once, and count what is passed over."""
    pending, seen = [folder], set()
    while pending:
        current = pending.pop()
        status = current.stat()
        if (status.st_dev, status.st_ino) in seen:  # a link leads back
            continue
        seen.add((status.st_dev, status.st_ino))
        for path in _entries(current, passed_over):
            if path.is_dir():
                pending.append(path)
            # Reading a pipe need not come to an end. A link to nowhere does, and then is told as unreadable.
            elif (has_suffix(path.name) and path.is_file()) or _leads_nowhere(path):
                yield path
            else:
                passed_over.suffixes[path.suffix.lower() or path.name] += 1


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders in ``folder``, sorted.

    Raises:
        TrainingError: a link that may have led to one leads nowhere: a class or a split would be lost.
        OSError: ``folder`` cannot be read.
    """
    entries = _entries(folder, _PassedOver())
    for entry in entries:
        if _leads_nowhere(entry) and not _is_named_as_picture(entry):
            raise TrainingError(f"{entry} is a link to {entry.readlink()}, which is not there; mend or remove it")
    return [path for path in entries if path.is_dir()]


def _entries(folder: Path, passed_over: _PassedOver) -> list[Path]:
    """Return what is in ``folder``, sorted, without what is hidden and what systems leave behind."""
    entries = sorted(folder.iterdir())
    hidden = [path.name for path in entries if path.name.startswith(".") and path.name.casefold() not in _TOOLS]
    passed_over.hidden += [name for name in hidden if (folder / name).is_dir()]
    return [path for path in entries if is_visible(path.name)]


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _is_named_as_picture(path: Path) -> bool:
    return bool(path.suffix) and has_suffix(path.name)


def _note_loose(folder: Path, passed_over: _PassedOver) -> None:
    """Count the files in a folder that has those of classes or splits."""
    for path in _entries(folder, passed_over):
        if path.is_dir():
            continue
        if _is_named_as_picture(path):
            passed_over.loose[folder] += 1
        else:
            passed_over.suffixes[path.suffix.lower() or path.name] += 1


def _notes(folder: Path, splits: dict[str, Path], labels: tuple[str, ...], passed_over: _PassedOver) -> Iterator[str]:
    unread = Counter({name: count for name, count in passed_over.suffixes.items() if name in _UNREAD})
    others = passed_over.suffixes - unread
    if others:
        yield f"Passed over files that are not pictures: {others.total():,}{_in_brackets(others)}."
    if unread:
        yield (
            f"Passed over files in formats that are not read: {unread.total():,}{_in_brackets(unread)}. If they hold "
            "pictures to learn from, save these as PNG or JPEG."
        )
    taken = {folder / path.relative_to(folder).parts[0] for path in splits.values()}
    beside = [entry.name for entry in _subfolders(folder) if entry not in taken] if splits else []
    if beside:
        yield f"Passed over what lies beside {splits['train'].name}/: {few(beside)}."
    for place, count in passed_over.loose.items():
        yield f"Passed over pictures that lie in {place} itself and so have no class: {count:,}."
    if passed_over.hidden:
        yield f"Passed over hidden folders: {len(passed_over.hidden):,} ({few(passed_over.hidden)})."
    yield from alike_in_words(labels)
    if not splits and (like_splits := [label for label in labels if role_of(label)]):
        yield f"Taken for classes, as the others beside them: {few(like_splits)}."


def _in_brackets(suffixes: Counter[str]) -> str:
    """Return the most frequent suffixes in brackets, with a space before; nothing where there are none."""
    names = [name for name, _ in suffixes.most_common()]
    return f" ({few(names)})" if names else ""


def _advice(passed_over: _PassedOver) -> str:
    """Return what to do about formats of pictures that are not read, where there are some."""
    unread = [name for name, _ in passed_over.suffixes.most_common() if name in _UNREAD]
    return f"; {few(unread)} is not read, save such pictures as PNG or JPEG" if unread else ""


def alike_in_words(labels: tuple[str, ...]) -> Iterator[str]:
    """Yield a sentence on labels that differ in nothing but case, spaces, hyphens and underscores, if there are any."""
    by_letters: defaultdict[str, list[str]] = defaultdict(list)
    for label in labels:
        if any(map(str.isalpha, label)):  # -1 and 1 are two things
            by_letters[re.sub(r"[\s_-]", "", label.casefold())].append(label)
    alike = [" and ".join(map(repr, same)) for same in by_letters.values() if len(same) > 1]
    if alike:
        yield f"Labels that differ in little: {few(alike)}. If they mean the same, give their pictures the same one."


def _wanted(folder: Path) -> str:
    return f"put the pictures of each class into a subfolder named after it, such as {folder}/cat/1.jpg"


def few(names: list[str]) -> str:
    """Return the first of ``names`` as a list in words, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
