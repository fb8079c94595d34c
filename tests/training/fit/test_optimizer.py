"""The optimizer follows the recipe."""

import keras
import numpy as np
import pytest

from training.fit.optimizer import Muon, ScaledBiasSGD, Triangle, optimizer, orthogonal
from training.fit.recipe import recipe

pytestmark = pytest.mark.keras


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
    peaks = [
        recipe("standard", learning_rate=0.64, batch_size=size).scaled_learning_rate() for size in (250, 500, 1000)
    ]
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


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_an_orthogonal_step_moves_all_directions(shape: tuple[int, int]) -> None:
    """Singular values that span two decades come out within a factor of three, along the same directions."""
    rng = np.random.default_rng(0)
    left, _, right = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
    step = np.asarray(orthogonal(((left * np.geomspace(1, 100, 12)) @ right).astype("float32"), steps=5))
    along = left.T @ step @ right.T  # [12, 12]
    assert 0.4 < along.diagonal().min() < along.diagonal().max() < 1.3
    assert np.abs(along - np.diag(along.diagonal())).max() < 0.1  # bfloat16


def test_kernels_learn_by_muon_and_the_rest_by_sgd() -> None:
    """A step moves every direction of a kernel by the rate, whatever the gradient's size; a matrix moves as in SGD."""
    kernel = keras.Variable(np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype("float32"), name="kernel")
    head = keras.Variable(np.zeros((4, 2), "float32"), name="kernel")
    before = np.array(kernel)
    gradient = np.random.default_rng(1).normal(scale=1e-4, size=kernel.shape).astype("float32")
    muon = Muon(2.0, learning_rate=0.05, momentum=0.85, bias_scale=1.0)
    muon.apply([gradient, np.ones((4, 2), "float32")], [kernel, head])
    before *= np.sqrt(8) / np.linalg.norm(before)  # the norm it is brought to first
    moved = np.linalg.svd((np.array(kernel) - before).reshape(36, 8), compute_uv=False)
    assert 0.3 < moved.min() / 0.1 < moved.max() / 0.1 < 1.3
    np.testing.assert_allclose(head, -0.05, rtol=1e-6)
