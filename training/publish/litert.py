"""A version as a LiteRT file (``.tflite``) in int8, for phones and small boards.

TensorFlow's converter quantises weights and activations; pixels go in as uint8 and probabilities come out as float32.
LiteRT reads the result back.
"""

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact import Int8, Metadata
from artifact.layout import METADATA
from artifact.validate import INPUT, OUTPUT, SIGNATURE
from machine import usable_cores
from training.data.dataset import Pixels, Split
from training.errors import AccuracyLost, TrainingError
from training.evaluation.average_precision import RankedPair
from training.evaluation.inference import Predict
from training.evaluation.multi_label import MultiLabelEvaluation
from training.evaluation.paired import LEVEL, Paired
from training.evaluation.tasks import AnyEvaluation, evaluation_of
from training.evaluation.thresholds import Thresholds
from training.fit.device import quiet, quiet_start
from training.publish.model_card import int8_accuracy
from training.publish.quantization import loses_too_much

SUFFIX = ".tflite"
NEEDS = ("ai_edge_litert",)
"""What has to be installed, by its names in Python."""
CALIBRATION_IMAGES = 100

_TOLERANCE = 0.02


def convert(version: Path, metadata: Metadata, images: Pixels, target: Path) -> None:
    """Quantise the version in folder ``version`` to the file ``target``; the ranges come from ``images`` [N, H, W, 3].

    ``labels.txt`` and ``metadata.json`` lie in the file as in a ZIP archive, as LiteRT's associated files do.

    Raises:
        TrainingError: it has something that the converter cannot quantise.
        OSError: the file cannot be written.
    """
    with quiet_start():
        import tensorflow as tf

    with quiet(), warnings.catch_warnings(action="ignore"):  # of its own interpreter, with which it takes the ranges
        try:
            converter = tf.lite.TFLiteConverter.from_saved_model(str(version), signature_keys=[SIGNATURE])
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ({INPUT: image[np.newaxis]} for image in images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            content = converter.convert()
        except Exception as error:  # its own class has no public name
            raise TrainingError(f"TensorFlow cannot quantise {version} for LiteRT ({error})") from error
    target.write_bytes(content)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("labels.txt", "\n".join(metadata.labels) + "\n")
        archive.write(version / METADATA, Path(METADATA).name)


def predict(file: Path) -> Predict:
    """Return the classifier in the LiteRT file, which takes pictures one by one, as on a device.

    Raises:
        TrainingError: LiteRT cannot read the file.
    """
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        try:
            interpreter = Interpreter(str(file), num_threads=usable_cores())
            interpreter.allocate_tensors()
            runner = interpreter.get_signature_runner(SIGNATURE)
        except (RuntimeError, ValueError) as error:
            raise TrainingError(f"LiteRT cannot read what TensorFlow wrote ({error})") from error

    return lambda images: np.concatenate([runner(images=image[np.newaxis])[OUTPUT] for image in images])


@dataclass(frozen=True)
class Comparison:
    """How the file did beside the version: both accuracies, and the share of pictures that both label alike.

    Where a picture may have several labels, the accuracies are of all of them together, and ``ranked`` is how well both
    rank.
    """

    int8: Int8
    same_label: float
    ranked: RankedPair | None = None

    def __str__(self) -> str:
        if self.ranked is None:
            return f"accuracy in int8 {int8_accuracy(self.int8)}; the same label for {self.same_label:.2%}"
        return (
            f"mean average precision in int8 {self.ranked.second:.4f}, where float32 has {self.ranked.first:.4f}; all "
            f"labels right {int8_accuracy(self.int8)}; the same labels for {self.same_label:.2%}"
        )


def compare(
    found: Predict,
    expected: Predict,
    labels: tuple[str, ...],
    split: Split,
    measured_on: str,
    thresholds: Thresholds | None = None,
) -> Comparison:
    """Classify ``split`` with the file and the version; ``measured_on`` says in words what it is.

    ``thresholds`` are those of a version that tells several labels.

    Raises:
        AccuracyLost: the file has more than 2 points of accuracy less, or of several labels more than 0.02 of mean
            average precision, beyond noise.
    """
    ours, theirs = (
        evaluation_of(labels, measured_on, split, predict(split.images), thresholds) for predict in (expected, found)
    )
    paired = Paired.count(ours.right, theirs.right)
    float32, quantized = paired.accuracies
    int8 = Int8(measured_on, paired.images, quantized, float32, CALIBRATION_IMAGES)
    comparison = Comparison(int8, *_alike(ours, theirs))
    if loses_too_much(paired, _TOLERANCE):
        raise AccuracyLost(
            f"int8 loses more than {100 * _TOLERANCE:g} points of accuracy: {comparison}; it is not kept"
        )
    differences = comparison.ranked.differences if comparison.ranked else ()
    if len(differences) and np.quantile(differences, 1 - LEVEL) < -_TOLERANCE:
        raise AccuracyLost(
            f"int8 loses more than {_TOLERANCE:g} of mean average precision: {comparison}; it is not kept"
        )
    return comparison


def _alike(ours: AnyEvaluation, theirs: AnyEvaluation) -> tuple[float, RankedPair | None]:
    """Return the share of pictures that both label alike, and of several labels how well both rank."""
    if isinstance(ours, MultiLabelEvaluation) and isinstance(theirs, MultiLabelEvaluation):
        same = (ours.told == theirs.told).all(axis=1)
        return float(same.mean()), RankedPair.of(ours.probabilities, theirs.probabilities, ours.has)
    return float((ours.probabilities.argmax(axis=1) == theirs.probabilities.argmax(axis=1)).mean()), None
