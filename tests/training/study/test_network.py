"""The study's networks are those of the tutorials, and see pixels as they were to be scaled."""

from typing import get_args

import keras
import numpy as np
import pytest

from training.errors import TrainingError
from training.study.configurations import CONFIGURATIONS, Configuration, Scaling
from training.study.network import build

pytestmark = pytest.mark.keras

IMAGES = np.random.default_rng(0).integers(256, size=(50, 32, 32, 3), dtype=np.uint8)
PLAIN, NORMALISED = 550_570, 552_874  # 4 values more for each channel that batch normalisation sees


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_network_has_the_parameters_of_the_tutorials(name: str) -> None:
    """Blocks, filters and dense layers are as described, and only batch normalisation adds parameters."""
    configuration = CONFIGURATIONS[name]
    model = build(configuration, IMAGES, classes=10, seed=0)
    expected = {1: 1_060_138, 2: 591_274, 3: NORMALISED if configuration.batch_normalization else PLAIN}
    assert model.count_params() == expected[configuration.blocks]
    dropped = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert dropped == ([0.2] * 4 if configuration.dropout else [])
    assert len(model.losses) == (7 if configuration.l2 else 0)
    probabilities = np.asarray(model(IMAGES[:4]))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_pixels_are_scaled_as_asked(scaling: Scaling) -> None:
    """They lie in 0..1, around zero, or around zero with a deviation of one, by the training pictures' statistics."""
    model = build(Configuration("any", "", blocks=1, scaling=scaling), IMAGES, classes=10, seed=0)
    scaled = np.asarray(model.get_layer("scale")(IMAGES), np.float64)
    mean, deviation = scaled.mean(axis=(0, 1, 2)), scaled.std(axis=(0, 1, 2))
    if scaling == "to 0..1":
        np.testing.assert_allclose(scaled, IMAGES / 255, atol=1e-6)
    else:
        np.testing.assert_allclose(mean, 0, atol=1e-5)
        plain = (IMAGES / 255).std(axis=(0, 1, 2))
        np.testing.assert_allclose(deviation, 1 if scaling == "normalised" else plain, rtol=1e-4)


def test_the_seed_decides_the_weights() -> None:
    """The same seed begins with the same network, another with another."""
    first, again, other = (build(CONFIGURATIONS["vgg1"], IMAGES, 10, seed).get_weights() for seed in (1, 1, 2))
    for expected, found in zip(first, again, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(first[0], other[0])


def test_pictures_that_cannot_be_halved_are_refused() -> None:
    """Pictures below 8x8 pixels are an error that says so; one block takes them down to 2x2."""
    with pytest.raises(TrainingError, match="vgg3 takes pictures of at least 8x8 pixels"):
        build(CONFIGURATIONS["vgg3"], IMAGES[:, :7], 10, seed=0)
    build(CONFIGURATIONS["vgg1"], IMAGES[:, :2, :2], 10, seed=0)
