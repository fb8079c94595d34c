"""Which network photographs, tiny pictures and other data get, and what is asked for wins."""

from typing import Any

import pytest

from training.fit.choice import backbone_for
from training.fit.settings import RecipeSettings
from training.network.registry import BACKBONES, DEFAULT, OWN_NETWORK

pytestmark = pytest.mark.keras


@pytest.mark.parametrize(
    ("asked", "side", "expected", "says"),
    [
        ({}, 64, DEFAULT, "gets a new head"),
        ({}, 300, DEFAULT, "gets a new head"),
        ({}, 63, None, "pictures of 63 pixels are tiny"),
        ({}, None, None, ""),  # CIFAR-10, or what is built on a version
        ({"epochs": 3, "fields": {"crop": 0.7}}, 64, DEFAULT, "gets a new head"),
        ({"backbone": "MobileNetV3Small"}, 32, "MobileNetV3Small", ""),
        ({"backbone": "MobileNetV3Small", "preset": "fast"}, 300, "MobileNetV3Small", ""),
        ({"backbone": OWN_NETWORK}, 300, None, ""),
        ({"backbone": OWN_NETWORK, "fields": {"backbone": "VGG16"}}, 300, None, ""),
        ({"preset": "standard"}, 300, None, ""),
        ({"preset": "from the data", "fields": {"preset": "from the data", "backbone": "VGG16"}}, 300, "VGG16", ""),
        ({"preset": "standard", "fields": {"preset": "standard"}}, 300, None, ""),
        ({"preset": "fast", "fields": {"preset": "from the data", "backbone": "VGG16"}}, 300, None, ""),
        ({"fields": {"backbone": "VGG16"}}, 32, "VGG16", ""),
        ({"fields": {"backbone": OWN_NETWORK}}, 300, None, ""),
    ],
)
def test_the_network_follows_from_the_pictures(
    asked: dict[str, Any], side: int | None, expected: str | None, says: str
) -> None:
    """From 64 pixels on it is the pretrained one; an option, a preset or a [recipe] in a file is taken as it is.

    The recipe of another preset does not count. What was not asked for is explained.
    """
    name, why = backbone_for(RecipeSettings(**asked), side)
    assert name == expected
    assert says in why
    assert bool(why) == bool(says)


def test_the_choice_is_explained_with_its_accuracy() -> None:
    """The sentence names the network, how good it is where it comes from, and how to have another or none."""
    _, why = backbone_for(RecipeSettings(), 224)
    assert why.startswith(f"{DEFAULT}, trained on ImageNet's photographs ({BACKBONES[DEFAULT].imagenet:.1%} right")
    assert why.endswith("--backbone takes another, or none.")
