"""What is said of two versions says how exact it is."""

import numpy as np

from artifact.accuracy import accuracy_interval
from training.data.dataset import Split
from training.evaluation.accuracy import Evaluation
from training.evaluation.comparison import Comparison


def evaluation(right: int, images: int) -> Evaluation:
    """Return answers to pictures of one class, of which the first are right."""
    split = Split(np.zeros((images, 1, 1, 3), np.uint8), np.zeros(images, np.int64))
    answers = np.eye(2, dtype=np.float32)[(np.arange(images) >= right).astype(int)]
    return Evaluation(("a", "b"), "by hand", split, answers)


def test_both_accuracies_have_their_intervals() -> None:
    """For people where there are few pictures, for programs always."""
    few, many = (Comparison(evaluation(images - 2, images), evaluation(images, images)) for images in (8, 2000))
    assert "A has 75.00% of 8 images (by hand; 95%: 40.9 to 92.9), B 100.00% (95%: 67.6 to 100.0).\n" in few.table()
    assert "A has 99.90% of 2,000 images (by hand), B 100.00%.\n" in many.table()
    assert many.record()["accuracies_95"] == [accuracy_interval(1998, 2000), accuracy_interval(2000, 2000)]
