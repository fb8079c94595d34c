"""Read any folder of labelled pictures as a data set.

What is decoded here is what the service decodes: both do it by ``imaging`` and the rule in the version's metadata.
"""

import dataclasses
import hashlib
import math
import shlex
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifact import Input
from artifact.metadata import Resize
from artifact.reviewed import is_reviewed
from training.data import label_table
from training.data.dataset import Classes, Dataset, Digests, LeftOut, Pixels, Split, hold_out, targets_of
from training.data.decoding import NEARLY_BLACK, shorter_side
from training.data.findings import Example, Finding
from training.data.folders import File, Found, Layout, classes_of, find
from training.data.hashes import WORDS, Groups, alike, groups_of
from training.data.reading import Faults, read_all
from training.data.splitting import Order, interleave, keep_together, split_off
from training.data.storage import allocate
from training.errors import TrainingError
from training.names import command, printable

_SIDES = (32, 64, 96, 128, 160, 224)  # pixels
_MEASURED_FILES = 500
_NEARLY_BLACK = 64  # levels of 255, that the brightest pixel stays below
_EXAMPLES = 24  # of a finding, for the report
_SHARE = 0.1  # of the pictures for the test, and as many of what is left for validation


@dataclass(frozen=True)
class Reading:
    """What becomes of the pictures of a folder.

    ``size`` is the height and width in pixels that they are brought to, None for one that follows from the pictures.
    ``max_unreadable`` is the share of files, 0 to 1, that may be damaged. ``cache`` is the folder for pixels that do
    not fit into memory, None for the system's folder for temporary files. ``fewest_classes`` is 1 where the pictures
    are only to be measured on. ``least_held_out`` is how many pictures are held out for validation at least, where they
    are no more than a quarter and nothing else is asked for. ``layout`` says what the folders are where their names
    leave it open. ``labels`` is a CSV file with the labels of pictures that lie in any folders.
    """

    size: tuple[int, int] | None = None
    resize: Resize = "crop"
    max_unreadable: float = 0.1
    cache: Path | None = None
    fewest_classes: int = 2
    least_held_out: int = 0
    layout: Layout | None = None
    labels: Path | None = None


def load(folder: Path, validation_images: int | None, picture: Input | None, reading: Reading) -> Dataset:
    """Read the pictures in ``folder``, which ``training.data.folders`` finds, as a data set named after it.

    Where there is a table of labels, ``training.data.label_table`` finds them. Without ``test/``, a tenth of every
    class is the test. The last pictures to train on are held out for validation: those of ``val/``, or where there is
    none, a tenth. ``validation_images`` is another number of them. Pictures are brought to ``picture``, or, without
    one, to what ``reading`` says.

    Raises:
        TrainingError: the folder does not hold at least two classes of pictures, too many cannot be read, or too few
            are left to train on or to test with.
        OSError: a folder cannot be read, or that for pixels not be written.
    """
    found = _find(folder, reading)
    for note in found.notes:
        print(printable(note))
    _print_reviewed(found)
    parts = _parts(folder, found)
    picture = picture or _input(parts.train, reading)
    files = [*parts.train, *parts.validation, *parts.test]
    images = allocate((len(files), picture.height, picture.width, 3), reading.cache)
    digests = np.empty((len(files), hashlib.sha256().digest_size), np.uint8)
    hashes = np.empty((len(files), 2, WORDS), np.uint64)
    faults = read_all(files, picture, images, digests, hashes, reading.max_unreadable)
    _print_faults(files, faults)
    if _are_nearly_black(images, faults):
        print(NEARLY_BLACK)
    readable = parts.without({files[index] for index in faults})
    pictures = Split(
        _without(images, faults),
        readable.classes(found.labels),
        np.delete(digests, list(faults), axis=0),
        tuple(_name_below(folder, file) for index, file in enumerate(files) if index not in faults),
    )
    groups = groups_of(alike(np.delete(hashes, list(faults), axis=0)), len(pictures))
    said = _duplicates_in_words(pictures.classes, groups, readable.given(found))
    if said:
        table = f" --labels {shlex.quote(str(reading.labels))}" if reading.labels else ""
        several = pictures.classes.ndim == 2  # which a check does not take
        print(f"{said}." if several else f"{said}; {command()} check {shlex.quote(str(folder))}{table} shows them.")
    findings = (_duplicates(pictures, found.labels, groups, said),) if said else ()
    order = keep_together(readable.strata(), groups, ~readable.given(found))
    pictures = _reordered(pictures, order)
    held_out = _held_out(_name(folder), found.labels, readable, validation_images, reading.least_held_out)
    dataset = _split(_name(folder), found.labels, readable, pictures, held_out)
    return dataclasses.replace(
        dataset,
        resize=picture.resize,
        interpolation=picture.interpolation,
        left_out=tuple(LeftOut(_name_below(folder, files[index]), fault) for index, fault in sorted(faults.items())),
        passed_over=found.notes,
        findings=findings,
        groups=groups[order][: len(pictures) - len(dataset.test)] if said else None,
    )


