"""Where no preset was made for the data, the recipe follows from it."""

import numpy as np
import pytest

from training.data.augmentation import Batches
from training.data.dataset import Dataset, Split
from training.fit.defaults import explain, for_data, steps_per_epoch

pytestmark = pytest.mark.keras


def data(counts: list[int], height: int = 32, width: int = 32) -> Dataset:
    """Return a data set with so many training pictures of each class, all of them the same black one."""
    classes = np.repeat(np.arange(len(counts)), counts)
    black = np.broadcast_to(np.zeros((height, width, 3), np.uint8), (len(classes), height, width, 3))
    nothing = Split(black[:0], classes[:0])
    return Dataset("black", tuple(f"class {n}" for n in range(len(counts))), Split(black, classes), nothing, nothing)


@pytest.mark.parametrize(
    ("pictures", "side", "batch", "epochs"),
    [
        (2, 32, 2, 400),
        (3, 32, 3, 400),
        (10, 32, 8, 400),
        (37, 32, 8, 100),
        (200, 64, 8, 100),
        (1_000, 224, 32, 100),
        (5_000, 128, 128, 89),
        (20_000, 224, 128, 44),
        (50_000, 32, 512, 28),
        (500_000, 64, 128, 10),
    ],
)
def test_length_and_batch_follow_from_the_number_of_pictures(pictures: int, side: int, batch: int, epochs: int) -> None:
    """Few pictures are seen often and in small batches, many rarely; no run is shorter than 400 steps."""
    dataset = data([pictures // 2, pictures - pictures // 2], side, side)
    recipe = for_data(dataset)
    assert (recipe.batch_size, recipe.epochs) == (batch, epochs)
    assert recipe.epochs * steps_per_epoch(dataset, recipe) >= 400
    assert recipe.average_epochs == pytest.approx(epochs / 28)


@pytest.mark.parametrize(
    ("pictures", "batch", "epochs"), [(2, 2, 200), (100, 8, 17), (5_000, 64, 12), (200_000, 64, 3)]
)
def test_a_pretrained_backbone_is_tuned_for_less_time(pictures: int, batch: int, epochs: int) -> None:
    """It knows pictures already: fewer epochs, smaller batches, crops instead of shifts, lower rates."""
    dataset = data([pictures // 2, pictures - pictures // 2], 96, 96)
    recipe = for_data(dataset, backbone="MobileNetV3Small", backbone_weights="imagenet")
    assert (recipe.batch_size, recipe.epochs) == (batch, epochs)
    assert (recipe.translation, recipe.cutout, recipe.crop, recipe.pretrained) == (0, 0, 0.5, True)
    assert recipe.scaled_learning_rate() < 0.002


def test_a_backbone_without_weights_is_trained_as_long_as_any_network() -> None:
    """At random it knows nothing, so length and augmentation are those of training from nothing."""
    dataset = data([500, 500])
    recipe = for_data(dataset, backbone="MobileNetV3Small", backbone_weights="none")
    assert not recipe.pretrained
    assert (recipe.epochs, recipe.cutout) == (100, 8)


@pytest.mark.parametrize(
    ("pictures", "height", "width", "translation", "cutout", "crop"),
    [
        (60_000, 32, 32, 2, 0, 1.0),
        (60_000, 224, 300, 14, 0, 1.0),
        (20_000, 32, 32, 4, 8, 1.0),
        (20_000, 224, 224, 28, 56, 1.0),
        (1_000, 96, 128, 0, 24, 0.5),
    ],
)
def test_augmentation_follows_from_size_and_number(
    pictures: int, height: int, width: int, translation: int, cutout: int, crop: float
) -> None:
    """Shifts and cutout grow with the shorter side; less data is changed more; all is mirrored."""
    recipe = for_data(data([pictures // 2] * 2, height, width))
    assert (recipe.translation, recipe.cutout, recipe.crop, recipe.flip) == (translation, cutout, crop, True)


def test_uneven_classes_are_balanced_beyond_a_ratio_of_three() -> None:
    """Rare classes are repeated where the largest class is more than three times the smallest, and this is counted."""
    assert not for_data(data([300, 100])).balance
    dataset = data([310, 100])
    recipe = for_data(dataset)
    assert recipe.balance
    made = Batches(dataset.train, 2, recipe.batch_size, 0, balance=True, flip=True, seed=0)
    assert steps_per_epoch(dataset, recipe) == len(made) > 410 // recipe.batch_size
    assert "rare classes more often, since the largest is 3.1 times the smallest" in explain(dataset, recipe)


def test_what_is_given_wins() -> None:
    """Explicit length, batch size and seed are taken as they are; only a batch larger than the data is cut."""
    recipe = for_data(data([50, 50]), epochs=3, batch_size=10, seed=7)
    assert (recipe.epochs, recipe.batch_size, recipe.seed) == (3, 10, 7)
    assert for_data(data([5, 5]), batch_size=64).batch_size == 10


def test_the_choice_is_told_in_one_line() -> None:
    """The line has the data, the length in epochs and steps, and what is done to the pictures."""
    dataset = data([500, 500], 96, 128)
    assert explain(dataset, for_data(dataset)) == (
        "Chosen for 1,000 pictures of 96x128: 100 epochs in batches of 32 (3,100 steps); "
        "pictures mirrored, cropped to at least 50%, with 24x24 pixels blanked."
    )
