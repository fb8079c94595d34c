"""Make a network as sure of its answers as it is right: label smoothing is undone, then a temperature is fitted.

The temperature is that of Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599), section 4.2.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from artifact import Calibration
from training.data.dataset import Classes
from training.evaluation.accuracy import expected_calibration_error

Logits = NDArray[np.float32]  # [N, classes]

SHARPEST, SOFTEST = 0.02, 50.0  # temperatures; far outside of what networks need

_MOST_SMOOTHING = 0.3  # sought at most; what teachers give away lies between 0.05 and 0.2

KEPT = 0.01
"""The share of a probability that is left at least where label smoothing is undone."""

LEAST_SURPLUS = 1e-30
"""What is left at least: a number that has a logarithm, also where the probability is 0 in float32."""


class Correction(NamedTuple):
    """What a network's logits go through to become probabilities; by itself, softmax alone.

    The share ``label_smoothing`` that the training gave to all classes alike is taken out of the probabilities (see
    ``undo_smoothing``), and the logarithms of these are divided by ``temperature``.
    """

    temperature: float = 1.0
    label_smoothing: float = 0.0

    def probabilities(self, logits: Logits) -> NDArray[np.float32]:
        """Return the probabilities float32 [N, classes] of ``logits``."""
        corrected: NDArray[np.float32] = softmax(
            undo_smoothing(logits, self.label_smoothing) / self.temperature, axis=1
        )
        return corrected


def undo_smoothing(logits: Logits, label_smoothing: float) -> Logits:
    """Return logits of what the network would say if its ``label_smoothing`` a had been 0, float32 [N, classes].

    Smoothed labels (Szegedy et al., arXiv 1512.00567, section 7) have a/K in each of K classes, and 1 - a more in the
    right one. So where the classes of pictures like these are q, the loss is least at (1 - a) q + a/K, of which q is
    had back by subtraction. A temperature cannot do that: it moves the probabilities of doubtful pictures too far where
    it is right for clear ones. Near a/K and below, a network is surer than smoothing lets it be; there a share of the
    probability is left, so that the classes keep their order.
    """
    if not label_smoothing:
        return logits
    share = label_smoothing / logits.shape[1]
    probabilities = softmax(logits, axis=1)
    left = np.maximum(probabilities - share, KEPT * probabilities)
    undone: Logits = np.log(np.maximum(left, LEAST_SURPLUS))
    return undone


def calibrate(logits: Logits, classes: Classes, measured_on: str, label_smoothing: float | None = 0.0) -> Calibration:
    """Fit the correction that makes ``classes`` int64 [N] most likely, given ``logits``, and measure what it changes.

    The ``label_smoothing`` of the training is undone where that is likelier than leaving it; None where nobody knows
    it, as where a teacher's answers took its place, and then it is fitted, too. The pictures must not have been trained
    on: a network is surer of those.
    """
    undone = fit_smoothing(logits, classes) if label_smoothing is None else label_smoothing
    found = [_without(share, logits, classes) for share in sorted({0.0, undone})]
    answers = [correction.probabilities(logits) for correction in found]
    likelihoods = [negative_log_likelihood(answer, classes) for answer in answers]
    least = int(np.argmin(likelihoods))
    before = Correction().probabilities(logits)
    return Calibration(
        temperature=found[least].temperature,
        label_smoothing=found[least].label_smoothing,
        measured_on=measured_on,
        images=len(classes),
        negative_log_likelihood=likelihoods[least],
        negative_log_likelihood_before=negative_log_likelihood(before, classes),
        expected_calibration_error=expected_calibration_error(answers[least], classes),
        expected_calibration_error_before=expected_calibration_error(before, classes),
    )


def fit_smoothing(logits: Logits, classes: Classes) -> float:
    """Return the label smoothing without which ``classes`` are most likely, with the best temperature beside it.

    What a teacher answers at a high temperature has something for every class, the square root of a thousandth at a
    temperature of 2. So its pupil learns what smoothed labels teach as well, by a share that follows from the answers.
    """

    def loss(share: float) -> float:
        return negative_log_likelihood(_without(share, logits, classes).probabilities(logits), classes)

    return float(minimize_scalar(loss, bounds=(0, _MOST_SMOOTHING), method="bounded", options={"xatol": 1e-3}).x)


def _without(label_smoothing: float, logits: Logits, classes: Classes) -> Correction:
    """Return the correction that undoes ``label_smoothing``, with the temperature that fits ``classes`` best then."""
    return Correction(fit_temperature(undo_smoothing(logits, label_smoothing), classes), label_smoothing)


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

    found = minimize_scalar(loss, bounds=(1 / SOFTEST, 1 / SHARPEST), method="bounded", options={"xatol": 1e-6})
    return float(1 / found.x)


def negative_log_likelihood(probabilities: NDArray[np.float32], classes: Classes) -> float:
    """Return the mean negative log-likelihood of ``classes`` int64 [N], in nats, under ``probabilities`` [N, K]."""
    of_class = probabilities[np.arange(len(classes)), classes]
    return float(-np.log(np.maximum(of_class, np.finfo(np.float32).tiny)).mean())
