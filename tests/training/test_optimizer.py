"""The optimizer follows the recipe."""

import keras
import numpy as np
import pytest

from training.optimizer import ScaledBiasSGD, Triangle, optimizer
from training.presets import recipe

pytestmark = pytest.mark.slow  # importing Keras takes seconds


def test_the_learning_rate_rises_and_falls() -> None:
    """A fifth of the peak at the start, the peak after the warm-up, zero at the end, straight lines between."""
    schedule = Triangle(peak=1.0, steps=100, warmup=0.2)
    rates = [float(schedule(step)) for step in (0, 10, 20, 60, 100)]
    np.testing.assert_allclose(rates, [0.2, 0.6, 1.0, 0.5, 0.0], atol=1e-6)


def test_offsets_learn_faster_than_weights() -> None:
    """The same gradient moves a beta 64 times as far as a kernel."""
    kernel, beta = (keras.Variable(np.zeros(1, "float32"), name=name) for name in ("kernel", "beta"))
    ScaledBiasSGD(learning_rate=0.001, bias_scale=64.0).apply([np.ones(1), np.ones(1)], [kernel, beta])
    assert float(kernel[0]) == pytest.approx(-0.001)
    assert float(beta[0]) == pytest.approx(-0.064)


def test_a_larger_batch_takes_a_larger_rate() -> None:
    """The peak is in proportion to the batch size, which leaves the sum of an epoch's steps as it was."""
    peaks = [recipe("standard", batch_size=size).scaled_learning_rate() for size in (250, 500, 1000)]
    np.testing.assert_allclose(peaks, [0.32, 0.64, 1.28])


def test_the_average_follows_the_weights() -> None:
    """finalize_variable_values puts the moving average in the place of the weights."""
    weight = keras.Variable(np.zeros(1, "float32"), name="kernel")
    averaging = optimizer(recipe("standard", epochs=2), steps_per_epoch=10)
    for _ in range(20):
        averaging.apply([np.ones(1)], [weight])
    last = float(weight[0])
    averaging.finalize_variable_values([weight])
    assert last < float(weight[0]) < 0
