"""Pictures that are there more than once: the same file, the same pixels, or nearly the same."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.check.alignment import likenesses
from training.check.neighbours import Neighbours
from training.check.pictures import Pictures
from training.data.hashes import Groups, Pairs, alike, groups_of, same

NEIGHBOURS = 5
"""How many of the nearest pictures are compared with each one, pixel by pixel."""
_COSINE = 0.5  # below which pictures are not compared, unless their hashes are alike
LEAST_LIKENESS = 0.7
"""From which one picture is another one, or a part of it; docs/check.md has how it was chosen."""


@dataclass(frozen=True)
class Duplicates:
    """Which pictures are the same, or nearly: ``pairs`` int64 [M, 2] with how alike they are, float32 [M].

    Those of the same file or pixels have a likeness of 1. ``exact`` int64 [N] are the groups of those alone, and
    ``groups`` int64 [N] of all.
    """

    pairs: Pairs
    likeness: NDArray[np.float32]
    exact: Groups
    groups: Groups


def find(pictures: Pictures, neighbours: Neighbours) -> Duplicates:
    """Find pictures that were resized, compressed anew, cropped, mirrored, made brighter or darker, or copied.

    Candidates are those whose hashes are alike, and the nearest by their features; whether they are the same is told by
    laying one over the other.
    """
    exact_pairs = np.concatenate([same([facts.content for facts in pictures.facts]), _same_pixels(pictures)])
    exact = groups_of(exact_pairs, len(pictures))
    candidates = _unique(np.concatenate([alike(pictures.hashes), _near(neighbours)]))
    candidates = candidates[exact[candidates[:, 0]] != exact[candidates[:, 1]]]
    likeness = likenesses(pictures.copies, candidates)
    found = likeness >= LEAST_LIKENESS
    pairs = np.concatenate([exact_pairs, candidates[found]])
    values = np.concatenate([np.ones(len(exact_pairs), np.float32), np.minimum(likeness[found], 1)])
    return Duplicates(pairs, values, exact, groups_of(pairs, len(pictures)))


def _same_pixels(pictures: Pictures) -> Pairs:
    return same([facts.pixels for facts in pictures.facts])


def _near(neighbours: Neighbours) -> Pairs:
    first, rank = np.nonzero(neighbours.cosines[:, :NEIGHBOURS] >= _COSINE)
    return np.stack([first, neighbours.places[first, rank]], axis=1)


def _unique(pairs: Pairs) -> Pairs:
    return np.unique(np.sort(pairs, axis=1), axis=0)
