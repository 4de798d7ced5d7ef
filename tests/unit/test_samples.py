"""How samples are recorded: what is asked for, and what is kept of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import samples
from labkit import paths
from labkit.analysis import frames
from labkit.checkers import evidence
from labkit.experiments.catalogue import EXPERIMENTS
from labkit.run.store import Run, RunStore, read_run


def test_every_experiment_has_a_preset_for_its_sample_and_each_can_be_run() -> None:
    names = samples.names()
    assert {samples.experiment_of(name) for name in names} == set(EXPERIMENTS)
    for name in names:
        EXPERIMENTS[samples.experiment_of(name)].parameters.load(samples.PRESETS / f"{name}.yaml")


def test_every_experiment_has_a_recorded_sample_that_nothing_disturbed() -> None:
    runs = [read_run(path) for path in RunStore(paths.sample_runs()).paths()]
    assert {run.experiment for run in runs} == set(EXPERIMENTS)
    for run in runs:
        assert frames.disturbed_blocks(run) == frozenset(), run.id
        assert evidence.problems(run) == [], run.id
        assert len(EXPERIMENTS[run.experiment].findings.headline(run)), run.id


def test_the_commands_that_record_them_are_listed() -> None:
    text = (paths.home() / "data" / "README.md").read_text(encoding="utf-8")
    listed = [
        line.split("NAME=")[1].split()[0] for line in text.splitlines() if line.startswith("    make sample NAME=")
    ]
    assert sorted(listed) == samples.names()


def test_what_is_kept_of_a_run_is_what_its_figures_are_drawn_from(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(rounds=1)
    run.keep_log("pg1", "/home/somebody")
    (run.derived / "report.html").write_text("")
    (run.path / ".driven").touch()
    kept = samples.keep(run, tmp_path / "sample")
    assert sorted(path.name for path in kept.iterdir()) == ["ops", "run.json", "samples"]
    assert kept.stat().st_mode & 0o777 == 0o755
    assert frames.headline(read_run(kept)).equals(frames.headline(run))
    assert frames.resources(read_run(kept)).equals(frames.resources(run))
    before = samples.size_bytes(kept)
    assert before == sum(path.stat().st_size for path in kept.rglob("*.*") if path.is_file())
    read_run(kept).derived.joinpath("report.html").write_text("drawn again")
    assert samples.size_bytes(kept) == before


def test_tables_that_no_report_is_drawn_from_stay_out(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(rounds=1)
    run.update(experiment="quorum-commit")  # type: ignore[call-arg]
    kept = samples.keep(run, tmp_path / "sample")
    assert not (kept / "ops").exists()
    assert (kept / "samples").exists()
