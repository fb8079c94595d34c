"""Two published versions on the same pictures."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import artifact
from artifact import Metadata
from training.commands import labelled
from training.commands.labelled import Labelled, Source
from training.errors import TrainingError
from training.evaluation.accuracy import Evaluation, evaluate
from training.evaluation.inference import openvino_predict


@dataclass(frozen=True)
class Answered:
    """A version, the pictures as it takes them, and what it answered."""

    version: Path
    metadata: Metadata
    pictures: Labelled
    evaluation: Evaluation


def answered(version: Path, metadata: Metadata, pictures: Labelled) -> Answered:
    """Let the version in folder ``version`` answer to ``pictures``."""
    predict = openvino_predict(version)
    return Answered(
        version, metadata, pictures, evaluate(predict, metadata.labels, pictures.split, pictures.measured_on)
    )


def both(versions: tuple[Path, Path], source: Source) -> tuple[Answered, Answered]:
    """Let two versions answer to the same pictures; the labels stand in the order of the first one's.

    Raises:
        InvalidVersion: a folder is no version that can be trusted.
        TrainingError: they know other labels than each other or than the data, or the data cannot be read.
    """
    first, second = (artifact.validate(version) for version in versions)
    if set(first.labels) != set(second.labels):
        raise TrainingError(
            f"{versions[0]} knows {', '.join(first.labels)}; {versions[1]} knows {', '.join(second.labels)}"
        )
    pictures, again = _pictures(first, second, source)
    a, b = answered(versions[0], first, pictures), answered(versions[1], second, again)
    return a, dataclasses.replace(b, evaluation=_in_order_of(first.labels, b.evaluation))


def _pictures(first: Metadata, second: Metadata, source: Source) -> tuple[Labelled, Labelled]:
    """Return the same pictures as both versions take them, each with its own classes."""
    pictures = labelled.for_version(first, source)
    if second.input == first.input:
        split = labelled.with_labels(pictures.split, first.labels, second.labels)
        return pictures, dataclasses.replace(pictures, split=split)
    again = labelled.for_version(second, source)
    classes = labelled.with_labels(again.split, second.labels, first.labels).classes
    if not np.array_equal(classes, pictures.split.classes):
        raise TrainingError("the two versions take pictures of other sizes, in which not the same ones can be read")
    return pictures, again


def _in_order_of(labels: tuple[str, ...], evaluation: Evaluation) -> Evaluation:
    """Return an evaluation with its classes in the order of ``labels``, which are the same ones."""
    columns = [evaluation.labels.index(label) for label in labels]
    split = labelled.with_labels(evaluation.split, evaluation.labels, labels)
    return Evaluation(labels, evaluation.measured_on, split, evaluation.probabilities[:, columns])
