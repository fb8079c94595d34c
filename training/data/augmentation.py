"""Batches of training pictures, shuffled, mirrored, shifted or cropped anew in every epoch."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.dataset import Classes, Pixels, Split, evenly_spaced, targets_of
from training.data.trivial_augment import change, draw_changes

_MEASURED = 1000  # pictures for the mean colour
_ASPECT = np.log(4 / 3)

Targets = NDArray[np.float32]
"""What to learn of pictures: their classes as 0 and 1, or probabilities, float32 [B, classes]."""
Batch = tuple[Pixels, Targets]
"""Pictures uint8 [B, H, W, 3] and their targets."""


class Plan(NamedTuple):
    """What chance has decided about the B pictures of a batch; None for what is not done to any of them."""

    chosen: NDArray[np.int64]
    """Which ones of the split they are, [B]."""
    shifts: NDArray[np.int64] | None
    """Row and column at which the padded picture is cut, [B, 2]."""
    boxes: NDArray[np.float64] | None
    """Left, top, right and bottom of the part that is scaled to the whole, in pixels, [B, 4]."""
    mirrored: NDArray[np.bool_] | None
    """Which ones are mirrored, [B]."""
    kinds: NDArray[np.int64] | None
    """Numbers of TrivialAugment's changes, [B]."""
    strengths: NDArray[np.float64] | None
    """And how strong they are, -1 to 1, [B]."""
    corners: NDArray[np.int64] | None
    """Row and column of the blanked square's first pixel, [B, 2]."""


class Batches:
    """The augmented batches of every epoch.

    A picture is mirrored in every second epoch, beginning at random: over two epochs the network sees both views of
    every picture, which chance would not give it (arXiv 2404.00498, section 3.6). What an epoch holds depends only on
    the seed and the epoch's number, so that a resumed run goes on as if it had never stopped. An incomplete last
    batch is left out, since its gradient would count for more than its pictures.

    With ``balance``, an epoch shows the pictures of rare classes more than once, as ``quotas`` says. ``crop`` below 1
    takes a random part of each picture, as ``draw_boxes`` says; ``change`` is the share of pictures that
    TrivialAugment changes. Pictures are read a batch at a time, so that they may be in a file (``numpy.memmap``).
    ``teach`` makes of a batch's augmented pictures and one-hot classes what is to be learned of them.
    """

    def __init__(
        self,
        split: Split,
        classes: int,
        batch_size: int,
        translation: int,
        *,
        cutout: int = 0,
        crop: float = 1.0,
        change: float = 0.0,
        balance: bool = False,
        flip: bool,
        seed: int,
        teach: Callable[[Pixels, Targets], Targets] | None = None,
    ) -> None:
        self.images = split.images
        self._classes = split.classes
        self.targets = targets_of(split.classes, classes)  # [N, classes]
        self._quotas = quotas(np.bincount(split.classes, minlength=classes)) if balance else None
        self._length = len(split) if self._quotas is None else int(self._quotas.sum())
        self.batch_size = min(batch_size, len(split))
        self.translation = translation
        self.cutout = cutout
        self._crop = crop
        self._change = change
        self.colour = split.images[evenly_spaced(len(split), _MEASURED)].mean(axis=(0, 1, 2)).astype(np.uint8)  # [C]
        self._flip = flip
        self._seed = seed
        self._teach = teach
        self._mirrored_first = np.random.default_rng([seed, 0]).random(len(split)) < 0.5  # [N]

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._length // self.batch_size

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch ``number``, counted from 0."""
        for images, chosen in self._augmented(number):
            targets = self.targets[chosen]
            yield images, self._teach(images, targets) if self._teach else targets

    def from_epoch(self, number: int) -> Iterator[Batch]:
        """Yield the batches of epoch ``number`` and of all that follow, without end."""
        for following in count(number):
            yield from self.epoch(following)

    def images_from_epoch(self, number: int) -> Iterator[Pixels]:
        """Yield the pictures of the same batches, about which no teacher is asked."""
        for following in count(number):
            for images, _ in self._augmented(following):
                yield images

    def plans(self, number: int) -> Iterator[Plan]:
        """Yield what chance decides about the batches of epoch ``number``."""
        rng = np.random.default_rng([self._seed, 1 + number])
        order = rng.permutation(self._length)
        shifts = rng.integers(2 * self.translation + 1, size=(self._length, 2))
        pictures = np.arange(self._length) if self._quotas is None else repeat(self._classes, self._quotas, rng)
        height, width = self.images.shape[1:3]
        for index in range(len(self)):
            places = order[index * self.batch_size : (index + 1) * self.batch_size]
            chosen, count = pictures[places], len(places)
            boxes = draw_boxes(count, height, width, self._crop, rng) if self._crop < 1 else None
            kinds, strengths = draw_changes(count, self._change, rng) if self._change else (None, None)
            yield Plan(
                chosen,
                shifts=shifts[places] if self.translation else None,
                boxes=boxes,
                mirrored=self._mirrored_first[chosen] ^ (number % 2 == 1) if self._flip else None,
                kinds=kinds,
                strengths=strengths,
                corners=draw_corners(count, height, width, self.cutout, rng) if self.cutout else None,
            )

    def _augmented(self, number: int) -> Iterator[tuple[Pixels, NDArray[np.int64]]]:
        """Yield the pictures of the batches of an epoch and which ones of the split they are."""
        for plan in self.plans(number):
            yield self._carried_out(plan), plan.chosen

    def _carried_out(self, plan: Plan) -> Pixels:
        """Return the pictures of a batch; ``training.data.device_augmentation`` does the same on a device."""
        images = self.images[plan.chosen]
        if plan.shifts is not None:
            images = shift(pad(images, self.translation), plan.shifts, self.translation)
        if plan.boxes is not None:
            images = crop(images, plan.boxes)
        if plan.mirrored is not None:
            images[plan.mirrored] = images[plan.mirrored, :, ::-1]
        if plan.kinds is not None and plan.strengths is not None:
            change(images, plan.kinds, plan.strengths, self.colour)
        if plan.corners is not None:
            cut_out(images, plan.corners, self.cutout, self.colour)
        return images


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


def draw_corners(count: int, height: int, width: int, side: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return where squares of ``side`` pixels begin that lie anywhere in a picture: rows and columns, [count, 2]."""
    tops = rng.integers(height - side + 1, size=count)
    return np.stack([tops, rng.integers(width - side + 1, size=count)], axis=1)


