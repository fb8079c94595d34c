"""Whether a network that was tuned is worth publishing in place of the one that it began as."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Classes
from training.evaluation.calibration import Correction, fit_temperature, negative_log_likelihood
from training.evaluation.paired import LEVEL, Paired


class Improvement(NamedTuple):
    """Two networks on the same held-out pictures, ``before`` and ``after`` tuning.

    The negative log-likelihoods are in nats, each after the best temperature.
    """

    paired: Paired
    loss_before: float
    loss_after: float

    @property
    def is_one(self) -> bool:
        """Whether the second is better beyond noise, or gets as many right and is better calibrated."""
        paired = self.paired
        swapped = Paired(paired.both, paired.only_second, paired.only_first, paired.neither)
        beyond_noise = swapped.p_second_worse() < LEVEL
        return beyond_noise or (paired.difference >= 0 and self.loss_after < self.loss_before)

    def __str__(self) -> str:
        before, after = self.paired.accuracies
        return (
            f"{after:.2%} of {self.paired.images:,} held-out images, where the head alone has {before:.2%}; negative "
            f"log-likelihood {self.loss_after:.4f}, where that has {self.loss_before:.4f}"
        )


def compare(before: NDArray[np.float32], after: NDArray[np.float32], classes: Classes) -> Improvement:
    """Compare the logits [N, K] of two networks for pictures of ``classes`` int64 [N] that neither was trained on."""
    right = [logits.argmax(axis=1) == classes for logits in (before, after)]
    losses = [
        negative_log_likelihood(Correction(fit_temperature(logits, classes)).probabilities(logits), classes)
        for logits in (before, after)
    ]
    return Improvement(Paired.count(*right), *losses)
