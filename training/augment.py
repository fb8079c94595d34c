"""Batches of training pictures, shuffled, mirrored and shifted anew in every epoch."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.dataset import Pixels, Split

OneHot = NDArray[np.float32]


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Augmented batches: pictures uint8 [B, H, W, 3], one-hot classes float32 [B, classes].

    A picture is mirrored in every second epoch, beginning at random: over two epochs the network sees both views of
    every picture, which chance would not give it (arXiv 2404.00498, section 3.6). What an epoch holds depends only on
    the seed and the epoch's number, so that a resumed run goes on as if it had never stopped. An incomplete last
    batch is left out, since its gradient would count for more than its pictures.
    """

    def __init__(
        self, split: Split, classes: int, batch_size: int, translation: int, flip: bool, seed: int, epoch: int
    ) -> None:
        super().__init__()
        self._padded = pad(split.images, translation)
        self._one_hot = np.eye(classes, dtype=np.float32)[split.classes]  # [N, classes]
        self._batch_size = min(batch_size, len(split))
        self._translation = translation
        self._flip = flip
        self._seed = seed
        self._epoch = epoch
        self._mirrored_first = np.random.default_rng([seed, 0]).random(len(split)) < 0.5  # [N]
        self._begin_epoch()

    def __len__(self) -> int:
        return len(self._one_hot) // self._batch_size

    def __getitem__(self, index: int) -> tuple[Pixels, OneHot]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        images = shift(self._padded[chosen], self._shifts[chosen], self._translation)
        if self._flip:
            mirrored = self._mirrored_first[chosen] ^ (self._epoch % 2 == 1)
            images[mirrored] = images[mirrored, :, ::-1]
        return images, self._one_hot[chosen]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch's order and shifts; Keras calls this."""
        self._epoch += 1
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        rng = np.random.default_rng([self._seed, 1 + self._epoch])
        count = len(self._one_hot)
        self._order = rng.permutation(count)
        self._shifts = rng.integers(2 * self._translation + 1, size=(count, 2))


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


def one_hot(split: Split, classes: int) -> tuple[Pixels, OneHot]:
    """Return a split as Keras takes validation data: pictures and one-hot classes float32 [N, classes]."""
    encoded: NDArray[Any] = np.eye(classes, dtype=np.float32)
    return split.images, encoded[split.classes]
