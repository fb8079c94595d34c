"""Average precision of labels that do not exclude each other, its mean over them, and how exact that is.

Of pictures sorted by a label's probability, the precision at each that has the label, averaged: it needs no threshold
and does not depend on the calibration. Intervals are those of the bootstrap over pictures (Efron 1979), which keeps all
labels of a picture together; two versions are compared on the same draws.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.evaluation.paired import Paired

_DRAWS, _FEWEST_DRAWS = 1_000, 200
_WORK = 200_000_000  # draws times pictures times labels, from which there are fewer draws
_AT_ONCE = 50  # draws

Probabilities = NDArray[np.float32]
"""float32 [N, labels]"""
Has = NDArray[np.bool_]
"""Which labels pictures have, bool [N, labels]."""
Weights = NDArray[np.float64]
"""How often each picture counts in each draw, [draws, N]."""


def average_precisions(probabilities: Probabilities, has: Has, weights: Weights | None = None) -> NDArray[np.float64]:
    """Return the average precision of each label, float64 [draws, labels]; without ``weights`` there is one draw.

    It is that of scikit-learn's ``average_precision_score``, for many draws at once; NaN where no picture has a label.
    """
    weights = np.ones((1, len(has))) if weights is None else weights
    found = np.full((len(weights), has.shape[1]), np.nan)
    for label in range(has.shape[1]):
        order = np.argsort(-probabilities[:, label], kind="stable")
        scores = probabilities[order, label]
        ends = np.searchsorted(-scores, -scores, side="right") - 1  # of those that are as probable: all count at once
        drawn = weights[:, order]
        positive = drawn * has[order, label]
        hits, told = np.cumsum(positive, axis=1)[:, ends], np.cumsum(drawn, axis=1)[:, ends]
        total = positive.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[:, label] = (positive * np.where(told > 0, hits / told, 0.0)).sum(axis=1) / total
    return found


def mean_average_precision(probabilities: Probabilities, has: Has) -> float:
    """Return the mean of the labels' average precision, of those that a picture has; NaN where none has any."""
    return float(mean_over_labels(average_precisions(probabilities, has))[0])


def mean_over_labels(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean [draws] of ``values`` [draws, labels] over the labels that have one; NaN where none has."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.where(there, values, 0.0).sum(axis=1) / there.sum(axis=1)
    return mean


def draws(pictures: int, labels: int, seed: int = 0) -> Iterator[Weights]:
    """Yield the draws of the bootstrap, some at a time: of ``pictures``, as many again with replacement."""
    rng = np.random.default_rng(seed)
    left = max(min(_DRAWS, _WORK // (pictures * labels)), _FEWEST_DRAWS)
    while left > 0:
        number = min(left, _AT_ONCE)
        yield rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=number).astype(np.float64)
        left -= number


def interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentiles between which ``values`` [draws] lie with this ``confidence``; NaN is left out."""
    there = values[np.isfinite(values)]
    if not len(there):
        return float("nan"), float("nan")
    low, high = np.quantile(there, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def bootstrapped(measure: Callable[[Weights], NDArray[np.float64]], pictures: int, labels: int) -> NDArray[np.float64]:
    """Return what ``measure`` makes of all draws: of weights [draws, N] values [draws, ...]."""
    return np.concatenate([measure(weights) for weights in draws(pictures, labels)])


@dataclass(frozen=True)
class RankedPair:
    """The mean average precision of two versions on the same pictures, and that of their ``differences`` [draws].

    A difference is that of the second less the first.
    """

    images: int
    first: float
    second: float
    differences: NDArray[np.float64]

    @classmethod
    def of(cls, first: Probabilities, second: Probabilities, has: Has) -> "RankedPair":
        """Compare the probabilities [N, labels] of two versions for pictures that have the labels ``has``."""

        def difference(weights: Weights) -> NDArray[np.float64]:
            a, b = (mean_over_labels(average_precisions(each, has, weights)) for each in (first, second))
            return b - a

        values = bootstrapped(difference, *has.shape)
        a, b = (mean_average_precision(each, has) for each in (first, second))
        return cls(len(has), a, b, values[np.isfinite(values)])

    @property
    def difference(self) -> float:
        """The mean average precision of the second less that of the first."""
        return self.second - self.first

    def interval(self) -> tuple[float, float]:
        """Return the 95% confidence interval of the difference."""
        return interval(self.differences)

    def p_second_worse(self) -> float:
        """Return the one-sided p: the share of draws in which the second is not worse."""
        return self._share(self.differences >= 0)

    def p_second_better(self) -> float:
        """Return the one-sided p: the share of draws in which the second is not better."""
        return self._share(self.differences <= 0)

    def _share(self, counted: NDArray[np.bool_]) -> float:
        return float((counted.sum() + 1) / (len(counted) + 1))  # never 0 of a number of draws


Pair = TypeVar("Pair", Paired, RankedPair)
"""Two versions on the same pictures: by what they get right, or by how they rank."""
