"""What is wrong with classes as a whole: few pictures, uneven numbers, and two that cannot be told apart."""

from collections.abc import Iterator, Mapping

import numpy as np

from training.check.labels import Answers
from training.data.dataset import Classes

_FEW = 20  # pictures, below which little can be learned or measured of a class
_UNEVEN = 10  # times as many in the largest class as in the smallest
_CONFUSED = 0.15  # of the pictures of each of two classes on average, that are answered as the other one
_LEAST = 5  # pictures that are
_SHOWN = 5

Confused = tuple[str, str, float]
"""Two labels, and the share of each one's pictures that is answered as the other, on average."""


def in_words(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield sentences on the number of pictures of each label."""
    few = sorted((number, label) for label, number in counts.items() if number < _FEW)
    if few:
        names = ", ".join(f"{label} ({number})" for number, label in few[:_SHOWN])
        more = f" and {len(few) - _SHOWN} more" if len(few) > _SHOWN else ""
        yield f"Few pictures, under {_FEW}: {names}{more}."
    least, most = min(counts, key=lambda label: counts[label]), max(counts, key=lambda label: counts[label])
    if counts[most] > _UNEVEN * counts[least]:
        yield f"Uneven classes: {counts[most]:,} pictures of {most}, and {counts[least]:,} of {least}."


def confused(answers: Answers, classes: Classes, labels: tuple[str, ...]) -> list[Confused]:
    """Return the pairs of labels that cannot be told apart, most confused first.

    Both count alike, however many pictures each has: all of a rare label may be answered as a frequent one.
    """
    matrix = answers.matrix(classes)
    mixed = np.triu(matrix + matrix.T, 1)
    of_each = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shares = np.triu(of_each + of_each.T, 1) / 2
    found = np.argwhere((shares >= _CONFUSED) & (mixed >= _LEAST))
    ordered = sorted(found.tolist(), key=lambda pair: -shares[pair[0], pair[1]])
    return [(labels[one], labels[other], float(shares[one, other])) for one, other in ordered]
