"""Calibrate labels that do not exclude each other: the logits of each go through a sigmoid of its own.

It is the scaling of Platt, "Probabilistic Outputs for Support Vector Machines" (1999), with his targets, which keep a
label that is always answered right from becoming certain. A label that few pictures have gets the temperature that
suits all labels together.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from artifact import Calibration
from training.evaluation.accuracy import Bins, binned
from training.evaluation.average_precision import Has
from training.evaluation.calibration import SHARPEST, SOFTEST, Logits
from training.evaluation.thresholds import enough_of


class Sigmoids(NamedTuple):
    """What a network's logits [N, labels] go through to become probabilities: slope and bias of each label.

    Without them, both None, it is the sigmoid alone.
    """

    slopes: tuple[float, ...] | None = None
    biases: tuple[float, ...] | None = None

    def probabilities(self, logits: Logits) -> NDArray[np.float32]:
        """Return the probabilities float32 [N, labels] of ``logits``."""
        scaled = logits
        if self.slopes is not None and self.biases is not None:
            scaled = np.array(self.slopes) * logits + np.array(self.biases)
        probabilities: NDArray[np.float32] = expit(scaled).astype(np.float32)
        return probabilities


class LabelCalibration(NamedTuple):
    """The sigmoids that were fitted, which labels have their own, bool [labels], and what they change."""

    sigmoids: Sigmoids
    own: NDArray[np.bool_]
    calibration: Calibration


def calibrate_labels(logits: Logits, has: Has, measured_on: str) -> LabelCalibration:
    """Fit the sigmoids that make the labels ``has`` most likely, and measure what they change, over all decisions.

    The pictures must not have been trained on: a network is surer of those.
    """
    targets = _targets(has)
    temperature = _temperature(logits, targets)
    own = enough_of(has)
    fitted = [
        _fit(logits[:, label].astype(np.float64), targets[:, label]) if own[label] else (1 / temperature, 0.0)
        for label in range(has.shape[1])
    ]
    sigmoids = Sigmoids(*(tuple(values) for values in zip(*fitted, strict=True)))
    before, after = Sigmoids().probabilities(logits), sigmoids.probabilities(logits)
    calibration = Calibration(
        temperature=temperature,
        measured_on=measured_on,
        images=len(has),
        negative_log_likelihood=decision_loss(after, has),
        negative_log_likelihood_before=decision_loss(before, has),
        expected_calibration_error=decision_calibration_error(after, has),
        expected_calibration_error_before=decision_calibration_error(before, has),
    )
    return LabelCalibration(sigmoids, own, calibration)


def decision_loss(probabilities: NDArray[np.float32], has: Has) -> float:
    """Return the mean negative log-likelihood, in nats, of whether a picture has a label."""
    likely = np.where(has, probabilities, 1 - probabilities)
    return float(-np.log(np.maximum(likely, np.finfo(np.float32).tiny)).mean())


def decision_bins(probabilities: NDArray[np.float32], has: Has) -> Bins:
    """Sort whether pictures have labels into bins of how probable that was."""
    return binned(probabilities.reshape(-1).astype(np.float64), has.reshape(-1))


def decision_calibration_error(probabilities: NDArray[np.float32], has: Has) -> float:
    """Return the mean gap between how probable labels were and how often pictures have them."""
    return decision_bins(probabilities, has).gap()


def _targets(has: Has) -> NDArray[np.float64]:
    """Return what to aim at in place of 0 and 1, float64 [N, labels] (Platt 1999, section 2.2)."""
    with_it = has.sum(axis=0)
    targets: NDArray[np.float64] = np.where(has, (with_it + 1) / (with_it + 2), 1 / (len(has) - with_it + 2))
    return targets


def _temperature(logits: Logits, targets: NDArray[np.float64]) -> float:
    scaled = logits.astype(np.float64)

    def loss(sharpness: float) -> float:
        return _loss(sharpness * scaled, targets)

    found = minimize_scalar(loss, bounds=(1 / SOFTEST, 1 / SHARPEST), method="bounded", options={"xatol": 1e-6})
    return float(1 / found.x)


def _fit(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and bias for the logits [N] of one label; the slope stays positive, so that the order stays."""

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scaled = values[0] * logits + values[1]
        wrong = expit(scaled) - targets
        return _loss(scaled, targets), np.array([(wrong * logits).mean(), wrong.mean()])

    bounds = [(1 / SOFTEST, 1 / SHARPEST), (None, None)]
    slope, bias = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(slope), float(bias)


def _loss(logits: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    return float((np.logaddexp(0, logits) - targets * logits).mean())
