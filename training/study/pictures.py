"""Batches of training pictures, shuffled anew in every epoch and, where asked for, turned, shifted and mirrored."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Classes, Split

_DEGREES = 10
_SHIFT = 0.1  # of the side

Batch = tuple[NDArray[Any], Classes]
"""Pictures in 0..255, uint8 or (augmented) float32 [B, H, W, 3], and classes int64 [B]."""


class Batches:
    """The batches of every epoch.

    What an epoch holds depends only on the seed and the epoch's number, so that a resumed run goes on as if it had
    never stopped. An incomplete last batch is left out.
    """

    def __init__(self, split: Split, batch_size: int, *, augment: bool, seed: int) -> None:
        self._split = split
        self._batch_size = min(batch_size, len(split))
        self._augment = augment
        self._seed = seed

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._split) // self._batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch ``number``, counted from 0."""
        rng = np.random.default_rng([self._seed, number])
        order = rng.permutation(len(self._split))
        for index in range(len(self)):
            chosen = order[index * self._batch_size : (index + 1) * self._batch_size]
            images: NDArray[Any] = self._split.images[chosen]
            if self._augment:
                images = transform(images, random_transforms(rng, images.shape))
            yield images, self._split.classes[chosen]

    def from_epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch ``number`` and of all that follow, without end."""
        for following in count(number):
            yield from self.epoch(following)


def random_transforms(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a random rotation, shift and reflection for each of the pictures of ``shape`` [N, H, W, C].

    A row of the result [N, 8] is ``a0, a1, a2, b0, b1, b2, 0, 0``: the output at column x and row y is what lies at
    column ``a0 x + a1 y + a2`` and row ``b0 x + b1 y + b2`` of the picture. All three are one resampling, as in Keras's
    ImageDataGenerator.
    """
    number, height, width, _ = shape
    angle = np.radians(rng.uniform(-_DEGREES, _DEGREES, number))
    right, down = rng.uniform(-_SHIFT, _SHIFT, (2, number)) * [[width], [height]]
    side = rng.choice([-1, 1], number)  # -1 mirrors
    x, y = (width - 1) / 2, (height - 1) / 2  # the centre, which rotation and reflection leave where it is
    a0, a1 = side * np.cos(angle), -np.sin(angle)
    b0, b1 = side * np.sin(angle), np.cos(angle)
    a2, b2 = x + right - a0 * x - a1 * y, y + down - b0 * x - b1 * y
    none = np.zeros(number)
    return np.stack([a0, a1, a2, b0, b1, b2, none, none], axis=1).astype(np.float32)


def transform(images: NDArray[Any], transforms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move ``images`` [N, H, W, C] as ``transforms`` [N, 8] say, with bilinear interpolation.

    What comes in from outside repeats the edge.
    """
    number, height, width, _ = images.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    a0, a1, a2, b0, b1, b2 = transforms[:, :6].T[:, :, None, None]  # each [N, 1, 1]
    columns = np.clip(a0 * x + a1 * y + a2, 0, width - 1)  # [N, H, W]
    rows = np.clip(b0 * x + b1 * y + b2, 0, height - 1)
    left, top = columns.astype(np.intp), rows.astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (columns - left)[..., None], (rows - top)[..., None]
    picture = np.arange(number)[:, None, None]
    upper = images[picture, top, left] * (1 - across) + images[picture, top, right] * across
    lower = images[picture, bottom, left] * (1 - across) + images[picture, bottom, right] * across
    moved: NDArray[np.float32] = upper * (1 - down) + lower * down
    return moved
