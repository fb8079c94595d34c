"""The augmentation of ``training.data.augmentation`` in operations of Keras, for pictures in a device's memory.

Chance decides on the host, in a ``Plan``; what is done with it here can be compiled together with a training step.
Pictures are those that NumPy and Pillow make of the same plan: equal where they are shifted, mirrored, blanked,
posterized or solarized, within a level or two of 255 where the two round otherwise.
"""

from typing import Any

import numpy as np
from keras import ops

from training.data.augmentation import Plan
from training.data.trivial_augment import ANGLE, BITS, CHANGES, ENHANCE, SHEAR, SHIFT

Tensor = Any
"""An array of the Keras backend; in shapes B is the pictures of a batch."""

_NUMBERS = {name: number for number, name in enumerate(CHANGES)}
_LEVELS = 256
_GREY = (19595, 38470, 7471)  # of 65536: Pillow's weights of red, green and blue (ITU-R 601-2)


def augment(images: Tensor, plan: Plan, translation: int, cutout: int, colour: Tensor) -> Tensor:
    """Return what ``plan`` makes of ``images`` uint8 [B, H, W, 3], of the same shape and dtype.

    ``translation`` and ``cutout`` are pixels as in ``Batches``, ``colour`` float32 [3] is outside of every picture.
    """
    images = ops.cast(images, "float32")
    if plan.shifts is not None:
        images = _shift(images, plan.shifts, translation)
    if plan.boxes is not None:
        images = _crop(images, plan.boxes)
    if plan.mirrored is not None:
        images = _where(plan.mirrored, ops.flip(images, axis=2), images)
    if plan.kinds is not None:
        images = change(images, plan.kinds, plan.strengths, colour)
    if plan.corners is not None:
        images = _cut_out(images, plan.corners, cutout, colour)
    return ops.cast(images, "uint8")


def change(images: Tensor, kinds: Tensor, strengths: Tensor, colour: Tensor) -> Tensor:
    """Change ``images`` float32 [B, H, W, 3], of whole numbers, each by its kind [B] and strength [B].

    All fourteen changes are four computations, in which pictures of other kinds stay as they are.
    """
    strengths = ops.cast(strengths, "float32")
    images = _move(images, kinds, strengths, colour)
    images = _blend(images, kinds, strengths)
    images = _map_levels(images, kinds, strengths)
    return _equalize(images, kinds)


def _where(chosen: Tensor, changed: Tensor, images: Tensor) -> Tensor:
    """Return the pictures of ``changed`` that are ``chosen`` [B], and of ``images`` the others."""
    return ops.where(chosen[:, None, None, None], changed, images)


def _of(kinds: Tensor, *names: str) -> Tensor:
    """Say of which pictures the kind is one of ``names``, bool [B]."""
    found = kinds == _NUMBERS[names[0]]
    for name in names[1:]:
        found = ops.logical_or(found, kinds == _NUMBERS[name])
    return found


