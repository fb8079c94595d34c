"""What is fitted after a training, on pictures that it has not seen: calibration, and when a picture is familiar."""

from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from artifact import Calibration, Familiarity
from training.data.batching import in_batches
from training.data.dataset import Classes, Dataset, Pixels
from training.evaluation.calibration import Correction, calibrate
from training.evaluation.familiarity import find_threshold, score_of
from training.evaluation.few_images import LEAST_HELD_OUT

_BATCH = 500


class PostHoc(NamedTuple):
    """Post-hoc calibration of a network and the threshold of its score; None where there were too few pictures."""

    calibration: Calibration | None = None
    familiarity: Familiarity | None = None

    @property
    def correction(self) -> Correction:
        """What the logits are to go through."""
        fitted = self.calibration
        return Correction(fitted.temperature, fitted.label_smoothing) if fitted else Correction()

    @property
    def threshold(self) -> float | None:
        """The score from which on a picture is familiar."""
        return self.familiarity.threshold if self.familiarity else None


def fit_post_hoc(
    model: keras.Model, dataset: Dataset, held_out_images: int, label_smoothing: float | None = 0.0
) -> PostHoc:
    """Fit correction and threshold to the last ``held_out_images`` pictures of ``dataset.validation``.

    ``label_smoothing`` is that of the training, None where a teacher smoothed. Where there are fewer such pictures than
    ``LEAST_HELD_OUT``, nothing is fitted: they are too few to tell, and of those that it was trained on a network is
    surer.
    """
    if held_out_images < LEAST_HELD_OUT:
        return PostHoc()
    held_out = dataset.validation[-held_out_images:]
    logits = logits_of(model, held_out.images)
    return fit_to_logits(logits, held_out.classes, f"{dataset.name} validation", label_smoothing)


def fit_to_logits(
    logits: NDArray[np.float32], classes: Classes, measured_on: str, label_smoothing: float | None = 0.0
) -> PostHoc:
    """Fit correction and threshold to ``logits`` [N, K] for pictures of ``classes`` int64 [N]; to no fewer than 50."""
    if len(classes) < LEAST_HELD_OUT:
        return PostHoc()
    calibration = calibrate(logits, classes, measured_on, label_smoothing)
    return PostHoc(calibration, find_threshold(score_of(logits), measured_on))


def logits_of(model: keras.Model, images: Pixels) -> NDArray[np.float32]:
    """Return the logits float32 [N, classes] of ``model`` for ``images`` uint8 [N, H, W, 3], a batch at a time."""
    logits = (model(batch.astype(np.float32), training=False) for batch in in_batches(images, _BATCH))
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in logits])
