"""Batches of training pictures, shuffled, mirrored and shifted anew in every epoch."""

from collections.abc import Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray

from training.dataset import Pixels, Split

OneHot = NDArray[np.float32]
Batch = tuple[Pixels, OneHot]
"""Pictures uint8 [B, H, W, 3], one-hot classes float32 [B, classes]."""


class Batches:
    """The augmented batches of every epoch.

    A picture is mirrored in every second epoch, beginning at random: over two epochs the network sees both views of
    every picture, which chance would not give it (arXiv 2404.00498, section 3.6). What an epoch holds depends only on
    the seed and the epoch's number, so that a resumed run goes on as if it had never stopped. An incomplete last
    batch is left out, since its gradient would count for more than its pictures.
    """

    def __init__(
        self, split: Split, classes: int, batch_size: int, translation: int, *, cutout: int = 0, flip: bool, seed: int
    ) -> None:
        self._padded = pad(split.images, translation)
        self._one_hot = np.eye(classes, dtype=np.float32)[split.classes]  # [N, classes]
        self._batch_size = min(batch_size, len(split))
        self._translation = translation
        self._cutout = cutout
        self._blank = split.images.mean(axis=(0, 1, 2)).astype(np.uint8)  # [C]
        self._flip = flip
        self._seed = seed
        self._mirrored_first = np.random.default_rng([seed, 0]).random(len(split)) < 0.5  # [N]

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._one_hot) // self._batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch ``number``, counted from 0."""
        rng = np.random.default_rng([self._seed, 1 + number])
        order = rng.permutation(len(self._one_hot))
        shifts = rng.integers(2 * self._translation + 1, size=(len(order), 2))
        for index in range(len(self)):
            chosen = order[index * self._batch_size : (index + 1) * self._batch_size]
            images = shift(self._padded[chosen], shifts[chosen], self._translation)
            if self._flip:
                mirrored = self._mirrored_first[chosen] ^ (number % 2 == 1)
                images[mirrored] = images[mirrored, :, ::-1]
            if self._cutout:
                cut_out(images, self._cutout, self._blank, rng)
            yield images, self._one_hot[chosen]

    def from_epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch ``number`` and of all that follow, without end."""
        for following in count(number):
            yield from self.epoch(following)


def pad(images: Pixels, width: int) -> Pixels:
    """Return ``images`` [N, H, W, C] with a border of ``width`` pixels that mirrors what is inside."""
    return np.pad(images, ((0, 0), (width, width), (width, width), (0, 0)), mode="reflect")


def shift(padded: Pixels, shifts: NDArray[np.int64], width: int) -> Pixels:
    """Cut each of ``padded`` [N, H + 2 width, W + 2 width, C] at its row and column of ``shifts`` [N, 2]."""
    height, breadth = (size - 2 * width for size in padded.shape[1:3])
    images = np.empty((len(padded), height, breadth, padded.shape[3]), np.uint8)
    for row, column in np.unique(shifts, axis=0):  # few different shifts: a slice for each beats an index array
        same = (shifts == (row, column)).all(axis=1)
        images[same] = padded[same, row : row + height, column : column + breadth]
    return images


def cut_out(images: Pixels, side: int, colour: Pixels, rng: np.random.Generator) -> None:
    """Blank a square of ``side`` pixels at a random place of each of ``images`` [N, H, W, C], with ``colour`` [C].

    From DeVries and Taylor, "Improved Regularization of CNNs with Cutout" (arXiv 1708.04552).
    """
    tops = rng.integers(images.shape[1] - side + 1, size=len(images))
    lefts = rng.integers(images.shape[2] - side + 1, size=len(images))
    for image, top, left in zip(images, tops, lefts, strict=True):
        image[top : top + side, left : left + side] = colour


def one_hot(split: Split, classes: int) -> Batch:
    """Return a whole split as Keras takes validation data, unchanged and in order."""
    return split.images, np.eye(classes, dtype=np.float32)[split.classes]
