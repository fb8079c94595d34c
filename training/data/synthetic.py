"""Made-up pictures for a quick run of the whole path: coloured shapes that a small network learns in seconds."""

import numpy as np

from training.data.dataset import Pixels, Split

LABELS = ("disc", "square", "stripes")
_SIDE = 32


def load(train_images: int, test_images: int, seed: int) -> tuple[tuple[str, ...], Split, Split]:
    """Draw noisy 32x32 pictures of three shapes in random colours; the same seed draws the same pictures."""
    rng = np.random.default_rng(seed)
    return LABELS, _draw(rng, train_images), _draw(rng, test_images)


def _draw(rng: np.random.Generator, count: int) -> Split:
    classes = rng.integers(len(LABELS), size=count)
    images = np.stack([_picture(rng, LABELS[number]) for number in classes])
    return Split(images, classes.astype(np.int64))


def _picture(rng: np.random.Generator, label: str) -> Pixels:
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    row, column = rng.integers(12, 20, size=2)
    radius = rng.integers(6, 11)
    if label == "disc":
        shape = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    elif label == "square":
        shape = np.maximum(abs(rows - row), abs(columns - column)) <= radius
    else:
        shape = (rows + row) // 4 % 2 == 0
    back, front = rng.integers(0, 90, size=3), rng.integers(160, 256, size=3)
    clean = np.where(shape[..., None], front, back)  # [32, 32, 3]
    return np.clip(clean + rng.normal(0, 12, clean.shape), 0, 255).astype(np.uint8)
