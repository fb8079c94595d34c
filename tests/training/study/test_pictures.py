"""Augmented batches show the same pictures, moved as far as they may be, and the same ones after a resumption."""

from itertools import islice

import numpy as np
import pytest

from training.data.dataset import Dataset
from training.study.pictures import Batches, random_transforms, transform

IMAGES = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)


def _as_rows(*row: float) -> np.ndarray:
    return np.tile(np.array(row, np.float32), (len(IMAGES), 1))


def test_a_transform_moves_pixels_to_where_it_says() -> None:
    """Nothing, a shift by 3 columns, a mirror image and a quarter turn come out as NumPy makes them."""
    np.testing.assert_array_equal(transform(IMAGES, _as_rows(1, 0, 0, 0, 1, 0, 0, 0)), IMAGES)
    shifted = transform(IMAGES, _as_rows(1, 0, 3, 0, 1, 0, 0, 0))
    np.testing.assert_array_equal(shifted[:, :, :-3], IMAGES[:, :, 3:])
    np.testing.assert_array_equal(shifted[:, :, -3:], np.repeat(IMAGES[:, :, -1:], 3, axis=2))
    np.testing.assert_array_equal(transform(IMAGES, _as_rows(-1, 0, 31, 0, 1, 0, 0, 0)), IMAGES[:, :, ::-1])
    turned = transform(IMAGES, _as_rows(0, -1, 31, 1, 0, 0, 0, 0))
    np.testing.assert_array_equal(turned, np.rot90(IMAGES, axes=(1, 2)))


def test_random_transforms_stay_within_their_limits() -> None:
    """The centre moves by at most a tenth of the side, turns reach 10 degrees and no more, half are mirrored."""
    rows = random_transforms(np.random.default_rng(0), (5000, 20, 40, 3))
    a0, a1, a2, b0, b1, b2 = rows[:, :6].T.astype(np.float64)
    right = a0 * 19.5 + a1 * 9.5 + a2 - 19.5
    down = b0 * 19.5 + b1 * 9.5 + b2 - 9.5
    assert 3.9 < abs(right).max() < 4.001
    assert 1.9 < abs(down).max() < 2.001
    degrees = np.degrees(np.arctan2(-a1, b1))
    assert -10.001 < degrees.min() < -9.8
    assert 9.8 < degrees.max() < 10.001
    mirrored = a0 * b1 - a1 * b0 < 0
    assert 0.45 < mirrored.mean() < 0.55
    np.testing.assert_allclose(a0 * b1 - a1 * b0, np.where(mirrored, -1, 1), rtol=1e-5)  # nothing is stretched


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_epoch_is_the_one_that_was_missed(small: Dataset, epoch: int) -> None:
    """Beginning at an epoch gives the same batches as coming to it from the first; two epochs differ."""
    batches = Batches(small.train, 16, augment=True, seed=5)
    assert len(batches) == 3
    arrived = list(islice(batches.from_epoch(0), 3 * (epoch + 1)))[-3:]
    begun = list(islice(Batches(small.train, 16, augment=True, seed=5).from_epoch(epoch), 3))
    for expected, found in zip(arrived, begun, strict=True):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
    assert not np.array_equal(next(batches.epoch(0))[0], begun[0][0])


def test_without_augmentation_an_epoch_is_every_picture_as_it_is(small: Dataset) -> None:
    """Shuffling loses no picture, changes none and keeps classes with their pictures."""
    batches = Batches(small.train, 16, augment=False, seed=0)
    images, classes = (np.concatenate(part) for part in zip(*batches.epoch(0), strict=True))
    known = {image.tobytes(): number for image, number in zip(small.train.images, small.train.classes, strict=True)}
    assert {image.tobytes(): number for image, number in zip(images, classes, strict=True)} == known
    assert not np.array_equal(classes, small.train.classes)
