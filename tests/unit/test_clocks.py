"""Clocks of other machines: the true offset lies within the bound, whatever the delays are."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from labkit.errors import LoadError
from labkit.lab.load import clocks, shards
from labkit.lab.load.clocks import Clock, exchange, host_id, read_clock

HOUR_NS = 3_600_000_000_000


def test_the_offset_of_a_distant_clock_lies_within_its_bound() -> None:
    def read(_: int) -> tuple[str, int]:
        # Delays on the way there and back differ, as on a network.
        time.sleep(0.02 + random.uniform(0, 0.01))
        reading = time.monotonic_ns() + HOUR_NS
        time.sleep(random.uniform(0, 0.01))
        return "elsewhere", reading

    with ThreadPoolExecutor(2) as executor:
        clock = exchange(executor, 2, read)["elsewhere"]
    assert abs(clock.offset_ns - HOUR_NS) <= clock.bound_ns < 10_000_000


def test_workers_on_this_machine_have_its_clock() -> None:
    with ThreadPoolExecutor(2) as executor:
        assert exchange(executor, 2, read_clock) == {host_id(): Clock(0, 0)}


def test_workers_that_do_not_answer_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "_TIMEOUT_S", 0.05)

    def read(_: int) -> tuple[str, int]:
        time.sleep(0.5)
        return "slow", 0

    with ThreadPoolExecutor(1) as executor, pytest.raises(LoadError, match="not all answered"):
        exchange(executor, 2, read)


def test_a_worker_whose_clock_was_not_compared_runs_no_load() -> None:
    with pytest.raises(LoadError, match="clock was not compared"):
        shards.run_elsewhere(None, {"another host": Clock(0, 0)})  # type: ignore[arg-type]
