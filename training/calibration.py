"""Temperature scaling: one number that makes a network as sure of its answers as it is right.

From Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599), section 4.2.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from artifact import Calibration
from training.dataset import Classes
from training.evaluate import expected_calibration_error

Logits = NDArray[np.float32]  # [N, classes]

_SHARPEST, _SOFTEST = 0.02, 50.0  # temperatures; far outside of what networks need


def calibrate(logits: Logits, classes: Classes, measured_on: str) -> Calibration:
    """Fit the temperature that makes ``classes`` int64 [N] most likely, given ``logits``, and measure what it changes.

    The pictures must not have been trained on: a network is surer of those.
    """
    temperature = fit_temperature(logits, classes)
    before, after = softmax(logits, axis=1), softmax(logits / temperature, axis=1)
    return Calibration(
        temperature=temperature,
        measured_on=measured_on,
        images=len(classes),
        negative_log_likelihood=negative_log_likelihood(logits / temperature, classes),
        negative_log_likelihood_before=negative_log_likelihood(logits, classes),
        expected_calibration_error=expected_calibration_error(after, classes),
        expected_calibration_error_before=expected_calibration_error(before, classes),
    )


def fit_temperature(logits: Logits, classes: Classes) -> float:
    """Return the temperature T for which ``logits`` / T have the least negative log-likelihood of ``classes``.

    It is sought in 1/T, in which the likelihood is convex, so that there is one minimum. Where every picture is
    answered right there would be none: the surer, the likelier. So 1/(N + 2) of each picture is shared by all classes,
    after the targets of Platt's scaling (Platt 1999, section 2.2), which changes nothing where N is large.
    """
    doubt = 1 / (len(classes) + 2)
    highest = logits.max(axis=1, keepdims=True)
    scaled = (logits - highest).astype(np.float64)
    of_class = scaled[np.arange(len(classes)), classes]
    targets_mean = (1 - doubt) * of_class + doubt * scaled.mean(axis=1)

    def loss(sharpness: float) -> float:
        normalizer = np.log(np.exp(sharpness * scaled).sum(axis=1))
        return float((normalizer - sharpness * targets_mean).mean())

    found = minimize_scalar(loss, bounds=(1 / _SOFTEST, 1 / _SHARPEST), method="bounded", options={"xatol": 1e-6})
    return float(1 / found.x)


def negative_log_likelihood(logits: Logits, classes: Classes) -> float:
    """Return the mean negative log-likelihood of ``classes`` int64 [N], in nats."""
    likelihoods = log_softmax(logits.astype(np.float64), axis=1)
    return float(-likelihoods[np.arange(len(classes)), classes].mean())


def uncalibrated(probabilities: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Return the probabilities float32 [N, classes] that the network gave before the temperature.

    The logarithm of a probability is the logit over the temperature, but for a number that softmax does not see.
    """
    smallest = np.finfo(np.float32).tiny
    before: NDArray[np.float32] = softmax(np.log(np.maximum(probabilities, smallest)) * temperature, axis=1)
    return before
