"""Pictures of nothing that a classifier was trained on, to measure whether its score ``familiarity`` tells them apart.

The same call draws the same pictures. Some kinds are made up, one is of real pictures, and some are made of those that
the classifier knows: these are the hardest, since all their colours and small details are familiar.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.data.dataset import Pixels

_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghkmnpqrstuvwxyz23456789"
_TILES = 4  # in each direction
_JULIA_STEPS = 24

Draw = Callable[[np.random.Generator, Pixels], Pixels]
"""Random numbers and the known pictures uint8 [N, H, W, 3] -> one picture uint8 [H, W, 3]."""


def draw(kind: str, known: Pixels, count: int) -> Pixels:
    """Return ``count`` pictures of one of ``KINDS``, uint8 [count, H, W, 3], as large as those of ``known``."""
    rng = np.random.default_rng(list(KINDS).index(kind))
    _, one = KINDS[kind]
    return np.stack([one(rng, known) for _ in range(count)])


def _noise(rng: np.random.Generator, known: Pixels) -> Pixels:
    return rng.integers(256, size=known.shape[1:], dtype=np.uint8)


def _blobs(rng: np.random.Generator, known: Pixels) -> Pixels:
    return _resized(rng.integers(256, size=(4, 4, 3), dtype=np.uint8), known)


def _flat(rng: np.random.Generator, known: Pixels) -> Pixels:
    return np.broadcast_to(_colour(rng), known.shape[1:]).astype(np.uint8)


def _gradient(rng: np.random.Generator, known: Pixels) -> Pixels:
    ramp = _along(rng, known)
    return _mixed(rng, (ramp - ramp.min()) / max(np.ptp(ramp), 1e-9))


def _stripes(rng: np.random.Generator, known: Pixels) -> Pixels:
    return _mixed(rng, np.sin(_along(rng, known) * rng.uniform(2, 8) * 2 * np.pi) > 0)


def _fractal(rng: np.random.Generator, known: Pixels) -> Pixels:
    """Draw a Julia set: how soon z -> z^2 + c leaves the disc of radius 2, c being near the Mandelbrot set's edge."""
    angle, zoom = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.4)
    c = (0.5 * np.exp(1j * angle) - 0.25 * np.exp(2j * angle)) * 1.05  # the main cardioid, a little outside
    rows, columns = _centred(known)
    z = (columns + 1j * rows) * 2 * zoom
    steps = np.zeros(z.shape)
    for _ in range(_JULIA_STEPS):
        inside = np.abs(z) < 2
        steps += inside
        z = np.where(inside, z * z + c, z)
    return _mixed(rng, steps / _JULIA_STEPS)


def _text(rng: np.random.Generator, known: Pixels) -> Pixels:
    height, width = known.shape[1:3]
    back, front = (tuple(map(int, _colour(rng))) for _ in range(2))
    picture = Image.new("RGB", (width, height), back)
    letters = "".join(rng.choice(list(_LETTERS), size=rng.integers(1, 4)))
    font = _font(round(min(height, width) * rng.uniform(0.4, 0.7)))
    ImageDraw.Draw(picture).text((width / 2, height / 2), letters, fill=front, font=font, anchor="mm")
    return np.asarray(picture)


def _digit(rng: np.random.Generator, known: Pixels) -> Pixels:
    digits = _handwriting()
    grey = digits[rng.integers(len(digits))]  # [8, 8]
    return _resized(np.repeat(grey[..., np.newaxis], 3, axis=2), known)


def _shuffled(rng: np.random.Generator, known: Pixels) -> Pixels:
    picture: Pixels = known[rng.integers(len(known))].copy()
    height, width = picture.shape[0] // _TILES, picture.shape[1] // _TILES
    corners = [(row * height, column * width) for row in range(_TILES) for column in range(_TILES)]
    tiles = [picture[row : row + height, column : column + width].copy() for row, column in corners]
    for (row, column), tile in zip(corners, rng.permutation(len(tiles)), strict=True):
        picture[row : row + height, column : column + width] = tiles[tile]
    return picture


def _blended(rng: np.random.Generator, known: Pixels) -> Pixels:
    one, other = known[rng.choice(len(known), size=2, replace=len(known) < 2)]
    blended: Pixels = one // 2 + other // 2
    return blended


KINDS: dict[str, tuple[str, Draw]] = {
    "noise": ("every pixel of a colour of its own", _noise),
    "blobs": ("soft spots of random colours", _blobs),
    "flat": ("one colour", _flat),
    "gradients": ("from one colour to another, in any direction", _gradient),
    "stripes": ("of two colours, in any direction", _stripes),
    "fractals": ("Julia sets in two colours", _fractal),
    "text": ("one to three letters or figures on one colour", _text),
    "digits": ("real handwriting, from the 8x8 scans that come with scikit-learn", _digit),
    "shuffled": ("pictures of the test set, cut into 4x4 tiles that are put together anew", _shuffled),
    "blended": ("two pictures of the test set, one seen through the other", _blended),
}
"""What each kind is, in words, and what draws one picture of it."""


def _colour(rng: np.random.Generator) -> Pixels:
    return rng.integers(256, size=3, dtype=np.uint8)


def _mixed(rng: np.random.Generator, share: NDArray[np.generic]) -> Pixels:
    """Mix two random colours by ``share`` [H, W], from 0 to 1."""
    back, front = _colour(rng).astype(float), _colour(rng).astype(float)
    mixed: Pixels = (back + share[..., np.newaxis] * (front - back)).astype(np.uint8)
    return mixed


def _centred(known: Pixels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each pixel's row and column, from -1 to 1, both [H, W]."""
    height, width = known.shape[1:3]
    rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    return rows, columns


def _along(rng: np.random.Generator, known: Pixels) -> NDArray[np.float64]:
    """Return how far each pixel lies in a random direction, [H, W]."""
    rows, columns = _centred(known)
    angle = rng.uniform(0, 2 * np.pi)
    along: NDArray[np.float64] = (np.sin(angle) * rows + np.cos(angle) * columns) / 2
    return along


def _resized(picture: Pixels, known: Pixels) -> Pixels:
    height, width = known.shape[1:3]
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib."""
    import matplotlib as mpl

    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", max(size, 1))


@cache
def _handwriting() -> Pixels:
    """Return the 1,797 digits of the UCI data set that comes with scikit-learn, uint8 [1797, 8, 8]."""
    from sklearn.datasets import load_digits

    digits: Pixels = (load_digits().images * (255 / 16)).astype(np.uint8)
    return digits
