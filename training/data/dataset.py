"""Labelled pictures in memory, split into training, validation and test."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifact import Input
from artifact.metadata import Interpolation, Resize
from training.data.findings import Finding
from training.errors import TrainingError

Pixels = NDArray[np.uint8]
Classes = NDArray[np.int64]
Digests = NDArray[np.uint8]
"""The sha256 of files, uint8 [N, 32]."""


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [N, H, W, 3] with their classes int64 [N].

    Where a picture may have several labels, or none, ``classes`` are int64 [N, classes], 1 for each that it has, else
    0.

    ``files`` are the digests of the files that the pictures were read from, and ``names`` the paths of those below the
    folder of the data; None where they are their own pixels, or were made of others.
    """

    images: Pixels
    classes: Classes
    files: Digests | None = None
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> "Split":
        """Return a part of the pictures, with all that belongs to them."""
        files = None if self.files is None else self.files[part]
        names = None if self.names is None else self.names[part]
        return Split(self.images[part], self.classes[part], files, names)


@dataclass(frozen=True)
class LeftOut:
    """A file that should be a picture and cannot be read: its path below the folder of the data, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """A named data set; ``labels`` stand in the order of the classes, ``test`` is for the last measurement only.

    ``resize`` and ``interpolation`` are the rule by which its pictures were brought to their size. ``left_out`` are the
    files that cannot be read, and ``passed_over`` says in sentences what else was not taken for pictures. ``findings``
    are what was found in the pictures while they were read. ``groups`` int64 [train + validation] are the same number
    for near duplicates, of the pictures to train on and then of those held out; None where there are none.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    resize: Resize = "crop"
    interpolation: Interpolation = "bicubic"
    left_out: tuple[LeftOut, ...] = ()
    passed_over: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    groups: NDArray[np.int64] | None = None

    @property
    def multi_label(self) -> bool:
        """Whether a picture may have several labels, or none."""
        return self.train.classes.ndim == 2

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

        Pictures that were read from files count by these, so that the size that they are brought to does not change it;
        others by their pixels. Training and validation pictures count as one, so that the share held out does not.
        """
        splits = (self.train, self.validation, self.test)
        contents = [split.files for split in splits if split.files is not None]
        sha = hashlib.sha256("\n".join(self.labels).encode())
        if len(contents) == len(splits):
            sha.update(f"\n{len(self.test)} files for the test".encode())
        else:
            contents = [split.images for split in splits]
        for content in contents:
            sha.update(np.ascontiguousarray(content).data)
        for split in splits:
            sha.update(np.ascontiguousarray(split.classes).data)
        return sha.hexdigest()


def targets_of(classes: Classes, labels: int) -> NDArray[np.float32]:
    """Return what to learn of pictures with these ``classes``, int64 [N] or [N, labels]: float32 [N, labels]."""
    if classes.ndim == 2:
        return classes.astype(np.float32)
    one_hot: NDArray[np.float32] = np.eye(labels, dtype=np.float32)[classes]
    return one_hot


def size_in_words(picture: Input) -> str:
    """Return the size of pictures in words, and how they are brought to it."""
    return f"{picture.height}x{picture.width} pixels ({picture.resize}, {picture.interpolation})"


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
        train=train[:kept],
        validation=train[kept:],
        test=test,
    )


def evenly_spaced(total: int, count: int) -> NDArray[np.int64]:
    """Return the indices of at most ``count`` of ``total`` pictures, evenly spread: data may be sorted by class."""
    return np.linspace(0, total - 1, min(count, total)).astype(np.int64)
