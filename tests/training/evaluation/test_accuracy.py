"""Figures equal those worked out by hand."""

import numpy as np
import pytest

from training.data.dataset import Split
from training.evaluation.accuracy import Evaluation, by_confidence, expected_calibration_error

# Four pictures of classes 0 0 1 1; the third is taken for class 0 with confidence.
PROBABILITIES = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]], np.float32)
SPLIT = Split(np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3), np.array([0, 0, 1, 1]))


@pytest.fixture
def evaluation() -> Evaluation:
    """Return the evaluation of the four pictures."""
    return Evaluation(("a", "b"), "by hand", SPLIT, PROBABILITIES)


def test_metrics(evaluation: Evaluation) -> None:
    """Accuracy, precision and recall follow from the confusion matrix, calibration from the confidences."""
    metrics = evaluation.metrics()
    assert evaluation.confusion.tolist() == [[2, 0], [1, 1]]
    assert metrics.accuracy == 0.75
    assert metrics.per_class["a"] == {"precision": pytest.approx(2 / 3), "recall": 1.0}
    assert metrics.per_class["b"] == {"precision": 1.0, "recall": 0.5}
    # One picture to a bin: gaps of 0.1, 0.4, 0.8 and 0.3, each with a weight of a quarter.
    assert metrics.expected_calibration_error == pytest.approx(0.4)


def test_a_class_that_is_never_predicted_has_precision_zero() -> None:
    """There is no division by zero where a label does not occur."""
    nothing = Evaluation(("a", "b", "c"), "by hand", SPLIT, np.pad(PROBABILITIES, ((0, 0), (0, 1))))
    assert nothing.metrics().per_class["c"] == {"precision": 0.0, "recall": 0.0}


def test_calibration_error_is_zero_for_honest_confidence() -> None:
    """Of ten answers at 80%, eight right ones are no error; and confidence 1 falls into the last bin."""
    honest = np.tile(np.array([[0.8, 0.2]]), (10, 1))
    assert expected_calibration_error(honest, np.array([0] * 8 + [1] * 2)) == pytest.approx(0.0)
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == 1.0


def test_answers_are_sorted_by_confidence() -> None:
    """Each bin has its number of answers, their mean confidence and the share that is right; empty ones have zeros."""
    bins = by_confidence(PROBABILITIES, SPLIT.classes, bins=4)
    assert bins.counts.tolist() == [0, 0, 2, 2]
    assert bins.confidence.tolist() == pytest.approx([0, 0, 0.65, 0.85])
    assert bins.accuracy.tolist() == [0, 0, 1, 0.5]


def test_mistakes_come_with_the_most_confident_first() -> None:
    """The sheet of mistakes begins with what the network was surest of."""
    flipped = Evaluation(("a", "b"), "by hand", Split(SPLIT.images, 1 - SPLIT.classes), PROBABILITIES)
    assert flipped.confident_mistakes(2).tolist() == [0, 3]
