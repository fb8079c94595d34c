"""Labelled pictures for a version that is published already: read as it takes them, with its classes."""

import argparse
import contextlib
import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact import Metadata
from training.commands.options import data_of
from training.data.dataset import Dataset, Split, targets_of
from training.data.folders import Layout
from training.data.pictures import Reading
from training.errors import TrainingError
from training.fit.device import quiet_start
from training.fit.lineage import Lineage


@dataclass(frozen=True)
class Source:
    """Where the pictures are and which of them are taken: ``test``, ``validation`` or ``all``.

    What reading them prints goes to standard error where standard output is for programs (``json``).
    """

    data: Path | None
    max_unreadable: float
    layout: Layout | None
    part: str
    json: bool
    labels: Path | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Source":
        """Return what the options say ``DATA``, ``SPLIT`` and ``--json``."""
        json = getattr(options, "json", False)
        return cls(data_of(options), options.max_unreadable, options.layout, options.split, json, options.labels)


@dataclass(frozen=True)
class Labelled:
    """Pictures with classes in the order of a version's labels, and in words what they are.

    ``part`` is ``test``, ``validation`` or ``all`` of ``dataset``.
    """

    split: Split
    measured_on: str
    part: str
    dataset: Dataset


def for_version(metadata: Metadata, source: Source) -> Labelled:
    """Read the pictures of ``source`` as the version with this ``metadata`` takes them.

    Raises:
        TrainingError: the data cannot be read, has none in the part asked for, or has labels that the version lacks.
    """
    dataset = _load(metadata, source)
    split = _part(dataset, source.part)
    if not len(split):
        raise TrainingError(f"{dataset.name} has no {source.part} pictures")
    split = with_labels(split, dataset.labels, metadata.labels, multi_label=metadata.task == "multi-label")
    return Labelled(split, f"{dataset.name} {source.part}", source.part, dataset)


def of_training(version: Path, metadata: Metadata, data: Path | None, reading: Reading) -> Dataset:
    """Read the data that ``version`` was trained on, split as it was then; ``data`` is None for CIFAR-10, downloaded.

    Of ``reading`` counts what it says about the folder.

    Raises:
        TrainingError: the data cannot be read, or is other data: what the training saw could not be told from the rest.
    """
    with quiet_start():
        from training.data import sources  # which downloads with Keras

    trained_on = metadata.dataset
    made_up = trained_on.get("name") == sources.MADE_UP
    dataset = sources.load(data, trained_on.get("validation"), made_up, metadata.input, reading)
    if dataset.digest() != trained_on.get("sha256"):
        raise TrainingError(f"{version} was trained on other data; give the same with --data")
    return dataset


def _load(metadata: Metadata, source: Source) -> Dataset:
    with quiet_start():
        from training.data import sources  # which downloads with Keras

    # What reading prints, such as that CIFAR-10 is downloaded, must not stand before the one JSON object.
    with contextlib.redirect_stdout(sys.stderr if source.json else sys.stdout):
        made_up = metadata.dataset.get("name") == sources.MADE_UP
        reading = Reading(
            max_unreadable=source.max_unreadable, fewest_classes=1, layout=source.layout, labels=source.labels
        )
        return sources.load(source.data, None, made_up, metadata.input, reading)


def _part(dataset: Dataset, name: str) -> Split:
    if name != "all":
        return dataset.test if name == "test" else dataset.validation
    splits = (dataset.train, dataset.validation, dataset.test)
    images = np.concatenate([split.images for split in splits])
    names = None if dataset.test.names is None else tuple(name for split in splits for name in split.names or ())
    return Split(images, np.concatenate([split.classes for split in splits]), names=names)


def with_labels(split: Split, labels: tuple[str, ...], wanted: tuple[str, ...], *, multi_label: bool = False) -> Split:
    """Return ``split``, whose classes count in the order of ``labels``, with the classes in the order of ``wanted``.

    With ``multi_label`` they are int64 [N, wanted], also where each picture has one label.

    Raises:
        TrainingError: pictures have labels that are not ``wanted``, or several where one is; the message names them.
    """
    unknown = [label for label in labels if label not in wanted]
    if unknown:
        raise TrainingError(
            f"the data has pictures of {', '.join(unknown)}, which the version does not know; "
            f"it knows {', '.join(wanted)}"
        )
    place = np.array([wanted.index(label) for label in labels], np.int64)
    if split.classes.ndim == 1 and not multi_label:
        return dataclasses.replace(split, classes=place[split.classes])
    if not multi_label:
        raise TrainingError("the data has pictures with several labels, or none, and the version tells one of each")
    classes = np.zeros((len(split), len(wanted)), np.int64)
    classes[:, place] = targets_of(split.classes, len(labels))
    return dataclasses.replace(split, classes=classes)


def tell_limits(version: Path, metadata: Metadata, pictures: Labelled) -> None:
    """Say on standard error, where programs do not read it, what the figures of a version on ``pictures`` leave out."""
    for sentence in limits(version, metadata, pictures):
        print(sentence, file=sys.stderr)


def limits(version: Path, metadata: Metadata, pictures: Labelled) -> list[str]:
    """Return in sentences what the figures of a version on ``pictures`` leave out."""
    sentences = []
    classes = pictures.split.classes
    present = set((np.unique(classes) if classes.ndim == 1 else np.flatnonzero(classes.any(axis=0))).tolist())
    absent = [label for index, label in enumerate(metadata.labels) if index not in present]
    if absent:
        sentences.append(f"There is no picture of {', '.join(absent)}: measured on the other labels.")
    held_back = {"test": len(pictures.split), "validation": Lineage.read(metadata.training).held_out(), "all": 0}[
        pictures.part
    ]
    if held_back < len(pictures.split) and pictures.dataset.digest() == metadata.dataset.get("sha256"):
        sentences.append(f"{version} was trained on some of these pictures: expect less on others.")
    return sentences
