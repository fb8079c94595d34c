"""Split files so that every class is in every part, the same on every machine.

The order is that of a hash of the files' names: it looks like chance and depends on nothing else, so that one file more
moves few of the others.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Classes
from training.data.folders import File
from training.data.hashes import Groups

Order = NDArray[np.int64]
"""The pictures in a new order, each by its place in the old one."""

_SEED = 0
_FIRST = -1.0


def split_off(files: Sequence[File], share: float) -> tuple[list[File], list[File]]:
    """Return what is kept of ``files`` and the ``share`` of each class that is split off.

    A class of two or more files is in both parts; one of a single file is kept.
    """
    kept, split = [], []
    for of_class in _shuffled_by_class(files):
        count = max(1, round(share * len(of_class))) if len(of_class) > 1 else 0
        split += of_class[:count]
        kept += of_class[count:]
    return kept, split


def interleave(files: Sequence[File]) -> list[File]:
    """Return ``files`` in an order that has about the same part of every class in each stretch of it.

    So any number of files can be held out from the end, or looked at from the beginning. The first files are one of
    each class: as long as those stay, every class is there.
    """
    places = [
        (_FIRST if index == 0 else (index + 0.5) / len(of_class), _rank(file), file)
        for of_class in _shuffled_by_class(files)
        for index, file in enumerate(of_class)
    ]
    return [file for *_, file in sorted(places, key=lambda place: place[:2])]


def keep_together(classes: Classes, groups: Groups, movable: NDArray[np.bool_]) -> Order:
    """Return the order int64 [N] in which near duplicates come first, so that what is held out from the end has none.

    ``classes`` and ``groups`` are int64 [N]; only pictures that are ``movable``, bool [N], change places, and only with
    others of their class, so that each stretch has as many of every class as before. It does not depend on how many are
    held out. Where nearly all pictures have duplicates, those that are held out have as well, but groups lie together.
    """
    order = np.arange(len(classes))
    sizes = np.bincount(groups, minlength=1)[groups]  # [N]
    for class_ in np.unique(classes[movable & (sizes > 1)]):
        places = np.flatnonzero(movable & (classes == class_))
        alone = sizes[places] == 1
        grouped = places[~alone]
        by_group = grouped[np.lexsort((groups[grouped], -sizes[grouped]))]
        order[places] = np.concatenate([by_group, places[alone]])
    return order


def _shuffled_by_class(files: Sequence[File]) -> list[list[File]]:
    by_class: defaultdict[str, list[File]] = defaultdict(list)
    for file in files:
        by_class[file.label].append(file)
    return [sorted(by_class[label], key=_rank) for label in sorted(by_class)]


def _rank(file: File) -> tuple[bytes, str]:
    """Return a hash of the file's name; the path tells names apart that only differ in their spelling in Unicode."""
    return hashlib.sha256(f"{_SEED}\n{file.name}".encode(errors="surrogateescape")).digest(), str(file.path)
