"""The table and the record of an evaluation say what was measured, and where there is nothing to measure."""

import numpy as np
import pytest

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
    error = "0.3333 (too few images to be exact)"
    assert table(EVALUATION).splitlines() == [
        "   pictures  precision   recall",
        "a         3    100.00%   66.67%",
        "b         0      0.00%        -",
        f"accuracy 66.67% of 3 images (by hand; 95%: 20.8 to 93.9), expected calibration error {error}",
    ]


def test_a_label_is_one_line() -> None:
    """A folder may have any name; none breaks the table or reaches the terminal as a command to it."""
    odd = Evaluation(("new\nline", "\x1b[2J"), "by hand", EVALUATION.split, EVALUATION.probabilities[:, :2])
    assert table(odd).splitlines()[1:3] == [
        "new\\nline         3    100.00%   66.67%",
        "\\x1b[2J           0      0.00%        -",
    ]


@pytest.mark.parametrize(("rare_right", "told"), [(0, True), (10, True), (40, False)])
def test_what_is_no_better_than_the_most_frequent_label_is_told(rare_right: int, *, told: bool) -> None:
    """Of 200 pictures of a and 40 of b, 83.33% are right by answering a; that is no news of a network."""
    classes = np.repeat([0, 1], [200, 40])
    answers = classes.copy()
    answers[200 + rare_right :] = 0
    uneven = Evaluation(
        ("a", "b"),
        "by hand",
        Split(np.zeros((240, 1, 1, 3), np.uint8), classes),
        np.eye(2, dtype=np.float32)[answers],
    )
    line = "Always answering a would get 83.33% right; these images do not tell that it does better."
    assert (table(uneven).splitlines()[-1] == line) == told


def test_figures_of_many_pictures_stand_alone() -> None:
    """From 1,000 pictures on the table has no interval; for programs it is always there."""
    of_many = Evaluation(
        ("a", "b"),
        "by hand",
        Split(np.zeros((1000, 1, 1, 3), np.uint8), np.zeros(1000, np.int64)),
        np.tile(np.array([1, 0], np.float32), (1000, 1)),
    )
    last = table(of_many).splitlines()[-1]
    assert last == "accuracy 100.00% of 1,000 images (by hand), expected calibration error 0.0000"
    assert record(of_many)["accuracy_95"] == pytest.approx((0.99617, 1.0), abs=1e-5)


def test_the_record_tells_nothing_from_zero() -> None:
    """For programs, what was not measured is null and not zero."""
    found = record(EVALUATION)
    assert found["accuracy_95"] == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert found["per_class"] == {
        "a": {"images": 3, "precision": 1.0, "recall": 2 / 3},
        "b": {"images": 0, "precision": 0.0, "recall": None},
        "c": {"images": 0, "precision": None, "recall": None},
    }
    assert found["confusion"] == [[2, 1, 0], [0, 0, 0], [0, 0, 0]]
