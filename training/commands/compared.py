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
from training.evaluation.multi_label import MultiLabelEvaluation
from training.evaluation.tasks import AnyEvaluation, evaluate_version, evaluation_of


@dataclass(frozen=True)
class Answered:
    """A version, the pictures as it takes them, and what it answered."""

    version: Path
    metadata: Metadata
    pictures: Labelled
    evaluation: AnyEvaluation


def answered(version: Path, metadata: Metadata, pictures: Labelled) -> Answered:
    """Let the version in folder ``version`` answer to ``pictures``."""
    evaluation = evaluate_version(version, metadata, pictures.split, pictures.measured_on)
    return Answered(version, metadata, pictures, evaluation)


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
    if first.task != second.task:
        raise TrainingError(f"one of {versions[0]} and {versions[1]} gives a picture one label, the other several")
    pictures, again = _pictures(first, second, source)
    a, b = answered(versions[0], first, pictures), answered(versions[1], second, again)
    return a, dataclasses.replace(b, evaluation=_in_order_of(first.labels, b.evaluation))


def _pictures(first: Metadata, second: Metadata, source: Source) -> tuple[Labelled, Labelled]:
    """Return the same pictures as both versions take them, each with its own classes."""
    pictures = labelled.for_version(first, source)
    several = first.task == "multi-label"
    if second.input == first.input:
        split = labelled.with_labels(pictures.split, first.labels, second.labels, multi_label=several)
        return pictures, dataclasses.replace(pictures, split=split)
    again = labelled.for_version(second, source)
    classes = labelled.with_labels(again.split, second.labels, first.labels, multi_label=several).classes
    if not np.array_equal(classes, pictures.split.classes):
        raise TrainingError(
            "the two versions take pictures of different sizes, at which not all of the same ones can be read"
        )
    return pictures, again


def _in_order_of(labels: tuple[str, ...], evaluation: AnyEvaluation) -> AnyEvaluation:
    """Return an evaluation with its classes in the order of ``labels``, which are the same ones."""
    columns = [evaluation.labels.index(label) for label in labels]
    thresholds = evaluation.thresholds[columns] if isinstance(evaluation, MultiLabelEvaluation) else None
    split = labelled.with_labels(evaluation.split, evaluation.labels, labels, multi_label=thresholds is not None)
    return evaluation_of(labels, evaluation.measured_on, split, evaluation.probabilities[:, columns], thresholds)
