"""Augmentation in operations of Keras makes the pictures that NumPy and Pillow make of the same plan."""

import keras
import numpy as np
import pytest

from training.data.augmentation import Batches, Plan
from training.data.dataset import Pixels, Split
from training.data.device_augmentation import augment
from training.data.trivial_augment import CHANGES, change

pytestmark = pytest.mark.keras

_COLOUR = np.array([90, 120, 60], np.uint8)


def _pictures(count: int, height: int, width: int) -> Pixels:
    """Return pictures uint8 [count, H, W, 3] with smooth parts, edges, noise and, of some, few levels."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:height, :width]
    angles = rng.uniform(0, 2 * np.pi, size=(count, 1, 1, 3))
    waves = np.sin(down[..., None] / 5 * np.cos(angles) + across[..., None] / 5 * np.sin(angles))
    images = 128 + 90 * waves + rng.normal(0, 12, size=(count, height, width, 3))
    images[::7] = images[::7] // 64 * 64
    images[3] = 77.0  # a single level, which nothing spreads
    pictures: Pixels = np.clip(images, 0, 255).astype(np.uint8)
    return pictures


def _augmented(images: Pixels, plan: Plan, translation: int = 0, cutout: int = 0, colour: Pixels = _COLOUR) -> Pixels:
    made = augment(images, plan, translation, cutout, colour.astype(np.float32))
    return np.array(keras.ops.convert_to_numpy(made), np.uint8)


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_change_is_that_of_pillow(name: str) -> None:
    """Of 64 pictures and strengths, all but a thousandth of the pixels are within two levels, 99% within one.

    Those that are not lie at an edge of the moved picture, where the last bit decides what is outside.
    """
    images = _pictures(64, 32, 24)
    kinds, strengths = np.full(64, list(CHANGES).index(name)), np.linspace(-1, 1, 64)
    expected = images.copy()
    change(expected, kinds, strengths, _COLOUR)
    found = _augmented(images, Plan(np.arange(64), None, None, None, kinds, strengths, None))
    gaps = np.abs(found.astype(int) - expected.astype(int))
    assert (gaps > 2).mean() < 1e-3
    assert (gaps > 1).mean() < 1e-2
    if name in ("nothing", "shift across", "shift down", "posterize", "solarize", "equalize"):
        assert (gaps == 0).all()


@pytest.mark.parametrize(("crop", "level"), [(1.0, 0), (0.5, 1)])
def test_a_batch_is_that_of_the_host(crop: float, level: int) -> None:
    """Shifts, mirroring and cutout are exact; crops are within a level of Pillow's."""
    split = Split(_pictures(96, 24, 32), np.arange(96) % 3)
    batches = Batches(split, 3, 32, 3, cutout=6, crop=crop, flip=True, seed=5)
    seen = 0
    for plan, (expected, _) in zip(batches.plans(1), batches.epoch(1), strict=True):
        found = _augmented(split.images[plan.chosen], plan, 3, 6, batches.colour)
        gaps = np.abs(found.astype(int) - expected.astype(int))
        assert gaps.max() <= level
        assert (expected != split.images[plan.chosen]).any(axis=(1, 2, 3)).all()
        seen += len(plan.chosen)
    assert seen == 96


def test_the_kinds_of_a_plan_are_done_at_once() -> None:
    """In a batch of all kinds each picture gets its own change, after shift and mirror and before cutout."""
    split = Split(_pictures(200, 32, 32), np.arange(200) % 3)
    batches = Batches(split, 3, 200, 4, cutout=8, change=1.0, flip=True, seed=2)
    [plan], [(expected, _)] = batches.plans(0), batches.epoch(0)
    assert plan.kinds is not None
    assert len(set(plan.kinds.tolist())) == len(CHANGES)
    found = _augmented(split.images[plan.chosen], plan, 4, 8, batches.colour)
    gaps = np.abs(found.astype(int) - expected.astype(int))
    assert (gaps > 2).mean() < 1e-3
    assert (gaps > 1).mean() < 1e-2
