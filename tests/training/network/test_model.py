"""The network does what its parts are for."""

import keras
import numpy as np
import pytest

from training.data.dataset import Dataset
from training.fit.recipe import PRESETS
from training.network.model import build, fit_to_pixels, in_float32, megaflops

pytestmark = pytest.mark.keras


@pytest.mark.parametrize(
    ("preset", "cost", "parameters"), [("fast", 79, 1.1), ("standard", 248, 3.4), ("best", 811, 8.6)]
)
def test_the_networks_cost_what_the_documents_say(preset: str, cost: int, parameters: float) -> None:
    """Operations of 10^6 for one picture, and millions of parameters."""
    chosen = PRESETS[preset]
    model = build((32, 32, 3), 10, chosen.widths, seed=0, convolutions=chosen.convolutions)
    assert round(megaflops(model)) == cost
    assert round(model.count_params() / 1e6, 1) == parameters
    assert model.output_shape == (None, 10)


def test_three_convolutions_have_a_shortcut() -> None:
    """What leaves the first convolution of a group reaches the end of it even where the others give nothing."""
    model = build((32, 32, 3), 3, (8,), seed=0, convolutions=3)
    for name in ("group1_b_convolution", "group1_c_convolution"):
        model.get_layer(name).kernel.assign(np.zeros((3, 3, 8, 8), "float32"))
    ends = [model.get_layer(name).output for name in ("group1_a_activation", "group1_shortcut")]
    pictures = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3)).astype(np.float32)
    first, last = keras.Model(model.input, ends).predict_on_batch(pictures)
    assert np.abs(first).max() > 0
    np.testing.assert_allclose(last, first, atol=1e-6)


def test_normalisation_is_part_of_the_network(small: Dataset) -> None:
    """Raw pixels go in and are brought to zero mean and unit variance inside."""
    model = build((32, 32, 3), 3, (8, 8), seed=0)
    fit_to_pixels(model, small.train.images)
    inside = np.asarray(model.get_layer("normalize")(small.train.images))
    np.testing.assert_allclose(inside.mean(axis=(0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(inside.std(axis=(0, 1, 2)), 1, atol=1e-3)


def test_the_same_seed_builds_the_same_network() -> None:
    """Weights depend on the seed and on nothing else, and layers of one shape differ from each other."""
    first, again, other = (build((32, 32, 3), 3, (8, 8), seed=seed).get_weights() for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_a_copy_in_float32_answers_as_the_original(small: Dataset) -> None:
    """What was trained in bfloat16 is served in float32, within bfloat16's rounding."""
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build((32, 32, 3), 3, (16, 24), seed=0)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    fit_to_pixels(model, small.train.images)
    copy = in_float32(model)
    pixels = small.test.images.astype(np.float32)
    expected, found = (np.asarray(network(pixels, training=False)) for network in (model, copy))
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    assert copy.get_layer("group2_b_convolution").filters == 24


def test_every_kind_of_convolution_counts() -> None:
    """The cost is that of the sums written out, for grouped, depthwise and separable convolutions, nested or not."""
    images = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", groups=2)(images)  # [4, 4, 8] from 3*3*2 each
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)  # [4, 4, 8] from 3*3 each
    x = keras.layers.SeparableConv2D(6, 3, padding="same")(x)  # [4, 4, 8] from 3*3 each, then [4, 4, 6] from 8 each
    x = keras.layers.Dense(5)(x)  # [4, 4, 5] from 6 each
    inner = keras.Model(images, x)
    outer = keras.Input((8, 8, 4))
    model = keras.Model(outer, keras.layers.Dense(2)(keras.layers.Flatten()(inner(outer))))  # [2] from 4*4*5
    multiplications = 16 * (8 * 18 + 8 * 9 + 8 * 9 + 6 * 8 + 5 * 6) + 2 * 80
    assert megaflops(model) == pytest.approx(2 * multiplications / 1e6)
