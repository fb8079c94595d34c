"""Augmentation changes what it should, by as much as it should, and is the same after an interruption."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from training.augment import Batch, Batches, cut_out, pad, shift
from training.dataset import Dataset, Pixels


def _batches(dataset: Dataset, *, translation: int = 0, flip: bool = True, size: int = 8) -> Batches:
    return Batches(dataset.train, 3, size, translation, flip=flip, seed=1)


def _by_picture(batches: Iterator[Batch], originals: Pixels) -> dict[int, bool]:
    """Return for each picture seen, by its index, whether it was mirrored."""
    seen = {}
    for images, _ in batches:
        for image in images:
            for index, original in enumerate(originals):
                if (image == original).all():
                    seen[index] = False
                elif (image == original[:, ::-1]).all():
                    seen[index] = True
    return seen


def test_an_epoch_holds_every_picture_once_with_its_class(small: Dataset) -> None:
    """Shuffling loses no picture, repeats none, and keeps classes with their pictures."""
    batches = _batches(small, flip=False)
    assert len(batches) == 6
    images, one_hot = (np.concatenate(part) for part in zip(*batches.epoch(0), strict=True))
    for image, encoded in zip(images, one_hot, strict=True):
        (index,) = np.flatnonzero((small.train.images == image).all(axis=(1, 2, 3)))
        assert encoded.tolist() == np.eye(3)[small.train.classes[index]].tolist()
    assert len({image.tobytes() for image in images}) == 48


def test_two_epochs_show_both_views_of_every_picture(small: Dataset) -> None:
    """Mirroring alternates: what is mirrored in one epoch is not in the next."""
    batches = _batches(small)
    first, second = (_by_picture(batches.epoch(number), small.train.images) for number in (4, 5))
    assert len(first) == 48
    assert 0 < sum(first.values()) < 48
    assert second == {index: not mirrored for index, mirrored in first.items()}


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_resumed_epoch_is_the_one_that_was_missed(small: Dataset, epoch: int) -> None:
    """Beginning at an epoch gives the same batches as coming to it from the first, with the same seed."""
    batches, again = _batches(small, translation=2), _batches(small, translation=2)
    arrived = islice(batches.from_epoch(0), epoch * len(batches), (epoch + 2) * len(batches))
    begun = islice(again.from_epoch(epoch), 2 * len(again))
    for expected, found in zip(arrived, begun, strict=True):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_a_shift_moves_by_the_pixels_given(small: Dataset) -> None:
    """A shift of the padding's width is none; one more row moves the picture up by one and mirrors its edge."""
    images = small.train.images[:3]
    padded = pad(images, 2)
    np.testing.assert_array_equal(shift(padded, np.full((3, 2), 2), 2), images)
    moved = shift(padded, np.array([[3, 2], [2, 0], [2, 2]]), 2)
    np.testing.assert_array_equal(moved[0, :-1], images[0, 1:])
    np.testing.assert_array_equal(moved[0, -1], images[0, -2])
    np.testing.assert_array_equal(moved[1, :, 2:], images[1, :, :-2])
    np.testing.assert_array_equal(moved[2], images[2])


def test_cutout_blanks_one_square_of_each_picture(small: Dataset) -> None:
    """Inside the square is the colour given, outside nothing changes, and the squares lie at different places."""
    images = small.train.images.copy()
    cut_out(images, 8, np.array([1, 2, 3], np.uint8), np.random.default_rng(0))
    changed = (images != small.train.images).any(axis=3)  # [N, 32, 32]
    corners = set()
    for mask, image in zip(changed, images, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert (len(rows), len(columns)) == (8, 8)
        assert (image[rows[0] : rows[0] + 8, columns[0] : columns[0] + 8] == (1, 2, 3)).all()
        assert mask.sum() <= 64
        corners.add((rows[0], columns[0]))
    assert len(corners) > 20


def test_fewer_pictures_than_a_batch_make_one_smaller_batch(small: Dataset) -> None:
    """A data set smaller than the batch size still trains."""
    assert len(_batches(small, size=1000)) == 1
    assert [images.shape for images, _ in _batches(small, size=1000).epoch(0)] == [(48, 32, 32, 3)]
