"""Batches for asking a network: as many pictures as a bound on their pixels allows."""

from collections.abc import Iterator

from training.data.dataset import Pixels

# 5 pictures of 224x224. Run by Keras, a network holds the maps of all its layers, 130 MB for a picture of 260x260, and
# on a CPU larger batches are no faster.
_MOST_PIXELS = 2**18


def batch_of(height: int, width: int, most: int, pixels: int = _MOST_PIXELS) -> int:
    """Return how many pictures of this size are a batch: at most ``most``, fewer of large ones, at least one.

    Together they have at most as many ``pixels``, which are more where no network holds the maps of all of them.
    """
    return min(max(pixels // (height * width), 1), most)


def in_batches(images: Pixels, most: int) -> Iterator[Pixels]:
    """Yield ``images`` uint8 [N, H, W, 3] in their order, in batches of at most ``most``."""
    height, width = images.shape[1:3]
    size = batch_of(height, width, most)
    for begin in range(0, len(images), size):
        yield images[begin : begin + size]
