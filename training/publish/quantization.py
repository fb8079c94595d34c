"""Quantise a trained network to int8, and keep that only where it costs little accuracy, as far as pictures can tell.

NNCF takes the ranges of the activations from training images and makes an OpenVINO IR of the SavedModel, which stays
beside it as it is.
"""

import contextlib
import dataclasses
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
from artifact.validate import FAMILIARITY, OUTPUT
from machine import import_openvino, openvino_core
from training.data.dataset import Dataset, Pixels, Split, evenly_spaced
from training.errors import AccuracyLost, TrainingError
from training.evaluation.accuracy import Evaluation
from training.evaluation.average_precision import Has, Probabilities, RankedPair
from training.evaluation.few_images import LEAST_HELD_OUT
from training.evaluation.inference import answers_to, openvino_predict
from training.evaluation.paired import LEVEL, Paired
from training.evaluation.post_hoc import OfLabels
from training.evaluation.thresholds import Thresholds
from training.fit.features import Vectors
from training.fit.head import CrossValidation
from training.fit.lineage import Lineage, Record
from training.publish.model_card import int8_accuracy

_TOLERANCE = 0.002
_ONE_SIDED = 1 - 2 * LEVEL  # the confidence of an interval whose one end is the one-sided test's
_OTHER_LABELS = 0.05  # the share of pictures; what is broken gives most of them another label
_CALIBRATION_IMAGES, _FEWEST_CALIBRATION_IMAGES = 1000, 60
_CALIBRATION_PIXELS = 2**22
_MOST_ASKED = 1000
# Batch normalisation and SiLU: in int8 they would only add roundings, since OpenVINO runs them inside the convolutions.
# And what comes after the logits, a few numbers a picture: their correction, and the exponentials of the familiarity.
_LEFT_IN_FLOAT = ("Add", "Multiply", "Sigmoid", "Divide", "Maximum", "Minimum", "ReduceSum", "SoftPlus")


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


def add_int8(version: Path, dataset: Dataset, held_out_images: int, thresholds: Thresholds | None = None) -> Int8:
    """Write the int8 network beside the SavedModel in folder ``version`` and return how both did.

    Both are run by OpenVINO on the last ``held_out_images`` pictures of ``dataset.validation``. Where these are fewer
    than ``LEAST_HELD_OUT``, nobody can tell what int8 costs. Then it only has to answer as float32 does, on pictures of
    the training as well, which finds what is broken. With ``thresholds`` [labels], from which on labels are told, it is
    all labels of a picture that count.

    Raises:
        AccuracyLost: int8 has more than 0.2 points less, or of too few pictures, gives more than 5% of all another
            label; both beyond noise. Nothing of it is left.
        OSError: the disk is full or the folder cannot be written.
    """
    known = _chosen(dataset.train)
    network = quantize(version, known.images, version / INT8_MODEL)
    split = dataset.validation[-held_out_images:]
    measured_on = f"{dataset.name} validation"
    if thresholds is not None:
        before, after = (openvino_predict(path)(split.images) for path in (version, network))
        return _of_labels(measured_on, before, after, split.classes > 0, thresholds, len(known), network)

    def answers(pictures: Split) -> list[Evaluation]:
        probabilities = (openvino_predict(path)(pictures.images) for path in (version, network))
        return [Evaluation(dataset.labels, measured_on, pictures, each) for each in probabilities]

    answered = answers(split)
    paired = Paired.count(*(each.right for each in answered))
    int8 = _of_pair(paired, measured_on, len(known))
    if len(split) < LEAST_HELD_OUT:
        same = np.concatenate([before.predicted == after.predicted for before, after in (answers(known), answered)])
        int8 = dataclasses.replace(int8, agreement=float(same.mean()), agreement_images=len(same))
    return _kept(int8, network, _fault(int8, paired))


