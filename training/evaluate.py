"""Measure a classifier on labelled pictures."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact import Metrics
from training.dataset import Classes, Pixels, Split

Predict = Callable[[Pixels], NDArray[np.float32]]
"""Pictures uint8 [N, H, W, 3] -> probabilities float32 [N, classes]."""

_BATCH = 500
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


def evaluate(predict: Predict, labels: tuple[str, ...], split: Split, measured_on: str) -> Evaluation:
    """Classify every picture of ``split``, a batch at a time; ``measured_on`` says in words what it is."""
    batches = [predict(split.images[begin : begin + _BATCH]) for begin in range(0, len(split), _BATCH)]
    return Evaluation(labels, measured_on, split, np.concatenate(batches))


def expected_calibration_error(probabilities: NDArray[np.float32], classes: Classes, bins: int = _BINS) -> float:
    """Return the mean gap between confidence and accuracy, weighted over equally wide bins of confidence.

    From Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599), equation 3. ``probabilities`` is
    [N, classes], ``classes`` [N]; 0 is perfect, 1 the worst.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == classes
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=confidence - correct, minlength=bins)  # sums, so the bins' weights are in them
    return float(np.abs(gaps).sum() / len(classes))


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
