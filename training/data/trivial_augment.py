"""TrivialAugment: one random change of colour or shape, of random strength, for each picture.

From Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation" (arXiv 2103.10158), with
the changes and strengths of RandAugment, which it calls the space RA. Pillow makes the changes.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from training.data.dataset import Pixels

# How strong a change is at most.
SHEAR = 0.3  # of the height or width
SHIFT = 1 / 3  # of the height or width
ANGLE = 30.0  # degrees
ENHANCE = 0.9  # factors from 0.1 to 1.9; 1 changes nothing
BITS = 4  # of 8 that posterizing takes away

_Enhancer = ImageEnhance.Brightness | ImageEnhance.Color | ImageEnhance.Contrast | ImageEnhance.Sharpness

Colour = tuple[int, ...]
Change = Callable[[Image.Image, float, Colour], Image.Image]
"""A picture, a strength in -1..1 and the colour of what lies outside of the picture -> the changed picture."""


def _affine(image: Image.Image, matrix: tuple[float, ...], colour: Colour) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=colour)


def _shear_x(image: Image.Image, strength: float, colour: Colour) -> Image.Image:
    slope = strength * SHEAR
    return _affine(image, (1, slope, -slope * image.height / 2, 0, 1, 0), colour)


def _shear_y(image: Image.Image, strength: float, colour: Colour) -> Image.Image:
    slope = strength * SHEAR
    return _affine(image, (1, 0, 0, slope, 1, -slope * image.width / 2), colour)


def _shift_x(image: Image.Image, strength: float, colour: Colour) -> Image.Image:
    return _affine(image, (1, 0, round(strength * SHIFT * image.width), 0, 1, 0), colour)


def _shift_y(image: Image.Image, strength: float, colour: Colour) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, round(strength * SHIFT * image.height)), colour)


def _rotate(image: Image.Image, strength: float, colour: Colour) -> Image.Image:
    return image.rotate(strength * ANGLE, Image.Resampling.BILINEAR, fillcolor=colour)


def _enhance(kind: type[_Enhancer]) -> Change:
    return lambda image, strength, _colour: kind(image).enhance(1 + strength * ENHANCE)


def _posterize(image: Image.Image, strength: float, _colour: Colour) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(abs(strength) * BITS))


def _solarize(image: Image.Image, strength: float, _colour: Colour) -> Image.Image:
    return ImageOps.solarize(image, round(256 * (1 - abs(strength))))


CHANGES: dict[str, Change] = {
    "nothing": lambda image, _strength, _colour: image,
    "shear across": _shear_x,
    "shear down": _shear_y,
    "shift across": _shift_x,
    "shift down": _shift_y,
    "rotate": _rotate,
    "brightness": _enhance(ImageEnhance.Brightness),
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "posterize": _posterize,
    "solarize": _solarize,
    "stretch contrast": lambda image, _strength, _colour: ImageOps.autocontrast(image),
    "equalize": lambda image, _strength, _colour: ImageOps.equalize(image),
}
"""The fourteen changes by their names."""


def draw_changes(count: int, share: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the numbers of the changes of ``count`` pictures in ``CHANGES`` and their strengths, -1 to 1.

    About ``share`` of the pictures get one at random, the others the first, which is none.
    """
    chosen = np.flatnonzero(rng.random(count) < share)
    kinds, strengths = np.zeros(count, np.int64), np.zeros(count)
    kinds[chosen] = rng.integers(len(CHANGES), size=len(chosen))
    strengths[chosen] = rng.uniform(-1, 1, size=len(chosen))
    return kinds, strengths


def change(images: Pixels, kinds: NDArray[np.int64], strengths: NDArray[np.float64], colour: Pixels) -> None:
    """Change ``images`` uint8 [N, H, W, 3] in place, each by its kind and strength of ``draw_changes``.

    ``colour`` [3] is outside of every picture.
    """
    changes = list(CHANGES.values())
    fill = tuple(colour.tolist())
    for index in np.flatnonzero(kinds).tolist():
        changed = changes[kinds[index]](Image.fromarray(images[index]), float(strengths[index]), fill)
        images[index] = np.asarray(changed)
