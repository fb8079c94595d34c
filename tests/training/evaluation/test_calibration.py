"""The temperature is the one that the pictures speak for."""

import numpy as np
import pytest
from scipy.special import softmax

from training.data.dataset import Classes
from training.evaluation.calibration import (
    Correction,
    Logits,
    calibrate,
    fit_smoothing,
    fit_temperature,
    negative_log_likelihood,
    undo_smoothing,
)


def answers(count: int, sharpness: float) -> tuple[Logits, Classes]:
    """Return the logits of a network that is ``sharpness`` times too sure, and classes drawn as it should have said."""
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(count, 4)) * 2
    classes = (softmax(honest, axis=1).cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return (honest * sharpness).astype(np.float32), classes


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 3.0])
def test_a_temperature_that_is_known_is_found(sharpness: float) -> None:
    """Where classes are drawn from softmax(logits / T), T is found again, for networks too sure or not enough."""
    assert fit_temperature(*answers(20_000, sharpness)) == pytest.approx(sharpness, rel=0.05)


def test_no_other_temperature_is_likelier() -> None:
    """A little higher or lower, the likelihood of the classes is smaller."""
    logits, classes = answers(5000, 2.5)
    found = fit_temperature(logits, classes)
    scaled = logits / np.float32(found)
    least, warmer, colder = (negative_log_likelihood(softmax(scaled / by, axis=1), classes) for by in (1, 1.05, 0.95))
    assert least < min(warmer, colder)


def test_figures_are_told_before_and_after() -> None:
    """Both figures fall, and those without the temperature are the network's own."""
    logits, classes = answers(5000, 3.0)
    found = calibrate(logits, classes, "made up")
    assert (found.measured_on, found.images) == ("made up", 5000)
    assert found.negative_log_likelihood_before == pytest.approx(
        negative_log_likelihood(softmax(logits, axis=1), classes)
    )
    assert found.negative_log_likelihood < found.negative_log_likelihood_before
    assert found.expected_calibration_error < 0.02 < 0.1 < found.expected_calibration_error_before


def test_the_likelihood_is_the_mean_logarithm() -> None:
    """Probabilities of a half and a quarter for the right classes are 1.5 times the logarithm of 2, on average."""
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25]], np.float32)
    assert negative_log_likelihood(probabilities, np.array([0, 1])) == pytest.approx(1.5 * np.log(2))


@pytest.mark.parametrize("count", [20, 2000])
def test_nothing_is_certain_because_all_was_right(count: int) -> None:
    """Where no answer was wrong, doubt is left, and the less the more pictures there were."""
    logits = np.tile(np.array([[4.0, 0.0, 0.0]], np.float32), (count, 1))
    temperature = fit_temperature(logits, np.zeros(count, np.int64))
    confidence = softmax(logits[0] / temperature).max()
    assert 1 - confidence == pytest.approx(2 / 3 / (count + 2), rel=0.05)


def smoothed(logits: Logits, label_smoothing: float) -> Logits:
    """Return the logits of a network that has learned what smoothed labels teach, where ``logits`` are the truth's."""
    learned: Logits = np.log((1 - label_smoothing) * softmax(logits, axis=1) + label_smoothing / logits.shape[1])
    return learned


def test_what_smoothed_labels_taught_is_undone() -> None:
    """The truth comes back, and the figures say that undoing was likelier than a temperature alone."""
    logits, classes = answers(20_000, 1.0)
    learned = smoothed(logits, 0.2)
    np.testing.assert_allclose(softmax(undo_smoothing(learned, 0.2), axis=1), softmax(logits, axis=1), atol=2e-3)
    found, alone = calibrate(learned, classes, "made up", 0.2), calibrate(learned, classes, "made up")
    assert (found.label_smoothing, alone.label_smoothing) == (0.2, 0.0)
    assert found.temperature == pytest.approx(1, rel=0.05)
    assert found.negative_log_likelihood < alone.negative_log_likelihood
    assert found.expected_calibration_error < 0.01 < alone.expected_calibration_error


def test_smoothing_that_the_network_did_not_learn_is_left_alone() -> None:
    """Where a temperature alone is likelier, what the training set for its labels does not matter."""
    logits, classes = answers(20_000, 1.0)
    assert calibrate(logits, classes, "made up", 0.2) == calibrate(logits, classes, "made up")


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_share_that_nobody_knows_is_found(share: float) -> None:
    """Where a teacher gave each class something, the likeliest share is the right one, and it is undone."""
    logits, classes = answers(20_000, 1.0)
    learned = smoothed(logits, share)
    assert fit_smoothing(learned, classes) == pytest.approx(share, abs=0.015)
    found, alone = calibrate(learned, classes, "made up", None), calibrate(learned, classes, "made up")
    assert found.label_smoothing == pytest.approx(share, abs=0.015)
    assert found.negative_log_likelihood < alone.negative_log_likelihood
    assert found.expected_calibration_error < 0.01


def test_without_smoothing_next_to_nothing_is_undone() -> None:
    """Where no share was given away, what is found and undone is too little to change an answer by a percent."""
    logits, classes = answers(20_000, 1.0)
    assert fit_smoothing(logits, classes) < 0.01


def test_a_correction_keeps_the_label() -> None:
    """The most probable class stays the most probable one, and every probability is a number, also at the extremes."""
    logits = np.random.default_rng(0).normal(size=(500, 10)).astype(np.float32)
    for sharpness in (0.01, 1, 30, 1000):
        probabilities = Correction(0.5, 0.2).probabilities(logits * np.float32(sharpness))
        np.testing.assert_array_equal(probabilities.argmax(axis=1), logits.argmax(axis=1))
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_undoing_smoothing_keeps_the_order() -> None:
    """Classes below what smoothing gave to each stay in their order, and none becomes as likely as another."""
    logits = np.random.default_rng(0).normal(size=(500, 10)).astype(np.float32) * 4
    probabilities = Correction(0.7, 0.2).probabilities(logits)
    np.testing.assert_array_equal(probabilities.argsort(axis=1), logits.argsort(axis=1))
    assert (np.diff(np.sort(probabilities, axis=1), axis=1) > 0).all()
