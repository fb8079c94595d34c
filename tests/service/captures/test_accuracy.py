"""The interval of the accuracy in production."""

import pytest

from service.captures.accuracy import interval


@pytest.mark.parametrize(
    ("right", "answers", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (99, 100, 0.9455, 0.9982)],
)
def test_the_interval_is_wilsons(right: int, answers: int, low: float, high: float) -> None:
    """The figures are those of SciPy's ``binomtest(right, answers).proportion_ci(method="wilson")``."""
    assert interval(right, answers) == pytest.approx((low, high), abs=1e-4)
