"""The paired test tells a difference from noise, with figures worked out by hand."""

from math import comb

import numpy as np
import pytest

from training.evaluation.paired import Paired


def test_pictures_are_counted_by_who_is_right() -> None:
    """Each picture is in one of four counts, and accuracies and their difference follow."""
    first = np.array([True, True, True, False, False, True])
    second = np.array([True, False, True, True, False, False])
    paired = Paired.count(first, second)
    assert paired == Paired(both=2, only_first=2, only_second=1, neither=1)
    assert paired.images == 6
    assert paired.accuracies == (4 / 6, 3 / 6)
    assert paired.difference == pytest.approx(-1 / 6)


def test_p_is_that_of_a_fair_coin_for_each_discordant_pair() -> None:
    """Of ten discordant pairs two or fewer fall to the second with the probability of two heads or fewer."""
    paired = Paired(both=50, only_first=8, only_second=2, neither=7)
    tail = sum(comb(10, heads) for heads in range(3)) / 2**10
    assert paired.p_second_worse() == pytest.approx(tail)
    assert paired.p_different() == pytest.approx(2 * tail)
    assert Paired(50, 2, 8, 7).p_second_worse() == pytest.approx(1 - 11 / 2**10)  # all but nine and ten heads


@pytest.mark.parametrize("both", [0, 10_000])
def test_pictures_on_which_both_agree_do_not_change_p(both: int) -> None:
    """Only the discordant pairs count, however many pictures there are."""
    assert Paired(both, 8, 2, 0).p_second_worse() == Paired(0, 8, 2, 5).p_second_worse()


def test_no_discordant_pair_is_no_difference() -> None:
    """Two classifiers that are right on the same pictures are no different, and that is no division by zero."""
    paired = Paired(both=90, only_first=0, only_second=0, neither=10)
    assert paired.p_different() == paired.p_second_worse() == 1.0
    low, high = paired.interval()
    assert low == -high
    assert 0 < high < 0.03


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    """Of 2,000 draws from two classifiers of known accuracy, 95% of the intervals hold their difference."""
    rng = np.random.default_rng(0)
    shares = [0.80, 0.08, 0.04, 0.08]  # both, only the first, only the second, neither
    draws = rng.multinomial(100, shares, size=2000)
    intervals = [Paired(*map(int, draw)).interval() for draw in draws]
    held = np.mean([low <= 0.04 - 0.08 <= high for low, high in intervals])
    assert 0.93 < held < 0.98


def test_the_interval_stays_within_what_is_possible() -> None:
    """Of one picture nothing is known, and a difference beyond 100 points there is not."""
    assert Paired(0, 0, 1, 0).interval()[1] <= 1.0
    assert Paired(0, 1, 0, 0).interval()[0] >= -1.0
