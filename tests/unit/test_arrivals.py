"""Arrivals are pure: these properties hold for every schedule."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import BadInput
from labkit.lab.dataset import DatasetSpec
from labkit.lab.load.arrivals import Closed, Open, Schedule, share
from labkit.lab.load.spec import LoadSpec, Target
from labkit.lab.workloads.get_user import GetUser

values = st.floats(0, 1000)
stages = st.lists(st.tuples(values, st.floats(0, 100)), max_size=5)


@given(start=values, stages=stages, t=st.floats(0, 1000))
def test_a_schedule_stays_between_its_values(start: float, stages: list[tuple[float, float]], t: float) -> None:
    known = [start, *(value for value, _ in stages)]
    assert min(known) - 1e-9 <= Schedule(start, stages).at(t) <= max(known) + 1e-9


@given(start=values, stages=stages)
def test_a_schedule_ends_at_its_last_value(start: float, stages: list[tuple[float, float]]) -> None:
    last = stages[-1][0] if stages else start
    assert Schedule(start, stages).at(sum(seconds for _, seconds in stages) + 1) == last


def test_a_ramp_is_linear_and_a_stage_of_no_time_is_a_step() -> None:
    schedule = Schedule(0, [(100, 10), (50, 0), (50, 5)])
    assert [schedule.at(t) for t in (0, 5, 9.5, 10, 12)] == [0, 50, 95, 50, 50]


def test_all_that_is_wrong_with_the_stages_is_said_at_once() -> None:
    with pytest.raises(BadInput) as caught:
        Schedule(1, [(10, -1), (-5, 3)])
    assert len(caught.value.problems) == 2


@given(rate=st.floats(0.5, 1000), kind=st.sampled_from(["constant", "poisson"]), seed=st.integers(0, 99))
def test_arrivals_ascend_and_keep_the_rate(rate: float, kind: str, seed: int) -> None:
    n = 2000
    times = list(itertools.islice(Open(rate, kind).times(np.random.default_rng(seed)), n))  # type: ignore[arg-type]
    assert all(a <= b for a, b in itertools.pairwise(times))
    # n arrivals take n / rate seconds; a Poisson count is off by five standard deviations once in two million
    assert abs(times[-1] * rate / n - 1) < (1e-9 if kind == "constant" else 5 / n**0.5)


def test_a_ramp_of_the_rate_gives_the_area_under_it() -> None:
    arrivals = Open(0, "constant", stages=((100, 10), (0, 10)))
    times = list(arrivals.times(np.random.default_rng(0)))
    assert len(times) == 1000  # two triangles of 10 s by 100/s
    assert sum(t < 10 for t in times) == pytest.approx(500, abs=1)


def test_a_rate_of_zero_has_no_arrivals() -> None:
    assert list(Open(0).times(np.random.default_rng(0))) == []


counts = st.integers(0, 1000)
shards = st.integers(1, 9)


@given(start=values, stages=stages, begin=st.floats(0, 100), length=st.floats(0.1, 100))
def test_the_mean_of_a_schedule_is_what_many_readings_give(
    start: float, stages: list[tuple[float, float]], begin: float, length: float
) -> None:
    schedule = Schedule(start, stages)
    n = 2000
    readings = [schedule.at(begin + length * (i + 0.5) / n) for i in range(n)]
    # A reading next to a step may stand on its other side.
    assert schedule.mean(begin, begin + length) == pytest.approx(np.mean(readings), abs=1000 * 6 / n + 1)


@given(rate=st.floats(0.1, 1e6), begin=st.floats(0, 100), length=st.floats(1e-3, 1000))
def test_the_mean_of_a_rate_that_stays_is_that_rate_to_the_last_digit(rate: float, begin: float, length: float) -> None:
    """Trials of one rate are found again by it."""
    assert Schedule(rate).mean(begin, begin + length) == rate


@given(users=counts, stages=st.lists(st.tuples(counts, st.floats(0, 9)), max_size=4), n=shards)
def test_no_user_is_lost_between_shards(users: int, stages: list[tuple[float, float]], n: int) -> None:
    parts = Closed(users, 0.5, tuple(stages)).split(n)
    assert sum(part.users for part in parts) == users
    assert max(part.users for part in parts) - min(part.users for part in parts) <= 1
    for i, (value, seconds) in enumerate(stages):
        assert sum(part.stages[i][0] for part in parts) == value
        assert {part.stages[i][1] for part in parts} == {seconds}


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=5), n=shards)
def test_connections_of_shards_are_those_of_the_load_and_even(counts: list[int], n: int) -> None:
    targets = tuple(Target(f"pg{i}", "", count) for i, count in enumerate(counts))
    spec = LoadSpec(GetUser(DatasetSpec(100)), targets, Closed(100), 1, 0, 1, 0, Path("part.parquet"))
    parts = spec.split(n)
    for i, count in enumerate(counts):
        mine = [part.targets[i].connections for part in parts]
        assert sum(mine) == count
        assert max(mine) - min(mine) <= 1
    assert spec.connections == sum(counts)
    assert max(part.connections for part in parts) - min(part.connections for part in parts) <= 1


@given(total=counts, n=shards)
def test_what_remains_goes_to_the_first(total: int, n: int) -> None:
    shares = [share(total, i, n) for i in range(n)]
    assert sum(shares) == total
    assert sorted(shares, reverse=True) == shares
    assert shares[0] - shares[-1] <= 1


@given(rate=st.floats(1, 1000), n=shards, again=shards)
def test_constant_arrivals_of_shards_are_those_of_the_whole(rate: float, n: int, again: int) -> None:
    parts = [small for part in Open(rate, "constant").split(n) for small in part.split(again)]
    rng = np.random.default_rng(0)
    joined = sorted(t for part in parts for t in itertools.islice(part.times(rng), 20))
    whole = list(itertools.islice(Open(rate, "constant").times(rng), 20 * n * again))
    assert np.allclose(joined, whole)
    assert sum(part.max_in_flight for part in parts) == Open(rate).max_in_flight


@given(start=st.floats(0, 50), stages=st.lists(st.tuples(st.floats(0, 50), st.floats(0, 5)), max_size=4))
def test_as_many_arrivals_as_the_area_under_the_rate(start: float, stages: list[tuple[float, float]]) -> None:
    arrivals = Open(start, "constant", stages=(*stages, (0, 0)))
    end = sum(seconds for _, seconds in stages)
    area = arrivals.schedule().mean(0, end) * end if end else 0
    assert abs(len(list(arrivals.times(np.random.default_rng(0)))) - area) <= 1 + 1e-6
