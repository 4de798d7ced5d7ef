"""Runs that are too long to be held in memory are read piece by piece, with the same figures."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fix_records import a_load
from fix_runs import SECOND
from hypothesis import given, settings
from hypothesis import strategies as st

import labkit
from labkit.analysis import frames
from labkit.analysis.frames import recorded
from labkit.analysis.frames.selection import Counts, Selection
from labkit.analysis.frames.single_blocks import blocks
from labkit.experiments.measuring_honestly import findings as honesty
from labkit.run.store import Run, RunStore, read_run

FRAMES: dict[str, Callable[[Run], pd.DataFrame]] = {
    **{name: getattr(frames, name) for name in ("headline", "rounds", "per_second", "ecdf", "errors", "littles_law")},
    "utilisation": frames.utilisation,
    "blocks": blocks,
    "arms": labkit.compare.arms,
    "moments": lambda run: honesty.moments(run, "primary-only"),
    "averaged": lambda run: honesty.averaged(run, "primary-only"),
}
latencies_ms = st.one_of(st.just(0.0), st.floats(2.0**-19, 2.0**20, width=32), st.floats(10.0, 10.125, width=32))


@settings(max_examples=60, deadline=None)
@given(values=st.lists(latencies_ms, min_size=1, max_size=200), data=st.data())
def test_a_value_is_selected_by_its_place_in_the_order(values: list[float], data: st.DataObject) -> None:
    numbers = np.array(values, np.float32)
    places = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=20)))
    cut = data.draw(st.integers(0, len(values)))
    pieces = (numbers[:cut], numbers[cut:])
    selection = Selection(Counts.together(map(Counts.of, pieces)), places)
    for piece in pieces:
        selection.take(piece)
    assert selection.values().tolist() == np.sort(numbers)[places].tolist()


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run is so short that its rows are kept, and few rows are held together."""
    monkeypatch.setattr(recorded, "KEPT_ROWS", 0)
    monkeypatch.setattr(recorded, "ROWS_AT_ONCE", 3_000)


def written(folder: Path, requests: int, *, block_requests: int = 40_000, generators: int = 2) -> Path:
    """A run of one arm, each block recorded by some generators, in row groups of 2,000, some of it failing."""
    run, rng = RunStore(folder).create("read-scaling", {}), np.random.default_rng(3)
    facts = []
    for number in range(requests // block_requests):
        begin = number * 10 * SECOND
        facts.append(
            a_load(block=number, round=number, from_ns=begin, warm_until_ns=begin + SECOND, to_ns=begin + 9 * SECOND)
        )
        for generator in range(generators):
            count = block_requests // generators
            done = begin + np.sort(rng.integers(0, 10 * SECOND, count))
            latency = rng.gamma(20, SECOND / 500, count).astype(np.int64)
            failed = (rng.random(count) < 0.01).astype(np.int32)
            with run.writer("ops", f"block-{number:05d}-{generator}") as part:
                for first in range(0, count, 2_000):
                    some = slice(first, first + 2_000)
                    size = len(done[some])
                    part.write(
                        {
                            "block": np.full(size, number, np.int32),
                            "node": (np.zeros(size, np.int32), ["pg1"]),
                            "start_ns": (done - latency)[some],
                            "wait_ns": latency[some] // 3,
                            "latency_ns": latency[some],
                            "outcome": (failed[some], ("ok", "fail", "unknown")),
                            "sqlstate": (failed[some], ["", "57P01"]),
                            "rows": np.ones(size, np.int32),
                        }
                    )
    run.update(blocks=facts)
    run.mark("complete")
    return run.path


def every_frame(run: Run) -> dict[str, pd.DataFrame]:
    return {name: frame(run) for name, frame in FRAMES.items()}


def test_figures_are_the_same_whether_rows_are_kept_or_read_again(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = written(tmp_path, 80_000)
    kept = every_frame(read_run(path))
    request.getfixturevalue("in_pieces")
    again = every_frame(read_run(path))
    assert len(kept["per_second"]) == 16
    assert kept["moments"]["requests"].sum() > 20_000
    for name, frame in kept.items():
        pd.testing.assert_frame_equal(again[name], frame, rtol=1e-9, obj=name)


@pytest.mark.usefixtures("in_pieces")
def test_memory_does_not_grow_with_the_length_of_a_run(tmp_path: Path) -> None:
    def peak_bytes(path: Path) -> int:
        run = read_run(path)
        tracemalloc.start()
        for name in ("headline", "rounds", "per_second", "ecdf", "utilisation"):
            FRAMES[name](run)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    short, long = (written(tmp_path, requests) for requests in (80_000, 640_000))
    assert peak_bytes(long) < peak_bytes(short) + 3_000_000  # 13 bytes of each request would be 7 MB more


def test_a_long_arm_has_longer_spans_and_fewer_samples_with_the_same_figures(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve seconds in three rounds, drawn as if a time axis had room for six points."""
    path = make_run(rounds=3, block_s=4.0, workloads=("get-user",)).path
    whole = {"per_second": frames.per_second(read_run(path)), "resources": frames.resources(read_run(path))}
    space = frames.disk_space(read_run(path))
    monkeypatch.setattr(recorded, "MOST_SPANS", 6)
    monkeypatch.setattr("labkit.analysis.frames.samples._LEAST", 2)
    run = read_run(path)
    seconds = frames.per_second(run)
    assert len(whole["per_second"]) == 24
    assert seconds["second"].tolist() == [1, 3, 5, 7, 9, 11] * 2
    mean, before = (each.groupby("arm")["requests_per_s"].mean() for each in (seconds, whole["per_second"]))
    assert mean.to_numpy() == pytest.approx(before.to_numpy())
    usage = frames.resources(run)
    rates = usage[(usage["node"] == "pg1") & (usage["metric"] == "cpu_percent")]
    assert len(rates) == 6
    assert rates["value"].to_numpy() == pytest.approx(60)
    assert len(usage) < 0.5 * len(whole["resources"])
    series = ["arm", "node", "metric"]
    thinned, every = (each.groupby(series)["value"].mean() for each in (usage, whole["resources"]))
    assert thinned.index.equals(every.index)
    assert thinned.to_numpy() == pytest.approx(every.to_numpy(), rel=0.05)
    pd.testing.assert_frame_equal(frames.disk_space(run), space)
