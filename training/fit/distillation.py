"""Distillation: a network learns the answers of published versions, and not its labels alone.

From Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531). The teacher is asked about the
very pictures that its pupil sees, augmented as they are (Beyer et al., "Knowledge distillation: A good teacher is
patient and consistent", arXiv 2106.05237): where a square is blanked, the answer to the whole picture would be too
sure. Several teachers answer with the mean of their probabilities, as an ensemble does. Where a picture may have
several labels, each has a probability of its own, and so a target.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from training.data.augmentation import Targets
from training.data.dataset import Pixels
from training.evaluation.calibration import Correction
from training.evaluation.inference import Predict
from training.fit.lineage import Origin

_LEAST = 1e-7  # of a probability, before its logarithm is taken


@dataclass(frozen=True)
class Teacher:
    """Published versions to learn from: how they answer together, what each of them was, and which task they do."""

    predict: Predict
    origins: tuple[Origin, ...]
    multi_label: bool = False

    def targets(self, share: float, temperature: float) -> Callable[[Pixels, Targets], Targets]:
        """Return what makes targets of pictures uint8 [N, H, W, 3] and their classes [N, classes], 0 and 1.

        They are the teacher's answers, softened by ``temperature``, for ``share``, and the classes for the rest.
        """

        softened = soften_each if self.multi_label else soften

        def mixed(images: Pixels, given: Targets) -> Targets:
            answers = softened(self.predict(images), temperature)
            targets: Targets = np.float32(share) * answers + np.float32(1 - share) * given
            return targets

        return mixed


def ensemble(teachers: Sequence[Teacher]) -> Teacher:
    """Return one teacher for several, which do the same task: it answers with the mean of their probabilities."""

    def predict(images: Pixels) -> Targets:
        mean: Targets = np.mean([teacher.predict(images) for teacher in teachers], axis=0, dtype=np.float32)
        return mean

    origins = tuple(origin for teacher in teachers for origin in teacher.origins)
    return Teacher(predict, origins, any(teacher.multi_label for teacher in teachers))


def soften(probabilities: Targets, temperature: float) -> Targets:
    """Return ``probabilities`` [N, classes] with their logits divided by ``temperature``."""
    return Correction(temperature).probabilities(np.log(np.maximum(probabilities, _LEAST)))


def soften_each(probabilities: Targets, temperature: float) -> Targets:
    """Return ``probabilities`` [N, labels] that do not exclude each other with their logits so divided."""
    softened: Targets = expit(logit(np.clip(probabilities, _LEAST, 1 - _LEAST)) / np.float32(temperature))
    return softened
