"""What a version is told of several labels is counted rightly, label by label and over all."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from training.data.dataset import Split
from training.evaluation.multi_label import MultiLabelComparison, MultiLabelEvaluation, record, table

LABELS = ("a", "b", "c", "never")


def evaluation(noise: float = 0.3, seed: int = 0, pictures: int = 120) -> MultiLabelEvaluation:
    """Return answers to pictures with some of three labels; no picture has the fourth, and it is never told."""
    has = np.random.default_rng(0).random((pictures, 4)) < (0.5, 0.3, 0.1, 0.0)
    random = np.random.default_rng(seed).normal(size=has.shape)
    probabilities = np.clip(0.2 + 0.6 * has + noise * random, 0, 1)
    probabilities[:, 3] = 0.01
    split = Split(np.zeros((pictures, 2, 2, 3), np.uint8), has.astype(np.int64))
    return MultiLabelEvaluation(
        LABELS, "drawn", split, probabilities.astype(np.float32), np.array([0.5, 0.4, 0.6, 0.5])
    )


def test_the_averages_are_those_of_scikit_learn() -> None:
    """Micro F1 over all decisions, macro F1 over the labels that there are, each within its interval."""
    found = evaluation()
    averages, intervals = found.averages, found.intervals
    assert averages["micro_f1"] == pytest.approx(f1_score(found.has, found.told, average="micro"))
    assert averages["macro_f1"] == pytest.approx(f1_score(found.has[:, :3], found.told[:, :3], average="macro"))
    assert averages["mean_average_precision"] == pytest.approx(
        np.mean([each.average_precision for each in found.figures[:3]])
    )
    for name, (low, high) in intervals.items():
        assert low < averages[name] < high
        assert high - low < 0.25


def test_a_label_that_there_is_not_has_no_figures() -> None:
    """Neither average precision nor recall, nor precision where it is never told; and the JSON is JSON."""
    found = evaluation()
    never = found.figures[3]
    assert (never.images, never.told, never.average_precision, never.precision, never.recall) == (
        0,
        0,
        None,
        None,
        None,
    )
    assert "never" not in table(found)
    told = json.loads(json.dumps(record(found), allow_nan=False))
    assert told["per_class"]["never"]["average_precision"] is None
    metrics = found.metrics()
    assert "average_precision" not in metrics.per_class["never"]
    assert metrics.accuracy == pytest.approx((found.told == found.has).all(axis=1).mean())


def test_pictures_without_any_label_are_measured_all_the_same() -> None:
    """There is nothing to rank, and no figure is NaN."""
    split = Split(np.zeros((60, 2, 2, 3), np.uint8), np.zeros((60, 4), np.int64))
    found = MultiLabelEvaluation(LABELS, "drawn", split, np.full((60, 4), 0.1, np.float32), np.full(4, 0.5))
    json.dumps(record(found), allow_nan=False)
    assert found.metrics().accuracy == 1.0
    assert "all labels right 100.00%" in table(found)


def test_mistakes_are_sorted_by_how_far_they_lie_from_the_threshold() -> None:
    """Both kinds, and no picture that is right."""
    found = evaluation(noise=0.6)
    mistakes = found.confident_mistakes(0, 10)
    away = np.abs(found.probabilities[mistakes, 0] - 0.5)
    assert (np.diff(away) <= 0).all()
    assert (found.told[mistakes, 0] != found.has[mistakes, 0]).all()


def test_labels_that_stand_together_are_counted() -> None:
    """As pictures have them, and as they are told."""
    found = evaluation()
    has, told = found.together()
    assert has[0, 1] == (found.has[:, 0] & found.has[:, 1]).sum() > 0
    assert told[1, 0] == (found.told[:, 0] & found.told[:, 1]).sum()
    assert has[0, 0] == found.has[:, 0].sum()


def test_a_comparison_says_which_is_better() -> None:
    """By the paired bootstrap; two that differ by chance alone are not told apart."""
    good, bad = evaluation(0.2), evaluation(0.8, seed=1)
    compared = MultiLabelComparison(good, bad)
    figures = json.loads(json.dumps(compared.record(), allow_nan=False))
    assert figures["difference"] < 0
    assert figures["difference_95"][1] < 0
    assert figures["p"] < 0.05
    assert set(figures["average_precisions"]) == {"a", "b", "c"}
    assert "A is better beyond noise" in compared.table()
    assert "no difference beyond noise" in MultiLabelComparison(good, evaluation(0.2, seed=3)).table()
