"""Splits and digests."""

import dataclasses

import numpy as np
import pytest

from training.data.dataset import Dataset, Split, hold_out
from training.errors import TrainingError


def _rejoin(dataset: Dataset, validation_images: int) -> Dataset:
    images = np.concatenate([dataset.train.images, dataset.validation.images])
    classes = np.concatenate([dataset.train.classes, dataset.validation.classes])
    joined = type(dataset.train)(images, classes)
    return hold_out(dataset.name, dataset.labels, joined, dataset.test, validation_images)


def test_the_last_training_images_are_held_out(small: Dataset) -> None:
    """Validation images come from the end, so that every run of a data set holds out the same."""
    other = _rejoin(small, 5)
    assert (len(other.train), len(other.validation)) == (55, 5)
    np.testing.assert_array_equal(other.validation.images, small.validation.images[-5:])


def test_the_digest_is_of_the_pictures_not_of_the_split(small: Dataset) -> None:
    """Holding out another share leaves the digest; changing one pixel, class or label does not."""
    assert _rejoin(small, 0).digest() == small.digest()
    before = small.digest()
    renamed = Dataset("small", ("a", "b", "d"), small.train, small.validation, small.test)
    assert renamed.digest() != before
    small.test.images[0, 0, 0, 0] ^= 1
    assert small.digest() != before


def _from_files(count: int) -> Split:
    pictures = np.arange(count, dtype=np.uint8)
    return Split(
        np.zeros((count, 2, 2, 3), np.uint8), pictures.astype(np.int64) % 2, np.repeat(pictures[:, None], 32, axis=1)
    )


def test_the_digest_of_files_does_not_depend_on_their_pixels() -> None:
    """Another size or share held out leaves it; a file, a class, or where the test begins do not."""
    files = _from_files(10)
    dataset = hold_out("files", ("a", "b"), files[:8], files[8:], 2)
    digest = dataset.digest()
    larger = Split(np.ones((10, 4, 4, 3), np.uint8), files.classes, files.files)
    assert hold_out("larger", ("a", "b"), larger[:8], larger[8:], 0).digest() == digest
    assert hold_out("files", ("a", "b"), files[:7], files[7:], 2).digest() != digest
    assert files.files is not None
    for changed in (
        Split(files.images, files.classes, files.files ^ (np.arange(10) == 3)[:, None].astype(np.uint8)),
        Split(files.images, files.classes ^ (np.arange(10) == 3), files.files),
    ):
        assert hold_out("changed", ("a", "b"), changed[:8], changed[8:], 2).digest() != digest


def test_pixels_that_were_made_of_files_count_themselves() -> None:
    """Where pictures are made of others, as by cropping, their files do not stand for them any more."""
    files = _from_files(10)
    dataset = hold_out("files", ("a", "b"), files[:8], files[8:], 2)
    cropped = dataclasses.replace(dataset, test=Split(files[8:].images[:, 1:], files[8:].classes))
    darker = dataclasses.replace(dataset, test=Split(files[8:].images[:, 1:] + 1, files[8:].classes))
    assert len({dataset.digest(), cropped.digest(), darker.digest()}) == 3


def test_holding_everything_out_is_an_error(small: Dataset) -> None:
    """There must be something to train on; the message has the numbers."""
    with pytest.raises(TrainingError, match="60 training images, so 60 cannot be held out"):
        _rejoin(small, 60)
