"""The scalability law: parameters that made the points come back, and their intervals hold them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.analysis.statistics import usl

KNOWN = dict.fromkeys(usl.PARAMETERS, (1e-9, 1.0))


def a_fit(sigma: float, kappa: float) -> usl.Fit:
    return usl.Fit(1000, sigma, kappa, KNOWN, {1.0: 0.0}, 0.0)


USERS = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], float)


@settings(deadline=None, max_examples=60)
@given(lam=st.floats(100, 50_000), sigma=st.floats(0.001, 0.5), kappa=st.floats(1e-7, 1e-3))
def test_points_of_the_law_give_its_parameters_back(lam: float, sigma: float, kappa: float) -> None:
    found = usl.fit(USERS.tolist(), usl.law(USERS, lam, sigma, kappa).tolist())
    assert found.lam == pytest.approx(lam, rel=0.02)
    assert found.throughput(USERS) == pytest.approx(usl.law(USERS, lam, sigma, kappa), rel=0.02)
    assert found.fits
    if found.knee < math.inf:
        assert found.knee == pytest.approx(math.sqrt((1 - found.sigma) / found.kappa))


def test_a_block_in_which_nothing_was_answered_is_no_point() -> None:
    points = usl.law(USERS, 1000, 0.05, 1e-5).tolist()
    assert usl.fit([*USERS, 5.0], [*points, 0.0]).lam == pytest.approx(usl.fit(USERS.tolist(), points).lam)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    users = np.repeat(USERS, 3)
    truth = {"lam": 3000.0, "sigma": 0.05, "kappa": 1e-5}
    inside = dict.fromkeys(truth, 0)
    trials = 100
    for _ in range(trials):
        found = usl.fit(users.tolist(), (usl.law(users, **truth) * rng.normal(1, 0.03, len(users))).tolist())
        for name, value in truth.items():
            low, high = found.intervals[name]
            inside[name] += low <= value <= high
    # 95 of 100 expected; fewer than 87 come by chance less than once in a thousand
    assert all(count >= 87 for count in inside.values()), inside


@given(kappa=st.floats(1e-6, 1e-2), sigma=st.floats(0, 0.9))
def test_beyond_the_knee_throughput_falls_and_before_it_rises(kappa: float, sigma: float) -> None:
    found = a_fit(sigma, kappa)
    at = found.throughput([found.knee * 0.9, found.knee, found.knee * 1.1])
    assert at[0] <= at[1] >= at[2]


@given(kappa=st.floats(0, 1e-2), sigma=st.floats(0.001, 0.9))
def test_at_half_a_user_gets_half(kappa: float, sigma: float) -> None:
    found = a_fit(sigma, kappa)
    assert found.throughput([found.half])[0] / found.half == pytest.approx(500, rel=1e-6)


def test_too_few_levels_are_refused() -> None:
    with pytest.raises(ValueError, match=f"at least {usl.FEWEST} numbers"):
        usl.fit([1, 2, 3, 3], [1, 2, 3, 3])


def test_a_law_that_misses_what_was_measured_tells_no_knee() -> None:
    """Throughput rises to 21,544 at 20 users and falls to a third at once, as no law of this form does."""
    rates = {1: 3_000, 2: 6_100, 5: 14_000, 10: 19_000, 20: 21_544, 50: 9_000, 100: 7_500, 200: 7_000, 500: 6_900}
    rng = np.random.default_rng(5)
    users = np.repeat(list(rates), 3)
    found = usl.fit(users.tolist(), (np.repeat(list(rates.values()), 3) * rng.normal(1, 0.02, len(users))).tolist())
    assert not found.fits
    assert abs(found.missed[found.worst]) > usl.TOO_FAR
    assert found.scatter < 0.1
    assert found.knee == math.inf


def test_throughput_that_stays_flat_has_no_knee_though_the_law_fits() -> None:
    rng = np.random.default_rng(6)
    users = np.repeat(USERS, 3)
    held = 0
    for _ in range(40):
        found = usl.fit(users.tolist(), (usl.law(users, 3000, 0.05, 0.0) * rng.normal(1, 0.03, len(users))).tolist())
        assert found.fits
        held += found.knee == math.inf
    assert held >= 36  # an interval of κ leaves 0 out once in forty


def test_scatter_excuses_what_it_explains_and_not_more() -> None:
    rng = np.random.default_rng(7)
    users = np.repeat(USERS, 3)
    law = usl.law(users, 3000, 0.05, 1e-5)
    noisy = usl.fit(users.tolist(), (law * np.exp(0.1 * rng.normal(size=len(users)))).tolist())
    assert noisy.fits
    assert noisy.scatter > usl.FAR
    bent = np.where(users == 50, 1.6, 1.0)
    assert not usl.fit(users.tolist(), (law * bent * np.exp(0.3 * rng.normal(size=len(users)))).tolist()).fits


def test_nodes_that_bring_all_of_their_own_add_up() -> None:
    found = usl.more_nodes(1, [100.0, 100.02, 99.98], 2, [200.04, 200.0, 199.96], 8)
    assert isinstance(found, usl.Nodes)
    assert found.throughput == pytest.approx(100 * found.nodes, rel=1e-3)
    assert found.sigma == pytest.approx(0)
    assert (found.low < found.throughput).all()
    assert (found.throughput < found.high).all()


def test_nodes_that_share_a_machine_add_nothing() -> None:
    found = usl.more_nodes(1, [100.0, 120, 80], 2, [100.0, 121, 79.5], 8)
    assert isinstance(found, usl.Nodes)
    assert found.throughput == pytest.approx(np.full(8, found.throughput[0]), rel=0.02)


def test_nothing_is_extrapolated_from_rates_that_follow_no_law() -> None:
    assert "every round gave the same" in str(usl.more_nodes(1, [100.0, 102, 98], 2, [150.0, 153, 147], 8))
    assert "fewer than 3 rounds" in str(usl.more_nodes(1, [100.0, 100.0], 2, [150.0, 150.0], 8))
    assert "2 nodes gave less than 1" in str(usl.more_nodes(1, [100.0, 102, 98], 2, [80.0, 81, 79], 8))
    assert "2 nodes gave more than 2/1" in str(usl.more_nodes(1, [100.0, 102, 98], 2, [220.0, 222, 219], 8))
    with pytest.raises(ValueError, match="two different"):
        usl.more_nodes(2, [1.0], 2, [1.0], 8)
