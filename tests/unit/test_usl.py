"""The scalability law: parameters that made the points come back, and their intervals hold them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.analysis.statistics import usl

USERS = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], float)


@settings(deadline=None, max_examples=60)
@given(lam=st.floats(100, 50_000), sigma=st.floats(0.001, 0.5), kappa=st.floats(1e-7, 1e-3))
def test_points_of_the_law_give_its_parameters_back(lam: float, sigma: float, kappa: float) -> None:
    found = usl.fit(USERS.tolist(), usl.law(USERS, lam, sigma, kappa).tolist())
    assert found.lam == pytest.approx(lam, rel=0.02)
    assert found.throughput(USERS) == pytest.approx(usl.law(USERS, lam, sigma, kappa), rel=0.02)
    assert found.r_squared > 0.99
    assert found.knee == pytest.approx(math.sqrt((1 - found.sigma) / found.kappa)) if found.kappa else True


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
    found = usl.Fit(1000, sigma, kappa, {}, 1.0)
    at = found.throughput([found.knee * 0.9, found.knee, found.knee * 1.1])
    assert at[0] <= at[1] >= at[2]


@given(kappa=st.floats(0, 1e-2), sigma=st.floats(0.001, 0.9))
def test_at_half_a_user_gets_half(kappa: float, sigma: float) -> None:
    found = usl.Fit(1000, sigma, kappa, {}, 1.0)
    assert found.throughput([found.half])[0] / found.half == pytest.approx(500, rel=1e-6)


def test_too_few_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least four"):
        usl.fit([1, 2, 3, 3], [1, 2, 3, 3])


def test_nodes_that_bring_all_of_their_own_add_up() -> None:
    found = usl.more_nodes(1, [100.0, 102, 98], 2, [200.0, 204, 196], 8)
    assert found.throughput == pytest.approx(100 * found.nodes)
    assert found.sigma == pytest.approx(0)
    assert (found.low < found.throughput).all()
    assert (found.throughput < found.high).all()


def test_nodes_that_share_a_machine_add_nothing() -> None:
    found = usl.more_nodes(1, [100.0], 2, [100.0], 8)
    assert found.throughput == pytest.approx(np.full(8, 100.0))
    assert np.isnan(found.low).all()
    with pytest.raises(ValueError, match="two different"):
        usl.more_nodes(2, [1.0], 2, [1.0], 8)
