"""Batches are bounded by pixels: a network is never asked about more of them at once than memory is sure to hold."""

import numpy as np
import pytest

from training.data.batching import batch_of, in_batches


@pytest.mark.parametrize(
    ("height", "width", "most", "expected"),
    [(32, 32, 500, 500), (32, 32, 5000, 4096), (224, 224, 500, 83), (160, 480, 64, 54), (3000, 3000, 500, 1)],
)
def test_large_pictures_make_small_batches(height: int, width: int, most: int, expected: int) -> None:
    """A batch has as many pictures as four million pixels hold, at most what is asked for, and at least one."""
    assert batch_of(height, width, most) == expected


def test_batches_hold_all_pictures_in_their_order() -> None:
    """Nothing is left out or twice, also where the last batch is smaller."""
    images = np.arange(7, dtype=np.uint8).repeat(48).reshape(7, 4, 4, 3)
    batches = list(in_batches(images, 3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert (np.concatenate(batches) == images).all()
