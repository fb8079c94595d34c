"""A recipe that follows from the data, for data that no preset was made for.

| | a network trained from nothing | a pretrained backbone |
|---|---|---|
| batch | a sixteenth of the pictures: 8 to 512 at 32x32, to 128 at 224x224; never more than all | 8 to 64, or 16 |
| epochs | 28 for 50,000 pictures, as CIFAR-10 has; else by the inverse root, 10 to 100 | 12 up to 5,000, to 3 |
| steps | at least 400, by more epochs | at least 200 |
| mirrored | always | always |
| shifted | by a sixteenth of the shorter side, by an eighth below 50,000 pictures | no |
| cutout | of a quarter of the shorter side below 50,000 pictures | no |
| cropped | in place of shifts below 10,000 pictures, to at least half the area | the same, always |

By the inverse root, a quarter of the pictures get twice the epochs and half the steps. Where the largest class has more
than three times as many pictures as the smallest, rare classes are shown more often
(``training.data.augmentation.quotas``). Where pictures may have several labels, crops keep four fifths of the area, so
that they seldom lose what a label is about, and none is shown more often, since others' labels would come along.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.augmentation import quotas
from training.data.dataset import Dataset
from training.fit.recipe import Recipe
from training.network.stem import patches

PRESET = "from the data"
_UNEVEN = 3
_FEWEST_STEPS, _FEWEST_TUNING_STEPS = 400, 200
_PLENTY, _LITTLE = 50_000, 10_000  # pictures
_LEAST_BATCH, _LARGEST_TUNING_BATCH = 8, 64
_TUNING_PIXELS = 2**20  # of a batch
_POSITIONS = 2**19  # of the maps that enter the first group, over a batch
_CROP, _CROP_OF_SEVERAL = 0.5, 0.8


def for_data(
    dataset: Dataset,
    *,
    backbone: str | None = None,
    backbone_weights: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
) -> Recipe:
    """Return a recipe for ``dataset``; what is given is taken as it is.

    A pretrained backbone is tuned from a head that fits it already (``training.fit.head``): with one small rate for
    both, 1e-4 at a batch of 32, as Kumar et al. (arXiv 2202.10054) tune such heads.
    """
    count = len(dataset.train)
    recipe = Recipe(
        preset=PRESET,
        batch_size=min(batch_size or _batch_size(dataset, backbone), count),
        balance=not dataset.multi_label and _unevenness(dataset) > _UNEVEN,
        backbone=backbone,
        backbone_weights=backbone_weights,
        seed=seed or 0,
    )
    if backbone:
        recipe = replace(recipe, learning_rate=4e-3, weight_decay=0.05, warmup=0.1, label_smoothing=0.1)
    if recipe.pretrained:
        recipe = replace(recipe, learning_rate=4e-4, weight_decay=0.01, head_share=0.0, backbone_rate=1.0)
    recipe = replace(recipe, **_augmentation(dataset, tuning=recipe.pretrained))
    epochs = epochs or _epochs(count, steps_per_epoch(dataset, recipe), tuning=recipe.pretrained)
    return replace(recipe, epochs=epochs, average_epochs=epochs / 28)  # of 28 epochs, the last one is averaged


def with_head_phase(recipe: Recipe) -> Recipe:
    """Return ``recipe`` for a pretrained network whose head knows nothing yet: that one learns alone to begin with.

    The rates are those with which such networks are commonly tuned: 1e-3 for the head at a batch of 32, as in Keras's
    guide, and a twentieth of it below (the guide's 1e-5 is constant, this falls to zero).
    """
    if not recipe.pretrained or recipe.head_share:
        return recipe
    return replace(recipe, learning_rate=4e-3, weight_decay=0.05, head_share=0.3, backbone_rate=0.05)


def minutes(pictures: int) -> float:
    """Return how long a pretrained network is tuned unless it is said: half a second a picture, 8 to 25 minutes."""
    return min(max(pictures / 120, 8.0), 25.0)


def steps_per_epoch(dataset: Dataset, recipe: Recipe) -> int:
    """Return the number of batches that ``training.data.augmentation.Batches`` makes of an epoch."""
    pictures = int(quotas(_counts(dataset)).sum()) if recipe.balance else len(dataset.train)
    return pictures // recipe.batch_size


def explain(dataset: Dataset, recipe: Recipe) -> str:
    """Say in one line what was chosen for ``dataset``, and why."""
    height, width, _ = dataset.input_shape
    steps = recipe.epochs * steps_per_epoch(dataset, recipe)
    changes = [
        "mirrored" if recipe.flip else "",
        f"shifted by up to {recipe.translation} pixels" if recipe.translation else "",
        f"cropped to at least {recipe.crop:.0%}" if recipe.crop < 1 else "",
        f"with {recipe.cutout}x{recipe.cutout} pixels blanked" if recipe.cutout else "",
    ]
    line = (
        f"Chosen for {len(dataset.train):,} pictures of {height}x{width}: {recipe.epochs} epochs in batches of "
        f"{recipe.batch_size} ({steps:,} steps); pictures {', '.join(change for change in changes if change)}"
    )
    if recipe.balance:
        line += f"; rare classes more often, since the largest is {_unevenness(dataset):.3g} times the smallest"
    return f"{line}."


def _counts(dataset: Dataset) -> NDArray[np.int64]:
    return np.bincount(dataset.train.classes, minlength=len(dataset.labels))


def _unevenness(dataset: Dataset) -> float:
    """Return how many times as many training pictures the largest class has as the smallest."""
    counts = _counts(dataset)
    return float(counts.max() / max(counts.min(), 1))


def _batch_size(dataset: Dataset, backbone: str | None) -> int:
    height, width, _ = dataset.input_shape
    patch, stride = patches(height, width)
    positions = ((height - patch) // stride + 1) * ((width - patch) // stride + 1)
    if backbone:  # whose maps, all of them kept for the gradients, take about 150 MB for a picture of 260x260
        largest = min(_LARGEST_TUNING_BATCH, max(_TUNING_PIXELS // (height * width), 1))
    else:
        largest = max(_POSITIONS // max(positions, 1), 1)
    share = min(max(len(dataset.train) // 16, _LEAST_BATCH), max(largest, _LEAST_BATCH))
    return 1 << (share.bit_length() - 1)  # the power of two below


def _epochs(pictures: int, steps: int, *, tuning: bool) -> int:
    if tuning:
        wanted, least, most, fewest_steps = 12 * math.sqrt(5_000 / pictures), 3, 12, _FEWEST_TUNING_STEPS
    else:
        wanted, least, most, fewest_steps = 28 * math.sqrt(50_000 / pictures), 10, 100, _FEWEST_STEPS
    return max(min(max(round(wanted), least), most), math.ceil(fewest_steps / steps))


def _augmentation(dataset: Dataset, *, tuning: bool) -> dict[str, Any]:
    pictures, side = len(dataset.train), min(dataset.input_shape[:2])
    crop = _CROP_OF_SEVERAL if dataset.multi_label else _CROP
    if tuning:
        return {"translation": 0, "crop": crop}
    if pictures >= _PLENTY:
        return {"translation": side // 16}
    if pictures >= _LITTLE:
        return {"translation": side // 8, "cutout": side // 4}
    return {"translation": 0, "crop": crop, "cutout": side // 4}
