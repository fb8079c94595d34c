"""A network is never asked about more pixels at once than a bound allows."""

import numpy as np
import pytest

from training.data.batching import batch_of, in_batches


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 256), (224, 224, 5), (4096, 4096, 1)])
def test_large_pictures_come_in_small_batches(height: int, width: int, size: int) -> None:
    """Small ones as many as are asked for, larger ones by their pixels, and the largest one by one."""
    assert batch_of(height, width, most=500) == size


def test_every_picture_comes_once_and_in_its_place() -> None:
    """The last batch has what is left."""
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1).repeat(3, axis=3)
    batches = list(in_batches(images, most=3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images)
