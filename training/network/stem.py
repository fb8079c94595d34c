"""The network's first layers: pixels are normalised, and a fixed convolution whitens their patches.

The size of the patches follows from the size of the pictures alone, so that the map that enters the first group has at
most about 64x64 positions: up to 64x64 pixels there is a 2x2 patch at every pixel (arXiv 2404.00498, section 3.2);
larger pictures are cut into patches side by side, 4x4 at 224x224, as by ConvNeXt (Liu et al., arXiv 2201.03545, section
2.3). Of the whitening filters of such patches, those of the largest variance are kept.
"""

import math
from collections.abc import Iterator

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.data.dataset import Pixels, evenly_spaced
from training.errors import TrainingError

_CHANNELS = 3
_LARGEST_MAP = 64  # positions along a side, where the picture is a square
_LEAST_PATCH = 2
_MOST_DIRECTIONS = 24  # all 12 of 2x2 patches; 24 of 48 hold 99.8% of the variance of CIFAR-10's 4x4 patches
_FLOOR = 5e-4  # keeps directions that hold only noise from being blown up
_FEWEST, _MOST = 500, 5000  # pictures to measure on
_PIXELS = 20_000_000
_AT_ONCE = 100  # pictures in floating point at a time


def stem(images: keras.KerasTensor) -> keras.KerasTensor:
    """Append the layers to pictures [N, H, W, 3] in 0..255; the result is [N, about H / stride, W / stride, filters].

    Call ``fit_to_pixels`` before training.
    """
    patch, stride = patches(*images.shape[1:3])
    x = layers.Normalization(name="normalize", dtype="float32")(images)
    x = layers.Conv2D(_filters(patch), patch, stride, use_bias=False, trainable=False, name="whiten")(x)
    return layers.Activation("silu", name="whiten_activation")(x)


def patches(height: int, width: int) -> tuple[int, int]:
    """Return the side of the patches that are whitened, and their distance, both in pixels."""
    stride = math.ceil(math.sqrt(height * width) / _LARGEST_MAP)
    return max(stride, _LEAST_PATCH), stride


def require_size(height: int, width: int, groups: int) -> None:
    """Find out that pictures are too small for a network of so many groups, each of which halves the map.

    Raises:
        TrainingError: a map of at least one position would not reach the last group.
    """
    patch, stride = patches(height, width)
    positions = (min(height, width) - patch) // stride + 1
    if positions < 2**groups:
        raise TrainingError(
            f"pictures of {height}x{width} are too small for a network that halves them {groups} times; "
            f"make their shorter side at least {(2**groups - 1) * stride + patch} pixels"
        )


def fit_to_pixels(model: keras.Model, images: Pixels) -> None:
    """Set what follows from the pictures uint8 [N, H, W, 3] alone: mean and variance, and the whitening filters.

    Both are measured on at most 5,000 pictures, fewer of large ones, evenly spread: that is enough, and data that is
    sorted by class or larger than the memory is no obstacle.
    """
    count = min(max(_PIXELS // images[0, ..., 0].size, _FEWEST), _MOST)
    normalize, whiten = model.get_layer("normalize"), model.get_layer("whiten")
    *_, seen = normalize.get_weights()
    normalize.set_weights([*mean_and_variance(_parts(images, count)), seen])  # Keras's adapt needs TensorFlow for parts
    normalize.finalize_state()
    normalized = (keras.ops.convert_to_numpy(normalize(part)) for part in _parts(images, count))
    (patch, _), (stride, _) = whiten.kernel_size, whiten.strides
    whiten.set_weights([whitening_filters(normalized, patch, stride)])


def mean_and_variance(parts: Iterator[Pixels]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and variance of each channel, float64 [C], of pictures that ``parts`` yields, uint8 [N, H, W, C]."""
    count, total, squares = 0, np.zeros(_CHANNELS), np.zeros(_CHANNELS)
    for images in parts:
        pixels = images.reshape(-1, _CHANNELS).astype(np.float64)
        count += len(pixels)
        total += pixels.sum(axis=0)
        squares += np.square(pixels).sum(axis=0)
    mean = total / count
    return mean, squares / count - np.square(mean)


def whitening_filters(parts: Iterator[NDArray[np.float32]], patch: int, stride: int) -> NDArray[np.float32]:
    """Return the filters [patch, patch, 3, F] that decorrelate the patches of pictures, and their negatives.

    ``parts`` yields the pictures, float32 [N, H, W, 3]. The filters are the eigenvectors of the patches' covariance,
    scaled to unit variance (arXiv 2404.00498, section 3.2); of many, those of the largest eigenvalues.
    """
    products = np.zeros((patch * patch * _CHANNELS,) * 2)  # [D, D]
    count = 0
    for images in parts:
        windows = np.lib.stride_tricks.sliding_window_view(images, (patch, patch), axis=(1, 2))
        cut = (
            windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3).reshape(-1, patch * patch * _CHANNELS)
        )  # [M, D]
        products += cut.T @ cut
        count += len(cut)
    eigenvalues, eigenvectors = np.linalg.eigh(products / count)  # ascending
    kept = _filters(patch) // 2
    scaled = (eigenvectors / np.sqrt(eigenvalues + _FLOOR))[:, -kept:]  # [D, kept], a filter a column
    return np.concatenate([scaled, -scaled], axis=1).reshape(patch, patch, _CHANNELS, -1).astype(np.float32)


def _filters(patch: int) -> int:
    """Return the number of filters: two for each direction that is kept."""
    return 2 * min(patch * patch * _CHANNELS, _MOST_DIRECTIONS)


def _parts(images: Pixels, count: int) -> Iterator[Pixels]:
    """Yield at most ``count`` of ``images``, evenly spread, a few at a time."""
    chosen = evenly_spaced(len(images), count)
    for begin in range(0, len(chosen), _AT_ONCE):
        yield images[chosen[begin : begin + _AT_ONCE]]
