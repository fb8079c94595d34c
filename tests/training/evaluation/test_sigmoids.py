"""Labels become as probable as pictures have them."""

import numpy as np
import pytest
from scipy.special import expit

from training.evaluation.sigmoids import Sigmoids, calibrate_labels, decision_calibration_error, decision_loss


def drawn(pictures: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits [N, 3] of a network that is too sure of the first label and misses the second, and the truth."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(pictures, 3)) * 2 + (0, -1, -6)
    has = rng.random(true.shape) < expit(true)
    logits = true * (3.0, 1.0, 1.0) + (0.0, -2.0, 0.0)
    return logits.astype(np.float32), has, true


def test_each_label_gets_its_own() -> None:
    """Slope and bias that were in the logits are found again; the order of the pictures stays."""
    logits, has, true = drawn(5000)
    found = calibrate_labels(logits, has, "drawn")
    assert found.own.tolist() == [True, True, True]
    assert found.sigmoids.slopes == pytest.approx((1 / 3, 1.0, 1.0), rel=0.15)
    assert found.sigmoids.biases is not None
    assert found.sigmoids.biases[:2] == pytest.approx((0.0, 2.0), abs=0.2)
    np.testing.assert_allclose(found.sigmoids.probabilities(logits), expit(true), atol=0.06)
    calibration = found.calibration
    assert calibration.negative_log_likelihood < calibration.negative_log_likelihood_before
    assert calibration.expected_calibration_error < 0.01 < calibration.expected_calibration_error_before
    assert (calibration.images, calibration.measured_on) == (5000, "drawn")


def test_a_rare_label_gets_the_temperature_of_all() -> None:
    """Two numbers cannot be fitted to a handful of pictures."""
    logits, has, _ = drawn(200)
    has[:, 2] = np.arange(200) < 3
    found = calibrate_labels(logits, has, "drawn")
    assert found.own.tolist() == [True, True, False]
    assert found.sigmoids.slopes is not None
    assert found.sigmoids.biases is not None
    assert found.sigmoids.slopes[2] == pytest.approx(1 / found.calibration.temperature)
    assert found.sigmoids.biases[2] == 0


def test_what_is_always_right_does_not_become_certain() -> None:
    """The likelihood alone would make it as sure as can be."""
    has = np.arange(100)[:, np.newaxis] % 2 == 0
    probabilities = calibrate_labels(np.where(has, 3, -3).astype(np.float32), has, "drawn").sigmoids.probabilities(
        np.array([[3.0]], np.float32)
    )
    assert 0.95 < probabilities[0, 0] < 0.995


def test_the_measures_are_those_of_decisions() -> None:
    """Every label of every picture counts once."""
    probabilities, has = np.array([[0.8, 0.3]], np.float32), np.array([[True, False]])
    assert decision_loss(probabilities, has) == pytest.approx(-(np.log(0.8) + np.log(0.7)) / 2)
    assert decision_calibration_error(probabilities, has) == pytest.approx((0.2 + 0.3) / 2)
    assert Sigmoids().probabilities(np.zeros((1, 2), np.float32)).tolist() == [[0.5, 0.5]]
