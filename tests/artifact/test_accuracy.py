"""An accuracy that few pictures tell is never told without how exact it is."""

import numpy as np
import pytest

from artifact.accuracy import accuracy_beside, accuracy_in_words, accuracy_interval


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (99, 100, 0.9455, 0.9982)],
)
def test_the_interval_is_wilsons(right: int, images: int, low: float, high: float) -> None:
    """The figures are those of SciPy's ``binomtest(right, images).proportion_ci(method="wilson")``."""
    assert accuracy_interval(right, images) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_holds_the_true_accuracy_as_often_as_it_says() -> None:
    """Of 1,000 tests with 40 pictures each, about 95% of the intervals hold the accuracy that they were drawn with."""
    draws = np.random.default_rng(0).binomial(40, 0.9, size=1000)
    held = np.mean([low <= 0.9 <= high for low, high in (accuracy_interval(int(right), 40) for right in draws)])
    assert 0.92 < held < 0.98


def test_an_accuracy_of_few_pictures_has_its_interval() -> None:
    """From 1,000 pictures on two decimals say enough; what it was measured on stands in the same brackets."""
    assert accuracy_in_words(232 / 240, 240) == "96.67% of 240 images (95%: 93.6 to 98.3)"
    assert accuracy_in_words(0, 1, "pets test") == "0.00% of 1 image (pets test; 95%: 0.0 to 79.3)"
    assert accuracy_in_words(0.9, 999, "x").startswith("90.00% of 999 images (x; 95%: ")
    assert accuracy_in_words(0.9, 1000) == "90.00% of 1,000 images"
    assert accuracy_in_words(0.9553, 10_000, "CIFAR-10 test") == "95.53% of 10,000 images (CIFAR-10 test)"


def test_two_accuracies_of_few_pictures_both_have_theirs() -> None:
    """The second does not repeat how many pictures there are."""
    assert accuracy_beside(1.0, 8) == "100.00% (95%: 67.6 to 100.0)"
    assert accuracy_beside(0.9553, 10_000) == "95.53%"
