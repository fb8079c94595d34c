"""The accuracy in production: how much of the random share was answered right, as far as people have looked at it."""

import math
from typing import NamedTuple

_QUANTILE = 1.959964  # of the normal distribution, for 95%


class Interval(NamedTuple):
    """From where to where an accuracy reaches, both fractions of 1."""

    low: float
    high: float


def interval(right: int, answers: int) -> Interval:
    """Return the 95% interval of the accuracy where ``right`` of ``answers``, at least one, were right.

    It is Wilson's (Journal of the American Statistical Association 22, 1927), as in the trainer's reports.
    """
    accuracy, spread = right / answers, _QUANTILE**2 / answers
    middle = (accuracy + spread / 2) / (1 + spread)
    half = _QUANTILE / (1 + spread) * math.sqrt(accuracy * (1 - accuracy) / answers + spread / (4 * answers))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))