def add_int8_by_folds(
    version: Path,
    split: Split,
    features: Vectors,
    folds: CrossValidation,
    name: str,
    of_labels: OfLabels | None = None,
) -> Int8:
    """Write the int8 network beside the SavedModel in folder ``version``, measured by cross-validation.

    ``split`` are the pictures that the head of the version learned from, ``features`` float32 [N, D] what the backbone
    makes of them in float32. To each picture answers the head of the fold that did not see it, once on these and once
    on what the backbone makes of it in int8; of at most 1,000 pictures. With ``of_labels`` it is all labels of a
    picture that count.

    Raises:
        AccuracyLost: as ``add_int8``.
        OSError: the disk is full or the folder cannot be written.
    """
    known = _chosen(split)
    network = quantize(version, known.images, version / INT8_MODEL)
    asked = evenly_spaced(len(split), _MOST_ASKED)
    quantized = features.copy()
    quantized[asked] = answers_to(network, split.images[asked])["embedding"]
    counted = np.isin(folds.rows, asked)
    classes = split.classes[folds.rows][counted]
    measured_on = f"{name}, {len(folds.heads)}-fold cross-validation"
    answers = [folds.logits(each)[counted] for each in (features, quantized)]
    if of_labels:
        float32, int8_ = map(of_labels.sigmoids.probabilities, answers)
        return _of_labels(measured_on, float32, int8_, classes > 0, of_labels.thresholds, len(known), network)
    before, after = (each.argmax(axis=1) for each in answers)
    paired = Paired.count(before == classes, after == classes)
    int8 = _of_pair(paired, measured_on, len(known))
    if len(classes) < LEAST_HELD_OUT:
        int8 = dataclasses.replace(int8, agreement=float((before == after).mean()), agreement_images=len(classes))
    return _kept(int8, network, _fault(int8, paired))


def _of_pair(paired: Paired, measured_on: str, known: int) -> Int8:
    """Return on record what float32 and int8 have right; ``known`` pictures gave the ranges."""
    float32, quantized = paired.accuracies
    return Int8(measured_on, paired.images, quantized, float32, known)


def _of_labels(
    measured_on: str,
    before: Probabilities,
    after: Probabilities,
    has: Has,
    thresholds: Thresholds,
    known: int,
    network: Path,
) -> Int8:
    """Return what int8 costs where a picture may have several labels, by the answers ``before`` and ``after`` it.

    Raises:
        AccuracyLost: the labels of more than 0.2 points of the pictures are no longer all right, the mean average
            precision is lower by more than 0.002, or of too few pictures, more than 5% of all decisions are others; all
            beyond noise. Nothing of it is left.
    """
    told = [each >= thresholds for each in (before, after)]
    paired = Paired.count(*((each == has).all(axis=1) for each in told))
    same = (told[0] == told[1]).all(axis=1)
    int8 = dataclasses.replace(
        _of_pair(paired, measured_on, known), agreement=float(same.mean()), agreement_images=len(has)
    )
    if len(has) < LEAST_HELD_OUT:
        others = int((told[0] != told[1]).sum())
        broken = differs_too_often(others, has.size)
        return _kept(int8, network, f"tells more than {_OTHER_LABELS:.0%} of the labels otherwise" if broken else "")
    if loses_too_much(paired):
        return _kept(int8, network, f"has all labels right of more than {100 * _TOLERANCE:g} points fewer pictures")
    ranked = RankedPair.of(before, after, has).differences
    if len(ranked) and np.quantile(ranked, 1 - LEVEL) < -_TOLERANCE:
        return _kept(int8, network, f"loses more than {_TOLERANCE:g} of mean average precision")
    return _kept(int8, network, "")


