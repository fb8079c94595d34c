"""A tuned network takes the place of the one before only where the held-out pictures say so."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.dataset import Classes
from training.evaluation.improvement import Improvement, compare
from training.evaluation.paired import Paired

CLASSES = np.arange(100) % 3


def logits(wrong: int, margin: float = 3.0, *, classes: Classes = CLASSES) -> NDArray[np.float32]:
    """Return logits of which the first ``wrong`` are largest for another class, and the others for the right one."""
    answered = np.where(np.arange(len(classes)) < wrong, (classes + 1) % 3, classes)
    return (margin * np.eye(3)[answered]).astype(np.float32)


@pytest.mark.parametrize(
    ("before", "after", "is_one"),
    [
        (20, 5, True),  # of 15 that only one has right, all speak for the second
        (20, 19, True),
        (20, 20, False),
        (5, 6, False),
        (5, 20, False),
    ],
)
def test_more_right_is_better(before: int, after: int, is_one: bool) -> None:
    """More right and surer of it is an improvement; the same is none, nor is fewer right."""
    assert compare(logits(before), logits(after), CLASSES).is_one is is_one


def test_as_many_right_and_better_calibrated_is_better() -> None:
    """Where both have the same right, the one is better that doubts what it has wrong, and not the other."""
    doubts = logits(20)
    doubts[:20] /= 10
    found, swapped = compare(logits(20), doubts, CLASSES), compare(doubts, logits(20), CLASSES)
    assert found.paired.difference == swapped.paired.difference == 0
    assert found.loss_after < found.loss_before
    assert (found.is_one, swapped.is_one) == (True, False)


def test_a_network_that_is_only_too_sure_is_not_worse() -> None:
    """Both are measured at the best temperature each, so that a factor makes no difference."""
    found = compare(logits(20, margin=3.0), logits(20, margin=30.0), CLASSES)
    assert found.loss_after == pytest.approx(found.loss_before, abs=1e-3)


@pytest.mark.parametrize(
    ("paired", "losses", "is_one"),
    [
        (Paired(80, 0, 6, 14), (0.4, 0.5), True),  # beyond noise, whatever the likelihood says
        (Paired(80, 1, 4, 15), (0.4, 0.5), False),  # within noise, and less likely
        (Paired(80, 1, 4, 15), (0.5, 0.4), True),
        (Paired(80, 3, 3, 14), (0.5, 0.4), True),
        (Paired(80, 4, 3, 13), (0.5, 0.1), False),  # one fewer right is none, however likely
    ],
)
def test_the_rule(paired: Paired, losses: tuple[float, float], is_one: bool) -> None:
    """Better beyond noise by McNemar's test, or no fewer right and a smaller negative log-likelihood."""
    assert Improvement(paired, *losses).is_one is is_one


def test_it_is_told_in_figures() -> None:
    """The words have both accuracies, the number of images and both losses."""
    assert str(Improvement(Paired(1_000, 0, 60, 140), 0.5, 0.25)) == (
        "88.33% of 1,200 held-out images, where the head alone has 83.33%; negative log-likelihood 0.2500, "
        "where that has 0.5000"
    )