def _find(folder: Path, reading: Reading) -> Found:
    if reading.labels:
        return label_table.find(reading.labels, folder, reading.fewest_classes, reading.max_unreadable)
    return find(folder, reading.fewest_classes, reading.layout)


def model_name(folder: Path) -> str:
    """Return the name of ``folder`` as the name of a model: what may not be in one becomes a hyphen."""
    letters = [letter if letter.isalnum() or letter in "._-" else "-" for letter in _name(folder)]
    return "".join(letters).lstrip(".-") or "pictures"


def _name_below(folder: Path, file: File) -> str:
    """Return the path of ``file`` below ``folder``, with what is no text in it as question marks."""
    return file.path.relative_to(folder).as_posix().encode(errors="replace").decode()


def _name(folder: Path) -> str:
    named = folder.resolve() if folder.name in ("", "..") else folder
    return named.name.encode(errors="replace").decode() or "pictures"


@dataclass(frozen=True)
class _Parts:
    """The files of a data set in their final order; ``validation`` are those of ``val/``."""

    train: list[File]
    validation: list[File]
    test: list[File]

    def classes(self, labels: tuple[str, ...]) -> Classes:
        """Return the classes of all files, int64 [N] or [N, labels]."""
        return classes_of([*self.train, *self.validation, *self.test], labels)

    def strata(self) -> Classes:
        """Return a number int64 [N] for each file, the same for those that the splits have in equal shares."""
        labels = [file.label for file in (*self.train, *self.validation, *self.test)]
        number_of = {label: number for number, label in enumerate(sorted(set(labels)))}
        return np.array([number_of[label] for label in labels], np.int64)

    def given(self, found: Found) -> NDArray[np.bool_]:
        """Return which files are in a split that the folder has beside that to train on, bool [N]."""
        parts = ((self.train, False), (self.validation, True), (self.test, found.test is not None))
        return np.concatenate([np.full(len(part), given) for part, given in parts])

    def without(self, files: set[File]) -> "_Parts":
        """Return the same in the same order, without ``files``."""
        return _Parts(
            *([file for file in part if file not in files] for part in (self.train, self.validation, self.test))
        )


def _parts(folder: Path, found: Found) -> _Parts:
    train, test = (found.train, found.test) if found.test else split_off(found.train, _SHARE)
    if not test:
        raise TrainingError(f"{folder} has one picture in each class, so none is left for the test; put in more")
    if not found.test:
        part = f"{_SHARE:.0%} of each class and at least one where there are two"
        print(printable(f"{folder} has no test/, so {len(test):,} pictures, {part}, are kept for the test."))
    return _Parts(interleave(train), interleave(found.validation or []), interleave(test))


def _input(files: list[File], reading: Reading) -> Input:
    """Return the input that ``reading`` says, or one that is about as large as most of ``files``."""
    if reading.size:
        return Input(*reading.size, resize=reading.resize)
    median = _middle_side(files)
    if median is None:  # reading them will tell what is wrong
        return Input(_SIDES[0], _SIDES[0], resize=reading.resize)
    side = min(_SIDES, key=lambda side: abs(math.log(side / median)))
    print(
        f"Pictures are brought to {side}x{side} pixels ({reading.resize}), since the shorter side of the middle one in "
        f"size has {median}; --image-size chooses another."
    )
    return Input(side, side, resize=reading.resize)


def middle_side(folder: Path, reading: Reading) -> int | None:
    """Return the pixels of the shorter side of the middle one in size of the pictures to train on in ``folder``.

    None where none of them can be read.

    Raises:
        TrainingError: the folder does not hold as many classes of pictures as ``reading`` says.
        OSError: a folder cannot be read.
    """
    return _middle_side(interleave(_find(folder, reading).train))


def _middle_side(files: list[File]) -> int | None:
    sides = [side for side in map(shorter_side, (file.path for file in files[:_MEASURED_FILES])) if side]
    return statistics.median_low(sides) if sides else None


def _print_reviewed(found: Found) -> None:
    files = [*found.train, *(found.validation or ()), *(found.test or ())]
    if reviewed := sum(is_reviewed(file.name) for file in files):
        print(f"{reviewed:,} of the {len(files):,} pictures came back from the service and were labelled in review.")


def _print_faults(files: list[File], faults: Faults) -> None:
    if faults:
        print(f"Left out {len(faults):,} of {len(files):,} pictures, since they cannot be read:")
    for index, fault in sorted(faults.items()):
        print(printable(f"  {files[index].path}: {fault}"))


