"""Splits and digests."""

import numpy as np
import pytest

from training.data.dataset import Dataset, hold_out
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


def test_holding_everything_out_is_an_error(small: Dataset) -> None:
    """There must be something to train on; the message has the numbers."""
    with pytest.raises(TrainingError, match="60 training images, so 60 cannot be held out"):
        _rejoin(small, 60)
