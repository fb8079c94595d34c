"""How far a version's answers have moved from those to pictures like its training's.

Labels, confidence and familiarity are counted in bins, and the counts compared with the reference in the version's
metadata, in size by the population stability index, and against chance by the chi-square test of two samples. Of
embeddings the means are compared.
"""

import math
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from artifact import Histogram, Metadata, Reference
from artifact.files import read_regular
from artifact.layout import REFERENCE_EMBEDDING

Counts = npt.NDArray[np.float64]  # [bins]

LABELS, CONFIDENCE, FAMILIARITY = "labels", "confidence", "familiarity"
LEAST_ANSWERS = 50  # that are compared; fewer tell nothing

_MOST_LABEL_BINS = 256
_LEAST_EXPECTED = 5.0  # in each bin, as usual for the chi-square test
_HALF_A_COUNT = 0.5  # more in each bin, so that none is empty
_MOST_EMBEDDING = 4096  # numbers; those of keras.applications have up to 4,032


class Shift(NamedTuple):
    """How far counts have moved: by the population stability index, and how likely chance alone moves them as far.

    What chance adds to the index on average is taken off, so that it is about 0 where nothing has moved, however few
    the answers are.
    """

    population_stability_index: float
    p_value: float


class EmbeddingReference(NamedTuple):
    """The ``mean`` float64 [D] of ``images`` embeddings, and their ``variance``, summed over the D numbers."""

    mean: Counts
    variance: float
    images: int

    def distance(self, mean: Counts, images: int) -> float:
        """Return how far the ``mean`` embedding, float64 [D], of ``images`` has moved, in units of the spread.

        That is the length of the difference of the means over the root of the variance, less what chance makes of so
        few pictures.
        """
        moved = float(((mean - self.mean) ** 2).sum()) / self.variance
        return math.sqrt(max(0.0, moved - _by_chance(images, self.images)))


class Baseline:
    """A version's reference, and what bins an answer falls into: those of the labels first, then of each histogram."""

    def __init__(self, reference: Reference, metadata: Metadata, embedding: EmbeddingReference | None) -> None:
        """Put frequent labels into bins of their own, and all others together into one."""
        self.identity = repr((reference, metadata.labels))
        self.embedding = embedding
        ordered = sorted(metadata.labels, key=lambda label: -reference.labels.get(label, 0))
        place = {label: min(rank, _MOST_LABEL_BINS - 1) for rank, label in enumerate(ordered)}
        self._label_bins = [place[label] for label in metadata.labels]
        counts = np.bincount(
            self._label_bins, [reference.labels.get(label, 0) for label in metadata.labels], 1 + max(self._label_bins)
        )
        histograms: dict[str, Histogram] = {CONFIDENCE: reference.confidence}
        if reference.familiarity is not None and metadata.familiarity is not None:
            histograms[FAMILIARITY] = reference.familiarity
        self._edges = [list(histogram.edges) for histogram in histograms.values()]
        self._expected: dict[str, Counts] = {
            LABELS: counts.astype(np.float64),
            **{name: np.array(histogram.counts, np.float64) for name, histogram in histograms.items()},
        }
        starts = np.cumsum([0, *(len(expected) for expected in self._expected.values())]).tolist()
        self._slices = {name: slice(*ends) for name, *ends in zip(self._expected, starts, starts[1:], strict=False)}
        self._starts = starts[1:]
        self.number = starts[-1]

    @property
    def compared(self) -> tuple[str, ...]:
        """What there is a reference for."""
        return tuple(self._expected)

    def bins(self, label: int, confidence: float, familiarity: float) -> list[int]:
        """Return the bins of one answer; the ``familiarity`` counts for nothing where there is no reference for it."""
        values = (confidence, familiarity)
        return [
            self._label_bins[label],
            *(
                start + bisect_right(edges, value)
                for start, edges, value in zip(self._starts, self._edges, values, strict=False)
            ),
        ]

    def shifts(self, counts: Counts) -> dict[str, Shift]:
        """Compare the answers counted in all bins, float64 [bins], with the reference, by what was counted."""
        return {name: shift(counts[self._slices[name]], expected) for name, expected in self._expected.items()}


def baseline_of(path: Path, metadata: Metadata, embedding: int) -> Baseline | None:
    """Return what answers of the version in folder ``path`` are compared with; None where it tells nothing of that.

    ``embedding`` is how many numbers an embedding of its engine has, 0 for none.
    """
    if metadata.reference is None or metadata.reference.images < LEAST_ANSWERS:
        return None
    return Baseline(metadata.reference, metadata, _embedding(path, metadata, metadata.reference.images, embedding))


def _embedding(path: Path, metadata: Metadata, images: int, size: int) -> EmbeddingReference | None:
    """Read the reference of the embeddings; None where there is none that fits."""
    if REFERENCE_EMBEDDING not in metadata.files or not 0 < size <= _MOST_EMBEDDING:
        return None
    try:
        numbers = np.frombuffer(read_regular(path / REFERENCE_EMBEDDING, 2 * 4 * size), "<f4").astype(np.float64)
        mean, spread = numbers.reshape(2, size)
    except (OSError, ValueError):  # another trainer may have written something else
        return None
    variance = float((spread**2).sum())
    return EmbeddingReference(mean, variance, images) if np.isfinite(mean).all() and 0 < variance < math.inf else None


def shift(observed: Counts, expected: Counts) -> Shift:
    """Compare two samples, both counted in the same bins; neighbours are put together where they hold too little."""
    first, second = _merged(observed, expected)
    bins, images, others = len(first), float(first.sum()), float(second.sum())
    if bins < 2:
        return Shift(0.0, 1.0)
    shares, before = ((_HALF_A_COUNT + part) / (_HALF_A_COUNT * bins + part.sum()) for part in (first, second))
    index = float(((shares - before) * np.log(shares / before)).sum())
    scale = math.sqrt(others / images)
    statistic = float(((scale * first - second / scale) ** 2 / (first + second)).sum())
    by_chance = (bins - 1) * _by_chance(images, others)
    return Shift(max(0.0, index - by_chance), chi_square_p(statistic, bins - 1))


def chi_square_p(statistic: float, freedom: int) -> float:
    """Return how likely a chi-square variable of so many degrees of ``freedom`` is at least ``statistic``.

    It is the incomplete gamma function, which of halves is a sum (Abramowitz and Stegun, 26.4.4 and 26.4.5); the
    service has no SciPy.
    """
    half, odd = statistic / 2, freedom % 2
    total = math.erfc(math.sqrt(half)) if odd else 0.0
    term = math.exp(-half) * (math.sqrt(half) / math.gamma(1.5) if odd else 1.0)
    for step in range(freedom // 2):
        total += term
        term *= half / (step + 1 + odd / 2)
    return total


def _by_chance(images: float, others: float) -> float:
    """Return the expected squared distance of two means of so many pictures, in units of the variance of one."""
    return 1 / images + 1 / others


def _merged(observed: Counts, expected: Counts) -> tuple[Counts, Counts]:
    """Put neighbouring bins together until each would hold at least five of the smaller sample, were both the same."""
    total = observed + expected
    least = _LEAST_EXPECTED * total.sum() / max(min(observed.sum(), expected.sum()), 1.0)
    starts, held = [0], 0.0
    for place, count in enumerate(total.tolist()):
        if held >= least:
            starts.append(place)
            held = 0.0
        held += count
    if held < least and len(starts) > 1:  # the last bin joins the one before
        starts.pop()
    return np.add.reduceat(observed, starts), np.add.reduceat(expected, starts)