def _chosen(split: Split) -> Split:
    """Return the pictures that the ranges of the activations are taken from, fewer of large ones."""
    height, width = split.images.shape[1:3]
    number = min(max(_CALIBRATION_PIXELS // (height * width), _FEWEST_CALIBRATION_IMAGES), _CALIBRATION_IMAGES)
    chosen = evenly_spaced(len(split), number)
    return Split(split.images[chosen], split.classes[chosen])


def _kept(int8: Int8, network: Path, fault: str) -> Int8:
    """Return ``int8``, or take the network away where it has a ``fault``."""
    if fault:
        shutil.rmtree(network.parent)
        raise AccuracyLost(f"int8 {fault}: {int8_accuracy(int8)}")
    return int8


def _fault(int8: Int8, paired: Paired) -> str:
    """Return why an int8 network with these figures is not kept; nothing where it is."""
    if int8.agreement is not None and int8.agreement_images is not None:
        others = round((1 - int8.agreement) * int8.agreement_images)
        often = differs_too_often(others, int8.agreement_images)
        return f"gives more than {_OTHER_LABELS:.0%} of the images another label" if often else ""
    return f"loses more than {100 * _TOLERANCE:g} points of accuracy" if loses_too_much(paired) else ""


def loses_too_much(paired: Paired, tolerance: float = _TOLERANCE) -> bool:
    """Say whether the second, which is in int8, has a share right that is lower by more than ``tolerance``.

    It is so where the difference's interval ends below that, one-sided at 5%. What int8 loses and what it gains are
    mostly doubtful pictures: the more there are of both, the less a surplus of the one tells.
    """
    _, most = paired.interval(_ONE_SIDED)
    return most < -tolerance


def differs_too_often(others: int, images: int) -> bool:
    """Say whether ``others`` of ``images`` pictures, which int8 gives another label, are beyond 5%.

    It is the exact binomial test, one-sided, at 5%.
    """
    from scipy.stats import binomtest  # takes half a second, which --help need not wait for

    return bool(binomtest(others, images, _OTHER_LABELS, alternative="greater").pvalue < LEVEL)


def libraries() -> dict[str, str]:
    """Return the versions of what makes an int8 network."""
    return {"nncf": _import_nncf().__version__, "openvino": import_openvino().__version__}


def quantize(version: Path, images: Pixels, target: Path) -> Path:
    """Quantise the SavedModel in folder ``version`` to ``target``, which is returned.

    The ranges of the activations come from ``images`` uint8 [N, H, W, 3].

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    nncf = _import_nncf()
    network = openvino_core().read_model(version)
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        quantized = nncf.quantize(
            network,
            nncf.Dataset([image[np.newaxis] for image in images]),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,  # SiLU's negative part is small, so its range is not symmetric
            ignored_scope=nncf.IgnoredScope(names=_left_in_float(network), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=None if _on_backbone(network) else _histogram()
            ),
        )
    try:
        import_openvino().save_model(quantized, target, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(f"the int8 network cannot be written to {target.parent} ({error}); is the disk full?") from error
    return target


def _left_in_float(network: Any) -> list[str]:
    """Return the names of the operations that int8 would only cost something.

    What joins the two ways around a block of a backbone does not count among them: in int8 it saves a third of the
    time. All that the familiarity alone is computed by does: its distances are small differences of large numbers.
    """
    on_backbone = _on_backbone(network)
    of_score = _behind(network, FAMILIARITY) - _behind(network, OUTPUT)

    def is_left(operation: Any) -> bool:
        kind = operation.get_type_name()
        of_kind = kind in _LEFT_IN_FLOAT and not (on_backbone and kind == "Add" and _is_map(operation))
        return of_kind or operation.get_friendly_name() in of_score

    return [operation.get_friendly_name() for operation in network.get_ops() if is_left(operation)]


def _behind(network: Any, output: str) -> set[str]:
    """Return the names of all operations that ``output`` is computed by; none where there is no such output."""
    found: set[str] = set()
    left = [result.node for result in network.outputs if output in result.get_names()]
    while left:
        operation = left.pop()
        if operation.get_friendly_name() not in found:
            found.add(operation.get_friendly_name())
            left.extend(value.get_source_output().get_node() for value in operation.inputs())
    return found


def _is_map(operation: Any) -> bool:
    return len(operation.get_output_partial_shape(0)) == 4


def _on_backbone(network: Any) -> bool:
    return any("embedding" in output.get_names() for output in network.outputs)


def _histogram() -> Any:
    """Return the way to find ranges that suits the project's own network best; a backbone's channels are too many."""
    ranges = importlib.import_module("nncf.quantization.range_estimator")
    return ranges.RangeEstimatorParametersSet.HISTOGRAM


def _import_nncf() -> Any:
    """Import NNCF without the package that reports its use to its maker, whether or not that is installed."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its import fails, and NNCF does without
    nncf = importlib.import_module("nncf")
    nncf.disable_logging()
    nncf.set_log_level(logging.ERROR)  # what has no handler any more would print its warnings all the same
    return nncf
