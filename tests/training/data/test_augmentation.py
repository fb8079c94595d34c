"""Augmentation changes what it should, by as much as it should, and is the same after an interruption."""

import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from training.data.augmentation import (
    Batch,
    Batches,
    InOrder,
    crop,
    cut_out,
    draw_boxes,
    draw_corners,
    pad,
    quotas,
    repeat,
    shift,
)
from training.data.dataset import Dataset, Pixels, Split, evenly_spaced

pytestmark = pytest.mark.keras


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
    places = draw_corners(len(images), 32, 32, 8, np.random.default_rng(0))
    cut_out(images, places, 8, np.array([1, 2, 3], np.uint8))
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


def test_a_split_in_a_file_is_augmented_alike_and_stays_there(tmp_path: Path) -> None:
    """Pictures that are mapped from a file give the same batches, and are never all in memory."""
    images = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=(8000, 32, 32, 3))
    images[:] = np.random.default_rng(0).integers(256, size=images.shape, dtype=np.uint8)
    mapped = Split(np.asarray(images), np.arange(8000) % 3)
    in_memory = Split(images.copy(), mapped.classes)
    tracemalloc.start()
    try:
        batches = Batches(mapped, 3, 20, 2, flip=True, seed=1)
        for (found, _), (expected, _) in zip(
            islice(batches.epoch(0), 5), Batches(in_memory, 3, 20, 2, flip=True, seed=1).epoch(0), strict=False
        ):
            np.testing.assert_array_equal(found, expected)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 4


def test_validation_pictures_come_as_they_are(small: Dataset) -> None:
    """The batches that a network is validated with are the split, unchanged and in order, the last one smaller."""
    batches = InOrder(small.validation, classes=3, batch_size=5)
    parts = [batches[index] for index in range(len(batches))]
    assert [len(images) for images, _ in parts] == [5, 5, 2]
    images, one_hot = (np.concatenate(part) for part in zip(*parts, strict=True))
    np.testing.assert_array_equal(images, small.validation.images)
    np.testing.assert_array_equal(one_hot.argmax(axis=1), small.validation.classes)
    assert one_hot.sum() == 12


@pytest.mark.parametrize(("pictures", "batches"), [(2, 1), (3, 1), (10, 1), (37, 4)])
def test_very_few_pictures_make_whole_batches(small: Dataset, pictures: int, batches: int) -> None:
    """Two pictures train as well: every batch is full, and over some epochs each picture is seen."""
    few = Split(small.train.images[:pictures], small.train.classes[:pictures])
    made = Batches(few, 3, 8, 1, cutout=8, crop=0.5, flip=True, seed=0)
    assert len(made) == batches
    assert [len(images) for images, _ in made.epoch(0)] == [min(8, pictures)] * batches
    unchanged = Batches(few, 3, 8, 0, flip=False, seed=0)
    seen = {image.tobytes() for images, _ in islice(unchanged.from_epoch(0), 20 * batches) for image in images}
    assert seen == {image.tobytes() for image in few.images}


def test_a_random_crop_shows_a_part_of_the_picture() -> None:
    """Of a slope from black to white a part of at least half the area is scaled to the whole, anywhere in it."""
    slope = np.broadcast_to(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (200, 48, 64, 3))
    cropped = crop(slope, draw_boxes(200, 48, 64, 0.5, np.random.default_rng(0)))
    assert cropped.shape == slope.shape
    assert cropped.dtype == np.uint8
    lefts, rights = cropped[:, 0, 0, 0].astype(int), cropped[:, 0, -1, 0].astype(int)
    widths = (rights - lefts) / 252  # shares of the picture's width
    assert np.sqrt(0.5 * 3 / 4) - 0.05 < widths.min() < 0.75
    assert widths.max() > 0.95
    assert len(set(lefts.tolist())) > 20
    whole = crop(slope, draw_boxes(200, 48, 64, 1.0, np.random.default_rng(0)))
    np.testing.assert_allclose(whole[:, :, 32].mean(), 130, atol=8)


def test_rare_classes_are_shown_more_often() -> None:
    """An epoch shows a class of a hundredth of the pictures sqrt(100 / 3) times as often, common ones as they are."""
    assert quotas(np.array([50, 50])).tolist() == [50, 50]
    assert quotas(np.array([890, 100, 10])).tolist() == [890, 183, 58]
    assert quotas(np.array([30, 0])).tolist() == [30, 0]


def test_a_quota_takes_all_pictures_of_a_class_in_turn() -> None:
    """Of three pictures that are to be shown seven times none comes less than twice, and of many a part comes once."""
    classes = np.array([0] * 3 + [1] * 20)
    chosen = repeat(classes, np.array([7, 5]), np.random.default_rng(0))
    times = np.bincount(chosen, minlength=23)
    assert sorted(times[:3].tolist()) == [2, 2, 3]
    assert sorted(set(times[3:].tolist())) == [0, 1]
    assert times[3:].sum() == 5


def test_balanced_epochs_hold_their_quotas(small: Dataset) -> None:
    """Every epoch has as many pictures of a class as its quota says, with the right classes, and may be resumed."""
    uneven = Split(small.train.images[:40], np.array([0] * 36 + [1] * 4))
    made = Batches(uneven, 2, 1, 0, balance=True, flip=False, seed=0)
    wanted = quotas(np.array([36, 4]))
    assert wanted.tolist() == [36, 9]
    for epoch in (0, 1):
        batches = list(made.epoch(epoch))
        shown = np.concatenate([one_hot for _, one_hot in batches]).sum(axis=0)
        assert shown.tolist() == wanted.tolist()
        rare = {image.tobytes() for image in uneven.images[36:]}
        assert all((one_hot[0, 1] == 1) == (images[0].tobytes() in rare) for images, one_hot in batches)
    np.testing.assert_array_equal(next(made.epoch(1))[0], next(islice(made.from_epoch(0), 45, None))[0])


def test_pictures_are_spread_over_the_data() -> None:
    """The first and the last are among them, none twice, and all where there are few."""
    assert evenly_spaced(9, 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly_spaced(3, 5).tolist() == [0, 1, 2]
