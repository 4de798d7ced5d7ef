"""Exact bounds and t intervals: what defines each of them holds for what comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from labkit.analysis.statistics import intervals

trials_and_found = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))


@pytest.mark.parametrize(("trials", "bound"), [(0, 1.0), (100, 0.0295), (300, 0.00994)])
def test_no_loss_in_n_trials_bounds_the_rate_near_three_by_n(trials: int, bound: float) -> None:
    assert intervals.share_at_most(0, trials) == pytest.approx(bound, rel=0.01)


@settings(max_examples=200, deadline=None)
@given(trials_and_found)
def test_at_the_bound_so_few_would_be_found_once_in_twenty(drawn: tuple[int, int]) -> None:
    trials, found = drawn
    bound = intervals.share_at_most(found, trials)
    if found == trials:
        assert bound == 1.0
    else:
        assert special.bdtr(found, trials, bound) == pytest.approx(0.05, rel=1e-6)
    if not found:
        assert bound == pytest.approx(1 - 0.05 ** (1 / trials))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2000), st.floats(0.001, 0.999), st.floats(1e-6, 0.5))
def test_more_than_by_chance_is_a_surprise_and_one_fewer_is_none(trials: int, share: float, surprise: float) -> None:
    most = intervals.most_by_chance(trials, share, surprise)
    assert special.bdtrc(most, trials, share) <= surprise * (1 + 1e-6)
    assert most == 0 or special.bdtrc(most - 1, trials, share) >= surprise * (1 - 1e-6)


def test_a_binomial_of_thirty_exceeds_five_once_in_a_hundred_at_most() -> None:
    assert intervals.most_by_chance(30) == 5


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_the_interval_of_a_mean_is_students(values: list[float]) -> None:
    low, high = intervals.mean_interval(values)
    n, sample = len(values), np.asarray(values)
    half = special.stdtrit(n - 1, 0.975) * sample.std(ddof=1) / math.sqrt(n)
    assert (high + low) / 2 == pytest.approx(sample.mean(), rel=1e-9, abs=1e-6)
    assert (high - low) / 2 == pytest.approx(half, rel=1e-6, abs=1e-6)


def test_one_value_gives_no_interval_and_equal_ones_give_a_point() -> None:
    assert all(map(math.isnan, intervals.mean_interval([3.0])))
    assert intervals.mean_interval([3.0, 3.0, 3.0]) == (3.0, 3.0)