def cut_out(images: Pixels, corners: NDArray[np.int64], side: int, colour: Pixels) -> None:
    """Blank a square of ``side`` pixels at its place of ``corners`` in each of ``images`` [N, H, W, C], in ``colour``.

    From DeVries and Taylor, "Improved Regularization of CNNs with Cutout" (arXiv 1708.04552).
    """
    for image, (top, left) in zip(images, corners.tolist(), strict=True):
        image[top : top + side, left : left + side] = colour


def draw_boxes(count: int, height: int, width: int, least: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return random parts of pictures as left, top, right and bottom in pixels, [count, 4].

    A part has at least the share ``least`` of the area and up to a third more or less of the picture's aspect ratio:
    the crops of Szegedy et al., "Going Deeper with Convolutions" (arXiv 1409.4842, section 6).
    """
    areas = rng.uniform(least, 1, size=count)
    aspects = np.exp(rng.uniform(-_ASPECT, _ASPECT, size=count))
    rows = np.minimum(np.sqrt(areas / aspects), 1) * height
    columns = np.minimum(np.sqrt(areas * aspects), 1) * width
    tops, lefts = rng.random(count) * (height - rows), rng.random(count) * (width - columns)
    return np.stack([lefts, tops, lefts + columns, tops + rows], axis=1)


def crop(images: Pixels, boxes: NDArray[np.float64]) -> Pixels:
    """Scale the part in its box of ``boxes`` [N, 4] of each of ``images`` [N, H, W, 3] to the whole [N, H, W, 3]."""
    cropped = [_zoom(image, tuple(box)) for image, box in zip(images, boxes.tolist(), strict=True)]
    return np.stack(cropped)


def _zoom(image: Pixels, box: tuple[float, ...]) -> Pixels:
    height, width = image.shape[:2]
    left, top, right, bottom = box
    scaled = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, (left, top, right, bottom))
    return np.asarray(scaled)


def quotas(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many pictures of each class an epoch shows, of classes that have ``counts`` [classes] of them.

    A class with less than an equal share f of the pictures is repeated sqrt(f / its share) times: halfway, on a
    logarithmic scale, between the data's own shares and equal ones. It is the repeat factor sampling of Gupta et al.,
    "LVIS" (arXiv 1908.03195), with the equal share as its threshold.
    """
    shares = np.maximum(counts, 1) / counts.sum()
    factors = np.maximum(np.sqrt(1 / len(counts) / shares), 1)
    rounded: NDArray[np.int64] = np.rint(counts * factors).astype(np.int64)
    return rounded


def repeat(classes: Classes, wanted: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return indices into ``classes`` [N]: ``wanted`` [classes] of each class, all its pictures about as often."""
    chosen = []
    for number, quota in enumerate(wanted):
        members = rng.permutation(np.flatnonzero(classes == number))
        chosen.append(np.resize(members, quota))  # over and over, each time in this order
    return np.concatenate(chosen)


class InOrder(keras.utils.PyDataset):  # type: ignore[misc]
    """The batches of a split as Keras takes validation data: unchanged, in order, and read when they are needed."""

    def __init__(self, split: Split, classes: int, batch_size: int) -> None:
        super().__init__()
        self._split = split
        self._targets = targets_of(split.classes, classes)  # [N, classes]
        self._batch_size = batch_size

    def whole(self) -> Batch:
        """Return all of them as one batch."""
        return self._split.images, self._targets

    def __len__(self) -> int:
        return -(-len(self._split) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        part = slice(index * self._batch_size, (index + 1) * self._batch_size)
        return self._split.images[part], self._targets[part]
