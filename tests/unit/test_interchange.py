"""Exports: what other tools read back is what the run holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fix_cli import invoke
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from labkit import open_run, paths
from labkit.analysis import export as interchange
from labkit.analysis import frames
from labkit.analysis.frames.recorded import measured
from labkit.errors import BadInput
from labkit.run.store import Run


def read_back(path: Path) -> dict[str, HdrHistogram]:
    """The histograms of a log, added up by tag, by the package's own reader."""
    sums: dict[str, HdrHistogram] = {}
    reader = HistogramLogReader(str(path), HdrHistogram(1000, 3_600_000_000_000, 3))
    while (interval := reader.get_next_interval_histogram()) is not None:
        total = sums.setdefault(interval.get_tag(), HdrHistogram(1000, 3_600_000_000_000, 3))
        total.add(interval)
    return sums


def test_a_histogram_log_holds_every_right_answer(recorded_run: Run, tmp_path: Path) -> None:
    path = interchange.export(recorded_run, "hlog", tmp_path / "run.hlog")
    sums = read_back(path)
    for row in frames.headline(recorded_run).itertuples():
        histogram = sums.pop(f"{row.workload}.{row.arm}")
        assert histogram.get_total_count() == row.requests - row.errors
        for q in (50, 90, 99):
            assert histogram.get_value_at_percentile(q) / 1e6 == pytest.approx(getattr(row, f"p{q}_ms"), rel=0.005)
        assert histogram.get_max_value() / 1e6 == pytest.approx(row.max_ms, rel=0.002)
    assert not sums
    starts = [float(line.split(",")[1]) for line in path.read_text().splitlines() if line.startswith("Tag=")]
    assert starts == sorted(starts)
    assert len(starts) == sum(round(block.measured_s) for block in measured(recorded_run))


def test_the_summary_has_the_shape_of_k6(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(failures={("get-user", "primary-only"): 7})
    content = json.loads(interchange.export(run, "k6", tmp_path / "k6.json").read_text(encoding="utf-8"))
    assert set(content) == {"root_group", "options", "state", "metrics"}
    head = frames.headline(run)
    for row in head.itertuples():
        tags = f"{{workload:{row.workload},arm:{row.arm}}}"
        duration = content["metrics"]["iteration_duration" + tags]
        assert duration["type"] == "trend"
        assert duration["contains"] == "time"
        values = duration["values"]
        assert [values[k] for k in ("avg", "med", "p(90)", "p(95)", "p(99)", "max")] == pytest.approx(
            [row.mean_ms, row.p50_ms, row.p90_ms, row.p95_ms, row.p99_ms, row.max_ms]
        )
        checks = content["metrics"]["checks" + tags]["values"]
        assert (checks["passes"], checks["fails"]) == (row.requests - row.errors, row.errors)
        assert content["metrics"]["iterations" + tags]["values"]["count"] == row.requests
    assert content["metrics"]["iterations"]["values"]["count"] == head["requests"].sum()
    pooled = np.concatenate([rows.right("latency") for block in measured(run) for rows in block.rows()])
    assert content["metrics"]["iteration_duration"]["values"]["med"] == pytest.approx(float(np.median(pooled)))
    assert content["metrics"]["vus"]["values"]["max"] == run.parameters["vus"]


def test_an_open_run_reports_what_was_dropped(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(failures={("get-user", "primary-only"): 7}, sqlstate="LK002", offered_per_s=1000.0)
    content = json.loads(interchange.export(run, "k6", tmp_path / "k6.json").read_text(encoding="utf-8"))
    tags = "{workload:get-user,arm:primary-only}"
    assert content["metrics"]["dropped_iterations" + tags]["values"]["count"] == 7 * 3  # in three rounds
    assert content["metrics"]["checks" + tags]["values"]["fails"] == 0
    assert "vus" not in content["metrics"]


def test_the_trials_of_a_matrix_are_rows_and_no_other_run_has_them(recorded_run: Run, tmp_path: Path) -> None:
    matrix = open_run(max((paths.sample_runs() / "durability-matrix").iterdir()))
    rows = pd.read_csv(interchange.export(matrix, "trials", tmp_path / "trials.csv"))
    assert rows["run"].unique().tolist() == [matrix.path.name]
    assert rows["seed"].tolist() == [block.seed for block in matrix.blocks]
    assert rows["lost"].tolist() == [block.counts.lost for block in matrix.blocks]
    with pytest.raises(BadInput, match="trials are those of a durability-matrix"):
        interchange.export(recorded_run, "trials", tmp_path / "none.csv")
    with pytest.raises(BadInput, match="no arms to tell latencies of"):
        interchange.export(matrix, "k6", tmp_path / "none.json")


@pytest.mark.parametrize(("name", "suffix"), [("hlog", ".hlog"), ("k6", ".json")])
def test_the_command_writes_into_the_run(make_run: Callable[..., Run], name: str, suffix: str) -> None:
    run = make_run(rounds=1)
    done = invoke("export", str(run.path), "--format", name)
    assert done.exit_code == 0
    assert Path(done.output.strip()) == run.derived / f"{name}{suffix}"
    assert invoke("export", "no-such-run", "--format", name).exit_code == 2