def _shift(images: Tensor, shifts: Tensor, width: int) -> Tensor:
    rows, columns = (
        _reflected(ops.arange(size) + shifts[:, axis : axis + 1] - width, size)  # [B, size]
        for axis, size in enumerate(images.shape[1:3])
    )
    images = ops.take_along_axis(images, rows[:, :, None, None], axis=1)
    return ops.take_along_axis(images, columns[:, None, :, None], axis=2)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Return the pixels of 0..size - 1 that stand for ``places`` up to ``size - 1`` outside, mirrored at the edges."""
    return size - 1 - ops.abs(size - 1 - ops.abs(places))


def _cut_out(images: Tensor, corners: Tensor, side: int, colour: Tensor) -> Tensor:
    rows, columns = (
        ops.logical_and(ops.arange(size) >= begin, ops.arange(size) < begin + side)  # [B, size]
        for size, begin in zip(images.shape[1:3], (corners[:, :1], corners[:, 1:]), strict=True)
    )
    return ops.where(ops.logical_and(rows[:, :, None], columns[:, None, :])[..., None], colour, images)


def _crop(images: Tensor, boxes: Tensor) -> Tensor:
    height, width = images.shape[1:3]
    boxes = ops.cast(boxes, "float32")
    across, down = _weights(boxes[:, 0], boxes[:, 2], width), _weights(boxes[:, 1], boxes[:, 3], height)
    images = ops.floor(ops.einsum("bow,bhwc->bhoc", across, images) + 0.5)  # Pillow rounds after each of the two
    return ops.floor(ops.einsum("boh,bhwc->bowc", down, images) + 0.5)


def _weights(begins: Tensor, ends: Tensor, size: int) -> Tensor:
    """Return what each pixel weighs in each of the part that is scaled up to all of them, float32 [B, size, size]."""
    pixels = ops.arange(size, dtype="float32") + 0.5
    centres = begins[:, None] + pixels * (ends - begins)[:, None] / size  # [B, size]
    weights = ops.maximum(1 - ops.abs(centres[:, :, None] - pixels), 0.0)
    return weights / ops.sum(weights, axis=2, keepdims=True)


def _move(images: Tensor, kinds: Tensor, strengths: Tensor, colour: Tensor) -> Tensor:
    """Shear, shift or rotate, by bilinear interpolation at the place that each pixel comes from."""
    height, width, channels = images.shape[1:]
    (a, b, c), (d, e, f) = _matrix(kinds, strengths, height, width)
    rows, columns = ops.arange(height, dtype="float32") + 0.5, ops.arange(width, dtype="float32") + 0.5
    x = a[:, None, None] * columns + b[:, None, None] * rows[:, None] + c[:, None, None]  # [B, H, W]
    y = d[:, None, None] * columns + e[:, None, None] * rows[:, None] + f[:, None, None]
    across, down = ops.logical_and(x >= 0, x < width), ops.logical_and(y >= 0, y < height)
    left, top = ops.floor(x - 0.5), ops.floor(y - 0.5)
    flat = ops.reshape(images, (-1, height * width, channels))

    def pixels(row: Tensor, column: Tensor) -> Tensor:
        row, column = ops.clip(row, 0, height - 1), ops.clip(column, 0, width - 1)
        places = ops.reshape(ops.cast(row * width + column, "int32"), (-1, height * width, 1))
        return ops.reshape(ops.take_along_axis(flat, places, axis=1), (-1, height, width, channels))

    right, lower = (x - 0.5 - left)[..., None], (y - 0.5 - top)[..., None]
    above = pixels(top, left) * (1 - right) + pixels(top, left + 1) * right
    below = pixels(top + 1, left) * (1 - right) + pixels(top + 1, left + 1) * right
    found = ops.floor(above * (1 - lower) + below * lower)
    return ops.where(ops.logical_and(across, down)[..., None], found, colour)


def _matrix(
    kinds: Tensor, strengths: Tensor, height: int, width: int
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return (a, b, c), (d, e, f), each [B]: the pixel at x, y comes from ax + by + c, dx + ey + f."""

    def of(name: str, value: Tensor) -> Tensor:
        return ops.where(_of(kinds, name), value, 0.0)

    slope, angle = strengths * SHEAR, strengths * float(np.radians(ANGLE))
    sine = of("rotate", ops.sin(angle))
    cosine = 1 + of("rotate", ops.cos(angle) - 1)
    b, d = of("shear across", slope) - sine, of("shear down", slope) + sine
    # A shear and a rotation leave the middle where it is.
    c = width / 2 * (1 - cosine) - height / 2 * b + of("shift across", ops.round(strengths * SHIFT * width))
    f = height / 2 * (1 - cosine) - width / 2 * d + of("shift down", ops.round(strengths * SHIFT * height))
    return (cosine, b, c), (d, cosine, f)


