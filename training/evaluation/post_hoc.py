"""What is fitted after a training, on pictures that it has not seen: calibration, and when a picture is familiar."""

from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from artifact import Calibration, Familiarity
from training.data.batching import in_batches
from training.data.dataset import Classes, Dataset, Pixels
from training.evaluation.calibration import Correction, calibrate
from training.evaluation.embedding_score import EmbeddingScore
from training.evaluation.familiarity import Scores, find_threshold, score_of
from training.evaluation.few_images import LEAST_HELD_OUT
from training.evaluation.sigmoids import LabelCalibration, Sigmoids, calibrate_labels
from training.evaluation.thresholds import EVEN_ODDS, Thresholds, choose_thresholds

_BATCH = 500


class OfLabels(NamedTuple):
    """What is fitted for each label, where a picture may have several: its sigmoid, and from where on it is told.

    ``scales`` are slope and bias of the labels that were calibrated by themselves.
    """

    sigmoids: Sigmoids
    thresholds: Thresholds
    chosen_on: str
    scales: dict[str, dict[str, float]]


class PostHoc(NamedTuple):
    """Post-hoc calibration of a network and the threshold of its score; None where there were too few pictures.

    The score is the energy where there is no other one.
    """

    calibration: Calibration | None = None
    familiarity: Familiarity | None = None
    of_labels: OfLabels | None = None
    score: EmbeddingScore | None = None

    @property
    def correction(self) -> Correction | Sigmoids:
        """What the logits are to go through."""
        if self.of_labels:
            return self.of_labels.sigmoids
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
        return _nothing(dataset.labels, multi_label=dataset.multi_label)
    held_out = dataset.validation[-held_out_images:]
    logits = logits_of(model, held_out.images)
    return fit_to_logits(logits, held_out.classes, dataset.labels, f"{dataset.name} validation", label_smoothing)


def fit_to_logits(
    logits: NDArray[np.float32],
    classes: Classes,
    labels: tuple[str, ...],
    measured_on: str,
    label_smoothing: float | None = 0.0,
    scores: Scores | None = None,
) -> PostHoc:
    """Fit correction and threshold to ``logits`` [N, K] for pictures of ``classes`` int64 [N]; to no fewer than 50.

    The threshold of familiarity is that of ``scores`` [N], or without them, of the energy. Where pictures may have
    several labels, int64 [N, K], the threshold of each label is chosen as well.
    """
    multi_label = classes.ndim == 2
    if len(classes) < LEAST_HELD_OUT:
        return _nothing(labels, multi_label=multi_label)
    familiarity = find_threshold(score_of(logits, multi_label=multi_label) if scores is None else scores, measured_on)
    if multi_label:
        found = calibrate_labels(logits, classes > 0, measured_on)
        thresholds = choose_thresholds(found.sigmoids.probabilities(logits), classes > 0)
        of_labels = OfLabels(found.sigmoids, thresholds, measured_on, _scales(found, labels))
        return PostHoc(found.calibration, familiarity, of_labels)
    return PostHoc(calibrate(logits, classes, measured_on, label_smoothing), familiarity)


def _nothing(labels: tuple[str, ...], *, multi_label: bool) -> PostHoc:
    """Return what there is without pictures to fit anything to; labels are told from even odds on then."""
    if not multi_label:
        return PostHoc()
    thresholds = np.full(len(labels), EVEN_ODDS)
    return PostHoc(of_labels=OfLabels(Sigmoids(), thresholds, "none, for want of held-out images", {}))


def _scales(found: LabelCalibration, labels: tuple[str, ...]) -> dict[str, dict[str, float]]:
    fitted = zip(labels, found.sigmoids.slopes or (), found.sigmoids.biases or (), found.own.tolist(), strict=True)
    return {label: {"slope": slope, "bias": bias} for label, slope, bias, own in fitted if own}


def logits_of(model: keras.Model, images: Pixels) -> NDArray[np.float32]:
    """Return the logits float32 [N, classes] of ``model`` for ``images`` uint8 [N, H, W, 3], a batch at a time."""
    logits = (model(batch.astype(np.float32), training=False) for batch in in_batches(images, _BATCH))
    return np.concatenate([keras.ops.convert_to_numpy(part) for part in logits])
