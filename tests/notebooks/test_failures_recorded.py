"""The notebooks about losing a primary, on the recorded runs that come with labkit: no server is driven."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from fix_cli import invoke
from fix_notebooks import figures, smallest_px

from labkit import paths
from labkit.analysis.frames import trials
from labkit.analysis.report import report
from labkit.experiments import catalogue
from labkit.experiments.durability_matrix import findings as durability
from labkit.experiments.failover import findings as recovery
from labkit.run.store import Run, RunStore

EXPERIMENTS = ("failover", "durability-matrix", "quorum-commit", "promotion-crash")


def samples(experiment: str) -> list[Run]:
    store = RunStore(paths.sample_runs())
    return [store.open(path) for path in store.paths() if path.parent.name == experiment]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_recorded_run_is_drawn_with_its_verdicts(experiment: str, tmp_path: Path) -> None:
    kind = catalogue.experiment(experiment)
    recorded = samples(experiment)[0]
    executed = report.execute(kind.notebook_path, {"run_id": str(recorded.path)}, output=tmp_path / "out.ipynb")
    shown = executed.path.read_text(encoding="utf-8")
    for sentence in kind.findings.verdicts(recorded)[:2]:
        assert json.dumps(sentence, ensure_ascii=False)[1:-1].split("`")[0][:60] in shown
    assert all(kind.findings.validity(run) == [] for run in samples(experiment))
    assert 1 <= len(kind.findings.lead(recorded)) <= 3
    for output in figures(executed.notebook):
        assert smallest_px(output.data["image/svg+xml"], 400) >= 9


def test_the_audit_of_a_recorded_failover_can_be_repeated() -> None:
    for recorded in samples("failover"):
        done = invoke("audit", str(recorded.path), "--json")
        (judged,) = json.loads(done.stdout)
        assert judged["counts"] == recorded.blocks[0].counts.as_json()
        assert judged["verdict"] == recorded.blocks[0].verdict
        assert done.exit_code == 0, "rows were lost in one of them, which async replication allows"


def test_a_recorded_loss_is_shown_by_key_and_commit() -> None:
    (losing,) = [run for run in samples("failover") if run.blocks[0].counts.lost]
    lost = recovery.lost(losing)
    assert len(lost) > 0
    assert lost["commit LSN"].str.match(r"[0-9A-F]+/[0-9A-F]+").all()
    assert len(recovery.ghosts(losing)) > 0


def test_a_hundred_kills_and_no_loss_bound_the_rate_near_three_percent() -> None:
    hundred = next(run for run in samples("durability-matrix") if run.parameters["kills"] >= 100)
    cells = durability.cells(hundred).set_index(["mode", "level", "fault"])
    quorum, asynchronous = cells.loc[("ANY 1", "on", "kill")], cells.loc[("async", "on", "kill")]
    assert (quorum["losing"], quorum["unknown"]) == (0, 0)
    assert quorum["trials"] >= 100
    assert quorum["bound"] < 0.03
    assert asynchronous["losing"] > 0
    *_, kept, lost = durability.lead(hundred)
    assert f"waited for a replica (ANY 1/on) all survived, {int(quorum['acknowledged']):,} rows in 110 trials" in kept
    assert f"waited for no replica (async/on) were lost in {int(asynchronous['losing'])} of 110 trials of kill" in lost
    assert quorum["rto_p50_ms"] <= 300
    assert quorum["rto_p99_ms"] <= 1000
    assert trials.trials(hundred)["took_s"].max() <= 10


def test_every_recorded_kill_is_a_row_of_the_reference() -> None:
    rows = pd.read_csv(paths.reference() / "failover_trials.csv")
    for run in samples("durability-matrix"):
        mine = rows[rows["run"] == run.path.name]
        assert mine["seed"].tolist() == [block.seed for block in run.blocks]
        assert mine["lost"].tolist() == [block.counts.lost for block in run.blocks]
    assert len(rows) == sum(len(run.blocks) for run in samples("durability-matrix"))
