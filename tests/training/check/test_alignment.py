"""One picture laid over another tells copies and parts from pictures that are merely alike."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.photographs import photographs
from training.check.alignment import SIDE, likenesses
from training.check.duplicates import LEAST_LIKENESS
from training.data.dataset import Pixels


def copy(image: Image.Image) -> Pixels:
    """Return the small copy of a picture, uint8 [SIDE, SIDE]."""
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def cropped(image: Image.Image) -> Image.Image:
    """Keep 0.8 of each side."""
    width, height = image.size
    return image.crop((width // 10, height // 20, width // 10 + width * 4 // 5, height // 20 + height * 4 // 5))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((image.width // 3, image.height // 3)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "mirrored": ImageOps.mirror,
    "cropped": cropped,
    "cropped and mirrored": lambda image: ImageOps.mirror(cropped(image)),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_changed_copy_is_recognised(name: str) -> None:
    """Whatever was done to it, either one given first."""
    for image in photographs():
        copies = np.stack([copy(image), copy(CHANGES[name](image))])
        for pairs in ([[0, 1]], [[1, 0]]):
            assert likenesses(copies, np.array(pairs))[0] > LEAST_LIKENESS


def test_other_pictures_are_not() -> None:
    """Three photographs have nothing in common, nor has a picture that shows nothing with any."""
    copies = np.stack([*map(copy, photographs()), np.full((SIDE, SIDE), 200, np.uint8)])
    pairs = np.array([(one, other) for one in range(4) for other in range(one)])
    assert likenesses(copies, pairs).max() < 0.5


def test_no_pairs_are_no_work() -> None:
    """A folder in which nothing is alike is no special case."""
    assert likenesses(np.zeros((3, SIDE, SIDE), np.uint8), np.empty((0, 2), np.int64)).shape == (0,)
