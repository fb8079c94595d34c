"""Thresholds are those with the best F1, and chance does not choose them."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from training.evaluation.thresholds import EVEN_ODDS, best_threshold, choose_thresholds


def test_no_other_threshold_is_better() -> None:
    """Of all that there are, also where many pictures are as probable."""
    rng = np.random.default_rng(0)
    has = rng.random(300) < 0.2
    probabilities = np.round(np.clip(0.3 * has + rng.random(300) * 0.6, 0, 1), 2).astype(np.float32)
    found = best_threshold(probabilities, has)
    best = max(f1_score(has, probabilities >= each) for each in np.linspace(0.05, 0.95, 181))
    assert f1_score(has, probabilities >= found) == pytest.approx(best)


def test_it_lies_between_those_that_are_told_and_those_that_are_not() -> None:
    """Halfway, since it was chosen on few."""
    assert best_threshold(np.array([0.9, 0.8, 0.2, 0.1], np.float32), np.array([1, 1, 0, 0], bool)) == pytest.approx(
        0.5
    )


def test_a_label_that_nothing_tells_is_not_told_of_everything_for_sure() -> None:
    """Its best F1 is to tell it always, which the lowest threshold keeps from the pictures that are surely without."""
    probabilities = np.linspace(0.001, 0.04, 100).astype(np.float32)
    has = np.arange(100) % 2 == 0
    assert best_threshold(probabilities, has) == 0.05


def test_rare_labels_share_one() -> None:
    """A label of nine pictures, or of all but nine, gets that of all labels together; one of ten its own."""
    rng = np.random.default_rng(0)
    has = np.zeros((200, 3), bool)
    has[:100, 0], has[:9, 1], has[:10, 2] = True, True, True
    probabilities = np.clip(np.where(has, (0.6, 0.4, 0.3), 0.05) + 0.04 * rng.random((200, 3)), 0, 1).astype(np.float32)
    found = choose_thresholds(probabilities, has)
    shared = round(best_threshold(probabilities.reshape(-1), has.reshape(-1)), 4)
    assert found[1] == shared
    assert found[0] == pytest.approx(0.345, abs=0.03)
    assert found[2] == pytest.approx(0.195, abs=0.03)


def test_few_pictures_choose_nothing() -> None:
    """Below 50 all labels are told from even odds on."""
    assert choose_thresholds(np.ones((49, 2), np.float32), np.ones((49, 2), bool)).tolist() == [EVEN_ODDS] * 2
