"""Rankings of labels are measured as scikit-learn measures them, and differences are told from noise."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from training.evaluation.average_precision import (
    RankedPair,
    average_precisions,
    draws,
    mean_average_precision,
)


def answers(pictures: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities float32 [N, 3] that tell the labels bool [N, 3] of pictures, the worse the more noise."""
    rng = np.random.default_rng(0)
    has = rng.random((pictures, 3)) < (0.5, 0.2, 0.05)
    return (has + noise * np.random.default_rng(seed).normal(size=has.shape)).astype(np.float32), has


def test_it_is_that_of_scikit_learn() -> None:
    """With weights and without, also where pictures are as probable as others; NaN where none has a label."""
    probabilities, has = answers(200, 0.7)
    probabilities = np.round(probabilities, 1)
    weights = next(draws(200, 3))[:5]
    found = average_precisions(probabilities, has, weights)
    for draw, row in enumerate(weights):
        expected = [average_precision_score(has[:, k], probabilities[:, k], sample_weight=row) for k in range(3)]
        np.testing.assert_allclose(found[draw], expected, rtol=1e-9)
    expected = [average_precision_score(has[:, k], probabilities[:, k]) for k in range(3)]
    np.testing.assert_allclose(average_precisions(probabilities, has)[0], expected, rtol=1e-9)
    has[:, 1] = False
    assert np.isnan(average_precisions(probabilities, has)[0, 1])
    assert mean_average_precision(probabilities, has) == pytest.approx((expected[0] + expected[2]) / 2)


def test_a_worse_one_is_told_and_an_equal_one_is_not() -> None:
    """On the same pictures; the interval has the difference in it, and is narrower with more pictures."""
    good, has = answers(400, 0.4)
    bad, _ = answers(400, 1.0, seed=1)
    other, _ = answers(400, 0.4, seed=2)
    worse = RankedPair.of(good, bad, has)
    assert worse.p_second_worse() < 0.01 < 0.9 < worse.p_second_better()
    assert worse.interval()[0] < worse.difference < worse.interval()[1] < 0
    equal = RankedPair.of(good, other, has)
    assert equal.p_second_worse() > 0.05
    assert equal.p_second_better() > 0.05
    same = RankedPair.of(good, good, has)
    assert (same.difference, same.interval(), same.p_second_worse()) == (0.0, (0.0, 0.0), 1.0)
    few = RankedPair.of(good[:40], bad[:40], has[:40])
    assert np.diff(few.interval()) > np.diff(worse.interval())


def test_many_pictures_and_labels_take_fewer_draws() -> None:
    """So that the time stays bounded; no fewer than 200, of which a percentile can be read."""
    assert sum(map(len, draws(300, 5))) == 1000
    assert sum(map(len, draws(50_000, 100))) == 200
