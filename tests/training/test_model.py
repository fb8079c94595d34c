"""The network does what its parts are for."""

import keras
import numpy as np
import pytest

from training.dataset import Dataset
from training.model import build, fit_to_pixels, in_float32, megaflops, whitening_filters
from training.presets import PRESETS

pytestmark = pytest.mark.slow  # importing Keras takes seconds


def test_the_standard_network_costs_what_the_documents_say() -> None:
    """236 MFLOP a picture and 2.0 million parameters, under 12 MB in float32."""
    model = build((32, 32, 3), 10, PRESETS["standard"].widths, seed=0)
    assert round(megaflops(model)) == 236
    assert round(model.count_params() / 1e6, 1) == 2.0
    assert model.output_shape == (None, 10)


def test_whitening_decorrelates_patches(small: Dataset) -> None:
    """The filters' answers to the pictures that they were made from have unit covariance."""
    normalized = (small.train.images / 128.0 - 1).astype(np.float32)
    filters = whitening_filters(normalized)
    answers = keras.ops.convert_to_numpy(keras.ops.conv(normalized, filters)).reshape(-1, 24)
    covariance = answers[:, :12].T @ answers[:, :12] / len(answers)
    np.testing.assert_allclose(covariance, np.eye(12), atol=0.02)
    np.testing.assert_allclose(answers[:, 12:], -answers[:, :12], atol=1e-4)


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
