"""The table and the record of an evaluation say what was measured, and where there is nothing to measure."""

import numpy as np

from training.data.dataset import Split
from training.evaluation.accuracy import Evaluation
from training.evaluation.report import record, table

# Three pictures of class a, of which the last is taken for b; of c there is neither a picture nor an answer.
EVALUATION = Evaluation(
    ("a", "b", "c"),
    "by hand",
    Split(np.zeros((3, 1, 1, 3), np.uint8), np.array([0, 0, 0])),
    np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32),
)


def test_a_label_without_pictures_has_no_recall() -> None:
    """It stands in the table only where it was answered, and then without a figure."""
    assert table(EVALUATION).splitlines() == [
        "   precision  recall",
        "a    100.00%  66.67%",
        "b      0.00%       -",
        "accuracy 66.67% of 3 images (by hand), expected calibration error 0.3333",
    ]


def test_the_record_tells_nothing_from_zero() -> None:
    """For programs, what was not measured is null and not zero."""
    found = record(EVALUATION)
    assert found["per_class"] == {
        "a": {"images": 3, "precision": 1.0, "recall": 2 / 3},
        "b": {"images": 0, "precision": 0.0, "recall": None},
        "c": {"images": 0, "precision": None, "recall": None},
    }
    assert found["confusion"] == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]
