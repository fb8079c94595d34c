"""Measure a classifier on labelled pictures."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from artifact import Metrics
from training.data.dataset import Classes, Split

_BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """What a classifier answered on a split: probabilities float32 [N, classes] beside the pictures and classes."""

    labels: tuple[str, ...]
    measured_on: str
    split: Split
    probabilities: NDArray[np.float32]

    @property
    def predicted(self) -> Classes:
        """The most probable class of each picture, int64 [N]."""
        predicted: Classes = self.probabilities.argmax(axis=1)
        return predicted

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which pictures were classified rightly, bool [N]."""
        right: NDArray[np.bool_] = self.predicted == self.split.classes
        return right

    @property
    def confusion(self) -> NDArray[np.int64]:
        """The number of pictures by true class and predicted class, int64 [classes, classes]."""
        matrix = np.zeros((len(self.labels), len(self.labels)), np.int64)
        np.add.at(matrix, (self.split.classes, self.predicted), 1)
        return matrix

    def metrics(self) -> Metrics:
        """Return the figures that go into a version's metadata."""
        confusion = self.confusion
        hits = confusion.diagonal()
        return Metrics(
            measured_on=self.measured_on,
            images=len(self.split),
            accuracy=float(hits.sum() / len(self.split)),
            expected_calibration_error=expected_calibration_error(self.probabilities, self.split.classes),
            per_class={
                label: {
                    "precision": _share(hits[index], confusion[:, index].sum()),
                    "recall": _share(hits[index], confusion[index].sum()),
                }
                for index, label in enumerate(self.labels)
            },
        )

    def confident_mistakes(self, count: int) -> NDArray[np.int64]:
        """Return the indices of the wrongly classified pictures, the most confident first, at most ``count``."""
        wrong = np.flatnonzero(self.predicted != self.split.classes)
        confidence = self.probabilities[wrong].max(axis=1)
        return wrong[np.argsort(-confidence, kind="stable")[:count]]


class Bins(NamedTuple):
    """Answers in equally wide bins of confidence: how many, their mean confidence and how often they are right.

    All are [bins]; the latter two are 0 where there is none.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    def gap(self) -> float:
        """Return the mean gap between confidence and accuracy, over all answers."""
        return float((self.counts * np.abs(self.accuracy - self.confidence)).sum() / self.counts.sum())


def by_confidence(probabilities: NDArray[np.float32], classes: Classes, bins: int = _BINS) -> Bins:
    """Sort the answers ``probabilities`` [N, classes] to pictures of ``classes`` [N] into bins of their confidence."""
    return binned(probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == classes, bins)


def binned(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = _BINS) -> Bins:
    """Sort answers that are ``right``, bool [N], or not into bins of their ``confidence`` [N], 0 to 1."""
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    counts, sure, hits = (np.bincount(bin_of, weights, minlength=bins) for weights in (None, confidence, right))
    some = np.maximum(counts, 1)
    return Bins(counts, sure / some, hits / some)


def expected_calibration_error(probabilities: NDArray[np.float32], classes: Classes, bins: int = _BINS) -> float:
    """Return the mean gap between confidence and accuracy, weighted over equally wide bins of confidence.

    From Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599), equation 3. ``probabilities`` is
    [N, classes], ``classes`` [N]; 0 is perfect, 1 the worst.
    """
    return by_confidence(probabilities, classes, bins).gap()


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