def _blend(images: Tensor, kinds: Tensor, strengths: Tensor) -> Tensor:
    """Change brightness, colour, contrast or sharpness: go from a picture without any towards or beyond this one."""
    grey = ops.cast(images, "int32") * ops.convert_to_tensor(_GREY, "int32")
    grey = ops.cast((ops.sum(grey, axis=3, keepdims=True) + 32768) // 65536, "float32")  # [B, H, W, 1]
    mean = ops.floor(ops.mean(grey, axis=(1, 2), keepdims=True) + 0.5)
    without = _where(_of(kinds, "brightness"), 0.0, images)
    without = _where(_of(kinds, "colour"), grey, without)
    without = _where(_of(kinds, "contrast"), mean, without)
    without = _where(_of(kinds, "sharpness"), _smooth(images), without)
    blended = without + (1 + strengths * ENHANCE)[:, None, None, None] * (images - without)
    return ops.floor(ops.clip(blended, 0.0, 255.0))


def _smooth(images: Tensor) -> Tensor:
    """Return the mean of each pixel, five times, and its eight neighbours; the outermost pixels stay as they are."""
    height, width = images.shape[1:3]
    inner = 4 * images[:, 1:-1, 1:-1]
    for row in range(3):
        for column in range(3):
            inner = inner + images[:, row : height - 2 + row, column : width - 2 + column]
    inner = ops.pad(ops.floor(inner / 13 + 0.5), ((0, 0), (1, 1), (1, 1), (0, 0)))
    inside = np.zeros((height, width, 1), bool)
    inside[1:-1, 1:-1] = True
    return ops.where(inside, inner, images)


def _map_levels(images: Tensor, kinds: Tensor, strengths: Tensor) -> Tensor:
    """Posterize, solarize, or stretch each channel's levels to all of 0..255."""
    strong = ops.abs(strengths)[:, None, None, None]
    step = 2 ** ops.round(strong * BITS)
    threshold = ops.round(_LEVELS * (1 - strong))
    lowest, highest = ops.min(images, axis=(1, 2), keepdims=True), ops.max(images, axis=(1, 2), keepdims=True)
    several = highest > lowest
    stretched = ops.floor((images - lowest) * 255 / ops.where(several, highest - lowest, 1.0))
    changed = _where(_of(kinds, "posterize"), ops.floor(images / step) * step, images)
    changed = _where(_of(kinds, "solarize"), ops.where(images < threshold, images, 255 - images), changed)
    stretching = ops.logical_and(_of(kinds, "stretch contrast")[:, None, None, None], several)
    return ops.where(stretching, stretched, changed)


def _equalize(images: Tensor, kinds: Tensor) -> Tensor:
    """Spread each channel's levels by its histogram, as Pillow does."""
    height, width, channels = images.shape[1:]
    levels = ops.cast(ops.moveaxis(images, 3, 1), "int32")  # [B, C, H, W]
    rows = ops.reshape(levels, (-1, height * width))  # [B C, H W]
    places = rows + _LEVELS * ops.arange(rows.shape[0])[:, None]
    counts = ops.segment_sum(
        ops.ones_like(ops.reshape(places, (-1,))), ops.reshape(places, (-1,)), num_segments=rows.shape[0] * _LEVELS
    )
    counts = ops.reshape(counts, (-1, _LEVELS))  # [B C, 256]
    of_highest = ops.take_along_axis(counts, ops.max(rows, axis=1, keepdims=True), axis=1)
    step = (height * width - of_highest) // 255  # [B C, 1]
    table = (step // 2 + ops.cumsum(counts, axis=1) - counts) // ops.maximum(step, 1)
    spread = ops.minimum(ops.take_along_axis(table, rows, axis=1), 255)
    spread = ops.reshape(ops.where(step > 0, spread, rows), (-1, channels, height, width))
    return _where(_of(kinds, "equalize"), ops.cast(ops.moveaxis(spread, 1, 3), "float32"), images)
