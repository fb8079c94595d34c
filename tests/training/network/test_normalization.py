"""Batch normalisation computes what Keras's own layer does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.network.normalization import BatchNormalization

pytestmark = pytest.mark.keras


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("scale", [False, True])
def test_it_equals_the_layer_that_it_replaces(dtype: str, scale: bool) -> None:
    """Outputs, gradients and moving statistics of two steps, and what inference makes of them, are Keras's own."""
    layers = [
        kind(scale=scale, momentum=0.6, dtype=dtype) for kind in (keras.layers.BatchNormalization, BatchNormalization)
    ]
    rng = np.random.default_rng(0)
    for _ in range(2):
        inputs = tf.Variable(rng.normal(3, 2, size=(5, 4, 4, 7)).astype("float32"))
        outputs, gradients = zip(*(_step(layer, inputs) for layer in layers), strict=True)
        np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)
        np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-4)
    for own, expected in zip(layers[1].get_weights(), layers[0].get_weights(), strict=True):
        np.testing.assert_allclose(own, expected, atol=1e-5)
    answers = [np.asarray(layer(inputs, training=False), np.float32) for layer in layers]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)


def _step(layer: keras.Layer, inputs: tf.Variable) -> tuple[np.ndarray, np.ndarray]:
    with tf.GradientTape() as tape:
        outputs = tf.cast(layer(inputs, training=True), tf.float32)
        loss = tf.reduce_sum(outputs**3)
    return np.asarray(outputs), np.asarray(tape.gradient(loss, inputs))
