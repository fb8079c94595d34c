"""Quantise a trained network to int8, and keep that only where it costs little accuracy.

NNCF takes the ranges of the activations from training images and makes an OpenVINO IR of the SavedModel, which stays
beside it as it is.
"""

import contextlib
import importlib
import io
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from artifact import Int8
from artifact.layout import INT8_MODEL
from machine import import_openvino, openvino_core
from training.data.dataset import Dataset, Pixels, Split, evenly_spaced
from training.errors import AccuracyLost, TrainingError
from training.evaluation.accuracy import evaluate
from training.evaluation.inference import openvino_predict
from training.evaluation.paired import LEVEL
from training.fit.lineage import Lineage, Record
from training.publish.model_card import int8_accuracy

_TOLERANCE = 0.002
_CALIBRATION_IMAGES = 1000
# Batch normalisation and SiLU: in int8 they would only add roundings, since OpenVINO runs them inside the convolutions.
# And what comes after the logits, a few numbers a picture: their correction, and the exponentials of the familiarity.
_LEFT_IN_FLOAT = ("Add", "Multiply", "Sigmoid", "Divide", "Maximum", "Minimum", "ReduceSum")


def require_held_out(training: Record) -> int:
    """Return how many images the training on this record, and all that it built on, left out.

    Raises:
        TrainingError: none; int8 needs some to measure what it costs.
    """
    number = Lineage.read(training).held_out()
    if not number:
        raise TrainingError(
            "int8 is kept only where it costs little accuracy, and there are no held-out images to measure that on: "
            "the network, or the version that it started from, saw them all; train with --validation-images"
        )
    return number


def add_int8(version: Path, dataset: Dataset, held_out_images: int) -> Int8:
    """Write the int8 network beside the SavedModel in folder ``version`` and return how both did.

    Both are run by OpenVINO on the last ``held_out_images`` pictures of ``dataset.validation``.

    Raises:
        AccuracyLost: int8 has more than 0.2 points less, beyond noise; nothing of it is left.
        OSError: the disk is full or the folder cannot be written.
    """
    network = version / INT8_MODEL
    network.parent.mkdir(parents=True, exist_ok=True)
    pictures = dataset.train.images[evenly_spaced(len(dataset.train), _CALIBRATION_IMAGES)]
    quantize(version, pictures, network)
    last = slice(-held_out_images, None)
    split = Split(dataset.validation.images[last], dataset.validation.classes[last])
    measured_on = f"{dataset.name} validation"
    float32, quantized = (
        evaluate(openvino_predict(path), dataset.labels, split, measured_on).metrics().accuracy
        for path in (version, network)
    )
    int8 = Int8(measured_on, len(split), quantized, float32, len(pictures))
    if loses_too_much(round((float32 - quantized) * len(split)), len(split)):
        shutil.rmtree(network.parent)
        raise AccuracyLost(f"int8 loses more than {100 * _TOLERANCE:g} points of accuracy: {int8_accuracy(int8)}")
    return int8


def loses_too_much(lost: int, images: int) -> bool:
    """Say whether ``lost`` of ``images`` pictures are more than 0.2 points, and more than chance makes of those.

    It is the exact binomial test, one-sided, at 5%. Without it a single picture of up to 499 would be too many, and
    a few of 1,000, although most pictures on which int8 differs are doubtful ones.
    """
    from scipy.stats import binomtest  # takes half a second, which --help need not wait for

    return lost > 0 and bool(binomtest(lost, images, _TOLERANCE, alternative="greater").pvalue < LEVEL)


def libraries() -> dict[str, str]:
    """Return the versions of what makes an int8 network."""
    return {"nncf": _import_nncf().__version__, "openvino": import_openvino().__version__}


def quantize(version: Path, images: Pixels, target: Path) -> None:
    """Quantise the SavedModel in folder ``version`` to ``target``; the ranges come from ``images`` uint8 [N, H, W, 3].

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    nncf = _import_nncf()
    ranges = importlib.import_module("nncf.quantization.range_estimator")
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        quantized = nncf.quantize(
            openvino_core().read_model(version),
            nncf.Dataset([image[np.newaxis] for image in images]),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,  # SiLU's negative part is small, so its range is not symmetric
            ignored_scope=nncf.IgnoredScope(types=[*_LEFT_IN_FLOAT], validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges.RangeEstimatorParametersSet.HISTOGRAM
            ),
        )
    try:
        import_openvino().save_model(quantized, target, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(f"the int8 network cannot be written to {target.parent} ({error}); is the disk full?") from error


def _import_nncf() -> Any:
    """Import NNCF without the package that reports its use to its maker, whether or not that is installed."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import fails, and NNCF does without
    nncf = importlib.import_module("nncf")
    nncf.disable_logging()
    nncf.set_log_level(logging.ERROR)  # what has no handler any more would print its warnings all the same
    return nncf
