"""What few pictures cannot tell is said, and what many can is said without more words."""

from training.evaluation.few_images import calibration_error_in_words, why_not_calibrated


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