def _are_nearly_black(images: Pixels, faults: Faults) -> bool:
    """Say whether most pictures are nearly black, as those of 16 bits that use fewer."""
    looked_at = [index for index in range(len(images)) if index not in faults][:_MEASURED_FILES]
    return bool(looked_at) and statistics.median(int(images[index].max()) for index in looked_at) < _NEARLY_BLACK


def _duplicates_in_words(classes: Classes, groups: Groups, given: NDArray[np.bool_]) -> str:
    """Say how many pictures are there more than once, or nearly; nothing where none is."""
    several = np.bincount(groups)[groups] > 1  # [N]
    if not several.any():
        return ""
    if classes.ndim == 2:
        classes = np.unique(classes, axis=0, return_inverse=True)[1].reshape(-1)  # a number for each set of labels
    said = f"{several.sum():,} pictures are there more than once, or nearly"
    least, most = np.full(len(groups), len(classes)), np.full(len(groups), -1)
    np.minimum.at(least, groups, classes)
    np.maximum.at(most, groups, classes)
    if contradicted := int((least != most)[groups].sum()):
        said += f", {contradicted:,} of them under two labels"
    leaked = given & np.isin(groups, groups[~given])
    if leaked.any():
        said += f"; {leaked.sum():,} are held out and in the training, so what is measured on them is too good"
    return said


def _duplicates(pictures: Split, labels: tuple[str, ...], groups: Groups, said: str) -> Finding:
    """Return for the report what is said of pictures that are there more than once; those of a group side by side."""
    sizes = np.bincount(groups)[groups]
    places = np.flatnonzero(sizes > 1)
    places = places[np.lexsort((groups[places], -sizes[places]))]
    shown = places[:_EXAMPLES]
    names, has = pictures.names or (), targets_of(pictures.classes[shown], len(labels)) > 0  # [shown, classes]
    examples = tuple(
        # Copied, since the pixels change places afterwards.
        Example(names[place], " and ".join(np.array(labels)[row]) or "no label", pictures.images[place].copy())
        for place, row in zip(shown.tolist(), has, strict=True)
    )
    return Finding("Pictures that are there more than once", len(places), f"{said}.", examples)


def _reordered(pictures: Split, order: Order) -> Split:
    """Return ``pictures`` in ``order`` int64 [N], moved one at a time where they lie, since all may not fit twice."""
    done = order == np.arange(len(order))
    for start in np.flatnonzero(~done).tolist():
        if done[start]:
            continue
        first = pictures.images[start].copy(), _digest(pictures, start).copy()
        place = start
        while (source := int(order[place])) != start:
            pictures.images[place], _digest(pictures, place)[:] = pictures.images[source], _digest(pictures, source)
            done[place], place = True, source
        pictures.images[place], _digest(pictures, place)[:] = first
        done[place] = True
    names = pictures.names or ()
    return dataclasses.replace(
        pictures, classes=pictures.classes[order], names=tuple(names[source] for source in order)
    )


def _digest(pictures: Split, place: int) -> Digests:
    assert pictures.files is not None  # noqa: S101 - for the types: those of a folder have them
    digest: Digests = pictures.files[place]
    return digest


def _without(images: Pixels, faults: Faults) -> Pixels:
    """Close the gaps that unreadable pictures left in ``images``, a picture at a time, since all may not fit twice."""
    target = min(faults, default=len(images))
    for index in range(target, len(images)):
        if index not in faults:
            images[target] = images[index]
            target += 1
    return images[:target]


def _split(name: str, labels: tuple[str, ...], parts: _Parts, pictures: Split, held_out: int) -> Dataset:
    """Split the ``pictures`` of the files in ``parts``, which are in the same order."""
    known = len(parts.train) + len(parts.validation)
    dataset = hold_out(name, labels, pictures[:known], pictures[known:], held_out)
    if not len(dataset.test):
        raise TrainingError(f"no picture for the test of {name} can be read")
    classes = dataset.train.classes
    present = set(np.unique(classes) if classes.ndim == 1 else np.flatnonzero(classes.any(axis=0)))
    missing = [label for number, label in enumerate(labels) if number not in present]
    if missing:
        raise TrainingError(
            f"no picture to train on of {missing[0]} can be read; put in more, or "
            + ("leave the label out" if dataset.multi_label else "remove its folder")
        )
    return dataset


def _held_out(name: str, labels: tuple[str, ...], parts: _Parts, wanted: int | None, least: int) -> int:
    """Return how many of the last pictures are held out for validation."""
    if parts.validation:
        most, why = len(parts.validation), "val/ has no more"
        default = most
    else:
        most, why = max(0, len(parts.train) - len(labels)), "each class keeps one to train on"
        default = min(max(round(_SHARE * len(parts.train)), min(least, len(parts.train) // 4)), most)
    if wanted is not None and wanted > most:
        raise TrainingError(
            f"{wanted:,} pictures of {name} cannot be held out for validation: at most {most:,}, since {why}"
        )
    return default if wanted is None else wanted
