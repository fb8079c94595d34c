"""The score, its threshold, and the measure of how well it tells."""

import numpy as np
import pytest

from training.data.dataset import Pixels
from training.evaluation.familiarity import Scores, auroc, find_threshold, measure, score_of
from training.evaluation.out_of_distribution import KINDS


def test_the_score_is_the_negative_free_energy() -> None:
    """It is the logarithm of the sum of exponentials, also where these would be too large for float32."""
    logits = np.array([[0.0, 0.0], [1.0, 2.0], [100.0, 0.0]], np.float32)
    expected = [np.log(2), np.log(np.exp(1) + np.exp(2)), 100.0]
    np.testing.assert_allclose(score_of(logits), expected, rtol=1e-6)


@pytest.mark.parametrize("count", [1, 7, 40, 5000])
def test_no_fewer_than_the_share_reach_the_threshold(count: int) -> None:
    """At least 95% of the scores that it was taken from reach it, and not one more than that needs."""
    scores = np.random.default_rng(0).normal(size=count).astype(np.float32)
    found = find_threshold(scores, "made up")
    reached = int((scores >= found.threshold).sum())
    assert reached >= 0.95 * count > reached - 1 - count / 100
    assert (found.share, found.measured_on, found.images) == (0.95, "made up", count)


def test_auroc() -> None:
    """It is 1 where all familiar pictures score higher, 0 where none does, and a tie counts half."""
    low, high = np.array([0.0, 1.0], np.float32), np.array([2.0, 3.0], np.float32)
    assert auroc(high, low) == 1
    assert auroc(low, high) == 0
    assert auroc(low, low) == 0.5
    assert auroc(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0])) == pytest.approx((1 + 1.5 + 2) / 6)


def spread(images: Pixels) -> Scores:
    """Score a picture by how even its colours are."""
    scores: Scores = -images.std(axis=(1, 2, 3)).astype(np.float32)
    return scores


def test_each_kind_is_measured() -> None:
    """Of a score that is the evenness, grey pictures are more familiar than noise and less so than flat colours."""
    rng = np.random.default_rng(0)
    grey = (128 + rng.integers(-40, 40, size=(50, 8, 8, 3))).astype(np.uint8)
    figures = measure(spread, spread(grey), grey, threshold=float(spread(grey).min()))
    assert list(figures) == list(KINDS)
    assert figures["noise"] == {"auroc": 1.0, "unfamiliar": 1.0}
    assert figures["flat"]["unfamiliar"] < 0.9
    assert measure(spread, spread(grey), grey, threshold=None)["noise"] == {"auroc": 1.0}
