"""Labelled pictures in memory, split into training, validation and test."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact import Input
from artifact.metadata import Interpolation, Resize
from training.errors import TrainingError

Pixels = NDArray[np.uint8]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [N, H, W, 3] with their classes int64 [N]."""

    images: Pixels
    classes: Classes

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A named data set; ``labels`` stand in the order of the classes, ``test`` is for the last measurement only.

    ``resize`` and ``interpolation`` are the rule by which its pictures were brought to their size.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    resize: Resize = "crop"
    interpolation: Interpolation = "bicubic"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every picture."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def picture(self) -> Input:
        """How any other picture becomes one like those of this data set."""
        height, width, _ = self.input_shape
        return Input(height, width, self.resize, self.interpolation)

    def digest(self) -> str:
        """Return a sha256 over labels, pictures and classes, the same for every layout on disk.

        Training and validation pictures count as one, so that the share held out does not change it.
        """
        sha = hashlib.sha256("\n".join(self.labels).encode())
        for split in (self.train, self.validation, self.test):
            sha.update(np.ascontiguousarray(split.images).data)
        for split in (self.train, self.validation, self.test):
            sha.update(np.ascontiguousarray(split.classes).data)
        return sha.hexdigest()


def hold_out(name: str, labels: tuple[str, ...], train: Split, test: Split, validation_images: int) -> Dataset:
    """Split the last ``validation_images`` off the training images; 0 trains on all of them.

    Raises:
        TrainingError: nothing would be left to train on.
    """
    kept = len(train) - validation_images
    if kept <= 0:
        raise TrainingError(
            f"{name} has {len(train)} training images, so {validation_images} cannot be held out for validation"
        )
    return Dataset(
        name=name,
        labels=labels,
        train=Split(train.images[:kept], train.classes[:kept]),
        validation=Split(train.images[kept:], train.classes[kept:]),
        test=test,
    )


def evenly_spaced(total: int, count: int) -> NDArray[np.int64]:
    """Return the indices of at most ``count`` of ``total`` pictures, evenly spread: data may be sorted by class."""
    return np.linspace(0, total - 1, min(count, total)).astype(np.int64)
