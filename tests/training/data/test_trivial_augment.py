"""TrivialAugment changes the share of pictures that it should, each in one way, and within its strengths."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.data.augmentation import Batches
from training.data.dataset import Dataset
from training.data.trivial_augment import CHANGES, change, draw_changes

pytestmark = pytest.mark.keras

_COLOUR = (1, 2, 3)


def _picture(height: int = 32, width: int = 24) -> Image.Image:
    """Return a picture whose red grows downwards, whose green grows to the right, and which has a stripe of blue."""
    rows, columns = np.mgrid[:height, :width]
    blue = np.where(columns == 4, 160, 128)
    return Image.fromarray(np.stack([60 + 4 * rows, 50 + 5 * columns, blue], axis=2).astype(np.uint8))


def _changed(name: str, strength: float) -> Any:
    """Return what a change makes of the picture, int [H, W, 3]."""
    return np.asarray(CHANGES[name](_picture(), strength, _COLOUR)).astype(int)


@pytest.mark.parametrize("name", sorted(CHANGES))
@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.7, 1.0])
def test_a_change_keeps_size_and_mode(name: str, strength: float) -> None:
    """Pictures that are no squares stay as large as they are, in red, green and blue."""
    changed = CHANGES[name](_picture(), strength, _COLOUR)
    assert (changed.size, changed.mode) == ((24, 32), "RGB")


@pytest.mark.parametrize("name", sorted(set(CHANGES) - {"stretch contrast", "equalize"}))
def test_a_change_of_no_strength_is_none(name: str) -> None:
    """Whatever has a strength leaves a picture alone at 0, and changes it at both ends, or it would be no change."""
    original = np.asarray(_picture()).astype(int)
    np.testing.assert_array_equal(_changed(name, 0.0), original)
    for strength in (-1.0, 1.0):
        assert (_changed(name, strength) != original).any() == (name != "nothing")


@pytest.mark.parametrize(("name", "axis", "pixels"), [("shift across", 1, 8), ("shift down", 0, 11)])
def test_a_shift_moves_by_at_most_a_third(name: str, axis: int, pixels: int) -> None:
    """At full strength a third of the picture leaves at one side, and the colour comes in at the other."""
    original = np.asarray(_picture()).astype(int)
    moved = np.moveaxis(_changed(name, 1.0), axis, 0)
    np.testing.assert_array_equal(moved[:-pixels], np.moveaxis(original, axis, 0)[pixels:])
    assert (moved[-pixels:] == _COLOUR).all()


@pytest.mark.parametrize("name", ["shear across", "shear down", "rotate"])
def test_a_change_of_shape_keeps_the_centre(name: str) -> None:
    """What stands in the middle stays there, and the colour fills the corners that become free."""
    original, turned = np.asarray(_picture()).astype(int), _changed(name, 1.0)
    assert np.abs(turned[15:17, 11:13] - original[15:17, 11:13]).max() <= 6
    assert (turned == _COLOUR).all(axis=2).any()


def test_brightness_goes_from_a_tenth_to_almost_twice() -> None:
    """The factors are those of the paper: 0.1 at one end, 1.9 at the other, where white is the limit."""
    original = np.asarray(_picture()).astype(int)
    np.testing.assert_allclose(_changed("brightness", -1.0), original * 0.1, atol=1)
    np.testing.assert_allclose(_changed("brightness", 1.0), np.minimum(original * 1.9, 255), atol=1)


def test_posterizing_and_solarizing_go_as_far_as_they_should() -> None:
    """At full strength four bits of each colour are left, and every colour is inverted."""
    original = np.asarray(_picture()).astype(int)
    np.testing.assert_array_equal(_changed("posterize", 1.0), original & 0xF0)
    np.testing.assert_array_equal(_changed("solarize", 1.0), 255 - original)


def test_the_share_given_is_changed(small: Dataset) -> None:
    """None at 0; at 1 nearly all, since one kind of change is none; others stay as they are, to the last bit."""
    for share, least, most in ((0.0, 0, 0), (0.5, 12, 30), (1.0, 36, 48)):
        images = small.train.images.copy()
        change(images, *draw_changes(48, share, np.random.default_rng(0)), np.array(_COLOUR, np.uint8))
        assert least <= (images != small.train.images).any(axis=(1, 2, 3)).sum() <= most


def test_epochs_change_pictures_anew_and_alike_with_the_same_seed(small: Dataset) -> None:
    """The network sees other changes in each epoch, and a resumed run those that it would have seen."""
    batches, again = (Batches(small.train, 3, 48, 0, change=1.0, flip=False, seed=1) for _ in range(2))
    first, second = ((images for images, _ in batches.epoch(number)) for number in (0, 1))
    (first_images,), (second_images,) = first, second
    ((again_images, _),) = again.epoch(1)
    np.testing.assert_array_equal(again_images, second_images)
    assert {image.tobytes() for image in first_images} != {image.tobytes() for image in second_images}
