"""Whether a network that was tuned is worth publishing in place of the one that it began as."""

from dataclasses import dataclass
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Classes
from training.evaluation.average_precision import Pair, RankedPair
from training.evaluation.calibration import Correction, fit_temperature, negative_log_likelihood
from training.evaluation.paired import LEVEL, Paired
from training.evaluation.sigmoids import calibrate_labels


@dataclass(frozen=True)
class _Improvement(Generic[Pair]):
    """Two networks on the same held-out pictures, ``before`` and ``after`` tuning.

    The negative log-likelihoods are in nats, each after the best calibration.
    """

    paired: Pair
    loss_before: float
    loss_after: float

    @property
    def is_one(self) -> bool:
        """Whether the second is better beyond noise, or does as well and is better calibrated."""
        paired = self.paired
        return paired.p_second_better() < LEVEL or (paired.difference >= 0 and self.loss_after < self.loss_before)


class Improvement(_Improvement[Paired]):
    """Of networks that tell one label: what both get right."""

    def __str__(self) -> str:
        before, after = self.paired.accuracies
        return (
            f"{after:.2%} of {self.paired.images:,} held-out images, where the head alone has {before:.2%}; negative "
            f"log-likelihood {self.loss_after:.4f}, where that has {self.loss_before:.4f}"
        )


class RankingImprovement(_Improvement[RankedPair]):
    """Of networks that tell several labels: how well both rank."""

    def __str__(self) -> str:
        paired = self.paired
        return (
            f"mean average precision {paired.second:.4f} on {paired.images:,} held-out images, where the head alone "
            f"has {paired.first:.4f}; negative log-likelihood {self.loss_after:.4f}, where that has "
            f"{self.loss_before:.4f}"
        )


def compare(
    before: NDArray[np.float32], after: NDArray[np.float32], classes: Classes
) -> Improvement | RankingImprovement:
    """Compare the logits [N, K] of two networks for pictures of ``classes`` int64 [N] that neither was trained on.

    Of pictures with several labels, int64 [N, K], it is the ranking that is compared.
    """
    if classes.ndim == 2:
        fitted = [calibrate_labels(logits, classes > 0, "").calibration for logits in (before, after)]
        paired = RankedPair.of(before, after, classes > 0)
        return RankingImprovement(paired, *(each.negative_log_likelihood for each in fitted))
    right = [logits.argmax(axis=1) == classes for logits in (before, after)]
    losses = [
        negative_log_likelihood(Correction(fit_temperature(logits, classes)).probabilities(logits), classes)
        for logits in (before, after)
    ]
    return Improvement(Paired.count(*right), *losses)
