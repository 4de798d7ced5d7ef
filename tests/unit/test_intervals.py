"""Exact bounds and t intervals: what defines each of them holds for what comes out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
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


SOME = 1e-6  # scatter of values that are not all alike
positive = st.lists(st.floats(1e-3, 1e6), min_size=intervals.FEWEST, max_size=30)


@settings(max_examples=100, deadline=None)
@given(positive)
def test_the_interval_of_a_geometric_mean_is_students_of_the_logarithms(values: list[float]) -> None:
    middle, low, high = np.log(intervals.geometric_mean(values))
    n, sample = len(values), np.log(values)
    half = special.stdtrit(n - 1, 0.975) * sample.std(ddof=1) / math.sqrt(n)
    assume(half > SOME)
    assert middle == pytest.approx(sample.mean(), abs=1e-9)
    assert (low, high) == (pytest.approx(middle - half, abs=1e-6), pytest.approx(middle + half, abs=1e-6))


@settings(max_examples=100, deadline=None)
@given(positive)
def test_the_interval_of_a_mean_is_students_with_the_logarithm_of_the_mean(values: list[float]) -> None:
    middle, low, high = intervals.mean(values)
    n, sample = len(values), np.asarray(values)
    half = special.stdtrit(n - 1, 0.98) * sample.std(ddof=1) / math.sqrt(n) / sample.mean()
    assume(half > SOME)
    assert middle == pytest.approx(sample.mean())
    assert (np.log(low / middle), np.log(high / middle)) == (pytest.approx(-half), pytest.approx(half))


@settings(max_examples=100, deadline=None)
@given(positive, st.floats(0.01, 100), st.data())
def test_a_ratio_knows_no_units_and_turns_round_with_its_sides(
    before: list[float], factor: float, data: st.DataObject
) -> None:
    after = data.draw(st.lists(st.floats(1e-3, 1e6), min_size=len(before), max_size=len(before)))
    assume(min(np.std(np.log(side)) for side in (before, after, np.divide(after, before))) > SOME)
    for ratio in (intervals.ratio_of_pairs, intervals.ratio):
        plain, back = np.log(ratio(before, after)), np.log(ratio(after, before))
        assert plain[1] - 1e-9 <= plain[0] <= plain[2] + 1e-9
        assert back[[0, 2, 1]] == pytest.approx(-plain, abs=1e-6)
        scaled = np.log(ratio(before, np.multiply(after, factor)))
        assert scaled == pytest.approx(plain + math.log(factor), abs=1e-6)


def test_what_a_round_does_to_both_sides_cancels_in_pairs_alone() -> None:
    mood = np.array([1.0, 3.0, 0.2, 1.4])
    before, after = 100 * mood, 110 * mood * [1.01, 0.99, 1.0, 1.0]
    _, low, high = intervals.ratio_of_pairs(before, after)
    assert 1.08 < low < 1.1 < high < 1.12
    _, low, high = intervals.ratio(before, after)
    assert low < 0.2
    assert high > 5


def test_sides_measured_apart_are_compared_as_welch_did() -> None:
    a, b = np.exp([0.0, 0.2, 0.1]), np.exp([0.5, 0.3, 0.9, 0.5])
    middle, low, high = np.log(intervals.ratio(a, b))
    va, vb = np.var(np.log(a), ddof=1) / 3, np.var(np.log(b), ddof=1) / 4
    freedom = (va + vb) ** 2 / (va**2 / 2 + vb**2 / 3)
    assert middle == pytest.approx(0.45)
    assert (high - low) / 2 == pytest.approx(special.stdtrit(freedom, 0.975) * math.sqrt(va + vb))


def test_equal_values_give_no_interval_and_what_is_not_above_zero_gives_nothing() -> None:
    """An interval of width zero would say that a figure is known exactly; copies of one value give one."""
    several = np.array([3.0, 3.3, 2.9]) * 1.1
    for middle, low, high, truth in (
        (*intervals.mean([3.0, 3.0, 3.0]), 3.0),
        (*intervals.geometric_mean([3.1, 3.1, 3.1]), 3.1),
        (*intervals.ratio([2.0] * 3, [3.0] * 4), 1.5),
        (*intervals.ratio_of_pairs(several, 1.7 * several), 1.7),
        (*intervals.ratios_to_first(np.outer(several, [1.0, 1.7])), 1.7),
    ):
        assert np.ravel(middle) == pytest.approx([truth])
        assert np.isnan([low, high]).all()
    assert np.isnan(intervals.ratio_of_pairs([1.0, 0.0, 2.0], [1.0, 1.0, 1.0])).all()
    assert np.isnan(intervals.ratio([1.0, 1.0, 2.0], [1.0, -1.0, 1.0])).all()
    middle, low, high = intervals.mean([0.0, 0.0, 0.0])
    assert middle == 0.0
    assert np.isnan([low, high]).all()


def test_ratios_of_several_conditions_are_those_of_two_way_analysis_of_variance() -> None:
    """Against the textbook's sums of squares; one block that is missing changes its own ratio the most."""
    rng = np.random.default_rng(3)
    logs = rng.normal(0, 0.05, (4, 3)) + np.array([0.0, 0.1, -0.2]) + rng.normal(0, 0.3, (4, 1))
    middle, low, high = intervals.ratios_to_first(np.exp(logs))
    level = logs.mean(axis=0)
    residual = logs - level - logs.mean(axis=1, keepdims=True) + logs.mean()
    half = special.stdtrit(6, 1 - 0.025 / 2) * np.sqrt(2 * (residual**2).sum() / 6 / 4)
    assert np.log(middle) == pytest.approx(level[1:] - level[0])
    assert np.log(high) - np.log(low) == pytest.approx([2 * half] * 2)
    logs[1, 2] = np.nan
    fewer, narrow, wide = intervals.ratios_to_first(np.exp(logs))
    assert fewer[0] == pytest.approx(middle[0], rel=0.05)
    assert wide[1] / narrow[1] > wide[0] / narrow[0]
    logs[2, 2] = np.nan
    found = intervals.ratios_to_first(np.exp(logs))
    assert [np.isnan(each).tolist() for each in found] == [[False, True]] * 3
    assert np.isnan(intervals.ratios_to_first(np.ones((2, 3)))[1]).all()
    assert np.isnan(intervals.ratios_to_first([[1.0, 2.0], [1.0, 0.0], [1.0, 2.0]])[1]).all()
