"""The pictures that are most like each one, by the features of a pretrained network, and those that are like none."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.hashes import Groups
from training.evaluation.embedding_score import main_directions
from training.fit.features import Vectors

_BLOCK = 1024  # pictures that are compared with all others at a time
_MOST_DIMENSIONS = (
    256  # of 1,280: they hold what tells classes apart, and a head is fitted to them in a tenth of the time
)
_SPREADS = 2.0
"""Interquartile ranges above the upper quartile, from which a picture is far from all; docs/check.md has more."""


class Neighbours(NamedTuple):
    """The pictures nearest to each one, nearest first: their places int64 [N, K] and cosines float32 [N, K]."""

    places: NDArray[np.int64]
    cosines: NDArray[np.float32]


def directions(features: Vectors) -> Vectors:
    """Return ``features`` float32 [N, D] in length 1."""
    unit: Vectors = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return unit


def centred(features: Vectors) -> Vectors:
    """Return ``features`` float32 [N, D] from their mean.

    Pictures of one folder have much of it in common, so those that are the same stand out from the others only without
    it. A picture of something else lacks it, so for outliers it has to be there.
    """
    without: Vectors = features - features.mean(axis=0)
    return without


def reduced(features: Vectors) -> Vectors:
    """Return the main components of ``features`` float32 [N, D], at most 256 of them."""
    without = centred(features)
    if without.shape[1] <= _MOST_DIMENSIONS:
        return without
    main: Vectors = without @ main_directions(without, _MOST_DIMENSIONS)
    return main


def nearest(unit: Vectors, number: int) -> Neighbours:
    """Return the ``number`` nearest of each of the vectors ``unit`` float32 [N, D], a block at a time."""
    number = min(number, len(unit) - 1)
    places = np.empty((len(unit), number), np.int64)
    cosines = np.empty((len(unit), number), np.float32)
    for begin in range(0, len(unit), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        found = unit[block] @ unit.T  # [block, N]
        found[np.arange(len(found)), np.arange(begin, begin + len(found))] = -np.inf
        chosen = np.argpartition(-found, number - 1, axis=1)[:, :number] if number else places[block]
        values = np.take_along_axis(found, chosen, axis=1)
        order = np.argsort(-values, axis=1)
        places[block] = np.take_along_axis(chosen, order, axis=1)
        cosines[block] = np.take_along_axis(values, order, axis=1)
    return Neighbours(places, cosines)


def far_from_all(neighbours: Neighbours, groups: Groups) -> list[tuple[int, float]]:
    """Return the pictures that are like none of the others, farthest first, with how far: 0 near, 1 nothing in common.

    The distance is the mean of those to the nearest ones (Ramaswamy et al., "Efficient Algorithms for Mining Outliers",
    2000); copies of a picture, which are in one of the ``groups`` int64 [N], do not count as company.
    """
    places, cosines = neighbours
    if not places.shape[1]:
        return []
    others = groups[places] != groups[:, None]
    distances = np.where(others, 1 - cosines, 0).sum(axis=1) / np.maximum(others.sum(axis=1), 1)
    known = others.any(axis=1)
    lower, upper = np.quantile(distances[known], (0.25, 0.75)) if known.any() else (0.0, 0.0)
    far = np.flatnonzero(known & (distances > upper + _SPREADS * (upper - lower)))
    return [(int(place), float(distances[place])) for place in far[np.argsort(-distances[far])]]
