"""Frames of a synthetic run say what was put into it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fix_records import a_host_cpu, a_load
from fix_runs import NODES, SECOND, UNMEASURED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.analysis import frames
from labkit.analysis.frames.diagnosis import WRONG_ANSWER
from labkit.analysis.report import tables
from labkit.analysis.statistics import compare
from labkit.errors import RunUnreadable
from labkit.experiments.read_scaling import findings as conclusions
from labkit.lab.load import records
from labkit.run.store import Run, RunStore

MakeRun = Callable[..., Run]


def of(frame: pd.DataFrame, workload: str = "get-user", arm: str = "primary-only") -> pd.DataFrame:
    return frame[(frame["workload"] == workload) & (frame["arm"] == arm)]


def measured_ops(run: Run, workload: str, arm: str) -> pd.DataFrame:
    """The definition in words: answers that came inside the measured part of a block."""
    ops = run.table("ops")
    ops["done_ns"] = ops["start_ns"] + ops["latency_ns"]
    parts = [
        ops[(ops["block"] == b.block) & (ops["done_ns"] >= b.warm_until_ns) & (ops["done_ns"] < b.to_ns)]
        for b in run.blocks
        if (b.workload, b.arm) == (workload, arm)
    ]
    return pd.concat(parts)


def test_headline_counts_only_answers_after_the_warm_up(recorded_run: Run) -> None:
    ops = measured_ops(recorded_run, "search-users", "replicas-round-robin")
    row = of(frames.headline(recorded_run), "search-users", "replicas-round-robin").iloc[0]
    assert row["requests"] == len(ops)
    assert row["requests_per_s"] == pytest.approx(len(ops) / 6.0)
    assert len(ops) < (recorded_run.table("ops")["block"].isin([7, 8, 11])).sum()


def test_percentiles_are_those_of_all_rounds_pooled(recorded_run: Run) -> None:
    latency_ms = measured_ops(recorded_run, "get-user", "primary-only")["latency_ns"] / 1e6
    row = of(frames.headline(recorded_run)).iloc[0]
    expected = np.percentile(latency_ms, [50, 90, 95, 99])
    assert row[["p50_ms", "p90_ms", "p95_ms", "p99_ms"]].to_numpy(float) == pytest.approx(expected, rel=1e-6)
    assert row["mean_ms"] == pytest.approx(latency_ms.mean(), rel=1e-6)
    assert row["max_ms"] == pytest.approx(latency_ms.max(), rel=1e-6)


def test_errors_are_counted_and_kept_out_of_latency(make_run: MakeRun) -> None:
    run = make_run(failures={("get-user", "primary-only"): 30}, rounds=2)
    run.update(blocks=[block.changed(problems={"57P01": f"first of {block.block}"}) for block in run.blocks])
    row = of(frames.headline(run)).iloc[0]
    assert row["errors"] == 60
    assert row["requests_per_s"] == pytest.approx((row["requests"] - 60) / 4.0)
    assert frames.errors(run).to_dict("records") == [
        {"workload": "get-user", "arm": "primary-only", "sqlstate": "57P01", "requests": 60, "message": "first of 0"}
    ]
    assert of(frames.per_second(run))["errors_per_minute"].sum() == pytest.approx(60 * 60)


def test_rounds_add_up_to_the_headline(recorded_run: Run) -> None:
    rounds, headline = frames.rounds(recorded_run), frames.headline(recorded_run)
    assert len(rounds) == 12
    assert rounds.groupby(["workload", "arm"])["requests"].sum().sum() == headline["requests"].sum()
    assert rounds["wait_p50_ms"].to_numpy() == pytest.approx(0.2 * rounds["p50_ms"].to_numpy(), rel=0.01)


def test_seconds_cover_the_measured_time_once_and_never_span_two_rounds(make_run: MakeRun) -> None:
    run = make_run(block_s=2.7, rounds=2)
    seconds = of(frames.per_second(run))
    assert len(seconds) == 6  # three bins of 0.9 s in each of two rounds: no remainder
    assert seconds["second"].tolist() == pytest.approx([0.45, 1.35, 2.25, 3.15, 4.05, 4.95])
    assert seconds["round"].tolist() == [0, 0, 0, 1, 1, 1]
    total = (seconds["requests_per_s"] * 0.9).sum()
    assert total == pytest.approx(of(frames.headline(run))["requests"].iloc[0])
    assert (seconds["service_p50_ms"] < seconds["p50_ms"]).all()


def test_distribution_rises_to_one_at_the_slowest_request(recorded_run: Run) -> None:
    curve, row = of(frames.ecdf(recorded_run)), of(frames.headline(recorded_run)).iloc[0]
    assert curve["share"].is_monotonic_increasing
    assert curve["latency_ms"].is_monotonic_increasing
    assert curve["share"].iloc[-1] == 1.0
    assert curve["latency_ms"].iloc[-1] == pytest.approx(row["max_ms"])
    assert np.interp(0.5, curve["share"], curve["latency_ms"]) == pytest.approx(row["p50_ms"], rel=0.01)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    latencies=st.lists(st.integers(1, 10**10), min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=3),
    ok=st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_figures_do_not_depend_on_how_requests_were_written(
    tmp_path: Path, latencies: list[int], cuts: list[int], ok: list[bool]
) -> None:
    run = RunStore(tmp_path).create("read-scaling", {})
    latency = np.array(latencies, np.int64)
    outcome = np.where(ok[: len(latency)], 0, 1).astype(np.int32)
    done = np.linspace(0, 10 * SECOND - 1, len(latency)).astype(np.int64)
    edges = sorted({0, len(latency), *(c for c in cuts if c < len(latency))})
    for number, (a, b) in enumerate(itertools.pairwise(edges)):
        with run.writer("ops", f"part-{number}") as part:
            part.write(
                {
                    "block": np.zeros(b - a, np.int32),
                    "node": (np.zeros(b - a, np.int32), ["pg1"]),
                    "start_ns": (done - latency)[a:b],
                    "wait_ns": np.zeros(b - a, np.int64),
                    "latency_ns": latency[a:b],
                    "outcome": (outcome[a:b], ("ok", "fail", "unknown")),
                    "sqlstate": (outcome[a:b], ["", "57P01"]),
                    "rows": np.ones(b - a, np.int32),
                }
            )
    run.update(blocks=[a_load(vus=1, to_ns=10 * SECOND)])
    run.mark("complete")
    row = frames.headline(run).iloc[0]
    right = latency[outcome == 0] / 1e6
    assert row["requests"] == len(latency)
    assert row["errors"] == len(latency) - len(right)
    if len(right):
        assert row["p99_ms"] == pytest.approx(np.percentile(right, 99), rel=1e-5)
        assert row["mean_ms"] == pytest.approx(right.mean(), rel=1e-5)
    else:
        assert np.isnan(row["p99_ms"])


def test_counters_become_rates_and_gauges_stay(recorded_run: Run) -> None:
    usage = frames.resources(recorded_run)
    by_metric = usage.groupby(["node", "metric"])["value"].mean()
    assert by_metric["pg1", "cpu_percent"] == pytest.approx(60)
    assert by_metric["generator", "cpu_percent"] == pytest.approx(40)
    assert by_metric["pg3", "read_bytes_per_s"] == pytest.approx(2**20)
    assert by_metric["host", "load5"] == 1.5
    assert not usage["metric"].str.endswith("_total").any()
    assert usage["second"].between(0, 6).all()


def test_a_counter_that_fell_gives_no_rate_and_none_spans_two_blocks(make_run: MakeRun) -> None:
    run = make_run(rounds=2, workloads=("get-user",))
    samples = run.table("samples")
    restarted = run.blocks[1].warm_until_ns + SECOND
    counted = (samples["node"] == "pg1") & (samples["metric"] == "cpu_seconds_total")
    samples.loc[counted & (samples["t_ns"] >= restarted), "value"] -= 1000.0
    (run.path / "samples" / "sampler.parquet").unlink()
    with run.writer("samples", "sampler") as part:
        part.write({name: samples[name].tolist() for name in samples.columns})
    usage = frames.resources(run)
    rates = usage[(usage["node"] == "pg1") & (usage["metric"] == "cpu_percent")]
    assert rates["value"].to_numpy() == pytest.approx(60)
    whole = usage[(usage["node"] == "pg2") & (usage["metric"] == "cpu_percent")]
    assert len(rates) == len(whole) - 1


def test_disk_space_is_that_of_the_first_and_the_last_sample(recorded_run: Run) -> None:
    space = frames.disk_space(recorded_run).set_index(["node", "metric"])
    assert space.loc[("pg1", "data_directory_bytes"), "first"] == 100 * 2**20
    times = recorded_run.table("samples")["t_ns"]
    assert space.loc[("pg3", "data_directory_bytes"), "last"] == (100 + times.max() / SECOND) * 2**20


def test_what_was_not_measured_has_a_reason_and_no_rows(recorded_run: Run) -> None:
    missing, usage = frames.not_measured(recorded_run), frames.resources(recorded_run)
    assert set(missing["metric"]) == {"received_bytes_per_s", "sent_bytes_per_s"}
    assert set(missing["node"]) == set(NODES)
    assert set(missing["reason"]) == {UNMEASURED}
    assert not usage["metric"].isin(missing["metric"]).any()


def test_what_was_busy_is_in_cores_and_adds_up_to_the_machine(make_run: MakeRun) -> None:
    found = frames.utilisation(make_run(rounds=1, host_cpu=a_host_cpu(others=0.1, idle=0.4)))
    parts = found[[name for name in found if name.endswith("_cores")]]
    assert parts.sum(axis="columns").to_numpy() == pytest.approx(2)
    assert found["pg1_cores"].to_numpy() == pytest.approx(0.8)
    assert found["others_cores"].to_numpy() == pytest.approx(0.1)
    table = tables.utilisation(make_run(rounds=1, host_cpu=a_host_cpu()))
    assert {"pg1, cores", "load generator, cores", "other programs, cores", "idle, cores"} <= set(table.columns)
    assert not any("% of" in name for name in table.columns), "one unit for all of it"


def test_time_that_a_cpu_limit_held_a_server_back_is_told(make_run: MakeRun) -> None:
    run = make_run(rounds=1)
    t_ns = np.arange(0, run.blocks[-1].to_ns, SECOND // 2)
    with run.writer("samples", "throttling") as part:
        part.write(
            {
                "t_ns": t_ns,
                "node": ["pg1"] * len(t_ns),
                "metric": ["throttled_seconds_total"] * len(t_ns),
                "value": t_ns / SECOND * 0.4,
            }
        )
    assert frames.utilisation(run)["throttled_percent"].to_numpy() == pytest.approx(40)


def test_short_rounds_and_replaced_ones_are_in_no_figure(make_run: MakeRun) -> None:
    plain = make_run(rounds=3, seed=5)
    run = make_run(rounds=3, seed=5, changes={"connections doubled": 2.0})
    for frame_of in (frames.headline, frames.rounds, frames.per_second, frames.ecdf, frames.littles_law, frames.blocks):
        pd.testing.assert_frame_equal(frame_of(run), frame_of(plain))
    assert len(frames.resources(run)) == len(frames.resources(plain))
    run = make_run(rounds=3, seed=5)
    run.update(blocks=[block.changed(replaced=block.round == 1) for block in run.blocks])
    assert set(frames.rounds(run)["round"]) == {0, 2}
    assert frames.headline(run)["measured_s"].to_numpy() == pytest.approx(4)
    assert set(compare.arms(run)["n"]) == {2}


def test_littles_law_holds_for_what_it_should_and_flags_what_it_should_not(make_run: MakeRun) -> None:
    run = make_run(rounds=2)
    assert frames.littles_law(run)["ok"].all()
    run = make_run(rounds=2)
    run.update(blocks=[block.changed(vus=60) for block in run.blocks])
    law = frames.littles_law(run)
    assert not law["ok"].any()
    assert law["deviation_percent"].to_numpy() == pytest.approx(-100 / 6, abs=1.5)


def test_a_clean_run_is_valid(recorded_run: Run) -> None:
    assert frames.validity(recorded_run) == []


def test_wrong_answers_errors_and_failures_make_a_run_invalid(make_run: MakeRun) -> None:
    run = make_run(wrong=2, failures={("search-users", "replicas-round-robin"): 100}, rounds=1, status="failed")
    problems = "\n".join(frames.validity(run))
    assert "the run did not come to its end: the load was interrupted" in problems
    assert "get-user, primary-only: 2 answers were wrong" in problems
    assert "search-users, replicas-round-robin: 5" in problems
    assert len(frames.validity(run)) == 3


def test_wrong_answers_are_known_by_the_state_that_the_load_records() -> None:
    assert records.WRONG_ANSWER == WRONG_ANSWER


def test_a_run_cut_off_before_it_was_measured_is_unreadable(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("read-scaling", {})
    with pytest.raises(RunUnreadable, match="cut off before anything was measured"):
        frames.headline(run)
    assert frames.resources(run).empty


def test_requests_of_a_block_that_was_cut_off_are_left_out(make_run: MakeRun) -> None:
    run = make_run(rounds=2)
    run.update(blocks=run.blocks[:-1])
    headline = frames.headline(run)
    assert of(headline, "search-users", "primary-only")["measured_s"].iloc[0] == pytest.approx(2.0)
    assert len(frames.rounds(run)) == 7


def test_the_original_report_in_the_shape_of_headline(recorded_run: Run) -> None:
    reference = frames.reference()
    assert list(reference.columns) == list(frames.headline(recorded_run).columns)
    row = of(reference).iloc[0]
    assert (row["requests"], row["errors"]) == (856_449, 0)
    assert row["requests_per_s"] == pytest.approx(2853.0007)
    assert row["p95_ms"] == 580.42
    assert reference["p99_ms"].isna().all()


def test_an_open_run_tells_what_was_asked_for_and_dropped(make_run: Callable[..., Run]) -> None:
    run = make_run(failures={("get-user", "primary-only"): 7}, sqlstate="LK002", offered_per_s=1000.0, wait_share=0.5)
    head = frames.headline(run)
    assert frames.is_open(run)
    assert head["dropped"].tolist() == [21, 0, 0, 0]
    assert (head["offered_per_s"] == 1000).all()
    assert head["service_p99_ms"].to_numpy() == pytest.approx(head["p99_ms"].to_numpy() / 2, rel=1e-3)
    assert frames.littles_law(run).empty
    table = tables.headline(run)
    assert table.loc[("get-user", "dropped"), "primary alone"] == "21"
    assert "asked for/s" not in tables.headline(make_run()).index.get_level_values(1)
    # Its throughput is what was asked for, so no sentence compares it.
    assert not any("requests per second" in sentence for sentence in conclusions.verdicts(run))
    assert "open" in tables.littles_law(run).to_string()


def test_users_who_think_fulfil_little_s_law(make_run: Callable[..., Run]) -> None:
    run = make_run(vus=50)
    blocks = [block.changed(vus=100, think_s=0.05) for block in run.blocks]  # 1,000/s x (50 ms + 50 ms)
    run.update(blocks=blocks)
    assert frames.littles_law(run)["ok"].all()


def test_a_block_too_short_for_a_sample_has_no_resources(make_run: Callable[..., Run]) -> None:
    run = make_run(rounds=1)
    short = [block.changed(from_ns=block.from_ns + 1, to_ns=block.from_ns + 2) for block in run.blocks]
    run.update(blocks=[block.changed(warm_until_ns=block.from_ns) for block in short])
    assert frames.resources(run).empty
    assert frames.utilisation(run)["throttled_percent"].isna().all()
