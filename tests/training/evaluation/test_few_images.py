"""What few pictures cannot tell is said, and what many can is said without more words."""

import numpy as np
import pytest

from training.evaluation.few_images import (
    accuracy_beside,
    accuracy_in_words,
    accuracy_interval,
    calibration_error_in_words,
    why_not_calibrated,
)


def wilson(right: int, images: int, quantile: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's interval by its formula."""
    share, square = right / images, quantile**2
    centre = (share + square / (2 * images)) / (1 + square / images)
    reach = quantile * (share * (1 - share) / images + square / (4 * images**2)) ** 0.5 / (1 + square / images)
    return centre - reach, centre + reach


@pytest.mark.parametrize(("right", "images"), [(0, 1), (8, 8), (232, 240), (9553, 10_000)])
def test_the_interval_is_wilsons(right: int, images: int) -> None:
    """It is that of the formula, also where all or none are right."""
    assert accuracy_interval(right, images) == pytest.approx(wilson(right, images), abs=1e-6)


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


def test_a_calibration_error_of_few_pictures_is_not_exact() -> None:
    """Below 100 pictures that is said beside it."""
    assert calibration_error_in_words(0.25, 99) == "0.2500 (too few images to be exact)"
    assert calibration_error_in_words(0.25, 100) == "0.2500"


def test_why_nothing_was_fitted_is_said() -> None:
    """Too few pictures are told from none, since what helps is something else."""
    assert why_not_calibrated(8) == (
        "Not calibrated, and no threshold for familiar pictures: 8 held-out images are too few to tell "
        "(50 are needed); the temperature is 1. See --validation-images."
    )
    assert "1 held-out image is too few" in why_not_calibrated(1)
    assert "18 cross-validated images are too few" in why_not_calibrated(18, folds=True)
    assert "there are no held-out images, since the network, or the version" in why_not_calibrated(0)
