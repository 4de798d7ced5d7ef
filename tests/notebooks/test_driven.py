"""`labkit run` from the outside: it drives real servers, and is interrupted while it does."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fix_driven import command, interrupted, nodes_running, with_parameters

from labkit.analysis import frames
from labkit.run.store import RunStore

RUN_S = 240
BEGIN_S = 120
END_S = 90
SMALL = (
    *("users=2000", "vus=20", "connections=4", "warmup_s=0.2", "sample_interval_s=0.2", "cluster=driven"),
    *("repeat_disturbed=0", "interventions_s=0"),  # tests/cluster/test_disturbed.py is about these
)


def test_a_run_is_driven_reported_and_leaves_no_server_behind(environment: dict[str, str], data: Path) -> None:
    words = command("run", "read-scaling", "--json", *with_parameters(*SMALL, "duration_s=2", "rounds=2"))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["valid"]
    assert {(row["workload"], row["arm"]) for row in summary["headline"]} == {
        (workload, arm)
        for workload in ("get-user", "search-users")
        for arm in ("primary-only", "replicas-round-robin", "primary-only-more-connections")
    }
    assert all(row["requests_per_s"] > 100 and row["errors"] == 0 for row in summary["headline"])
    run = RunStore(data / "runs").latest()
    assert run.status == "complete"
    assert [[str(what) for what in pair.differs] for pair in run.record.comparisons] == [
        ["nodes that serve reads: pg1 → pg2, pg3"],
        ["connections: 4 → 8"],
    ]
    assert {(*block.connections.values(),) for block in run.blocks} == {(4,), (2, 2), (8,)}
    assert Path(summary["report"]).read_text(encoding="utf-8").count("<figure>") >= 14
    assert {path.name for path in run.derived.iterdir()} >= {"notebook.ipynb", "report.html", "summary.json"}
    assert nodes_running(environment) == [False, False, False]


def everywhere_and_again(pid: int) -> None:
    """SIGTERM as batch systems and `timeout` send it: to all that a command has started, and more than once."""
    below = psutil.Process(pid).children(recursive=True)
    assert len([each for each in below if "spawn_main" in " ".join(each.cmdline())]) == 1, "the load generator"
    for each in [psutil.Process(pid), *(each for each in below if each.name() != "postgres")]:
        each.terminate()
    os.killpg(pid, signal.SIGTERM)


def test_sigterm_keeps_what_was_measured_and_leaves_no_process(driven: dict[str, str], data: Path) -> None:
    words = command("run", "read-scaling", *with_parameters(*SMALL, "duration_s=600", "rounds=1000"))
    done, run = interrupted(words, driven, lambda run: len(run.blocks) >= 2, BEGIN_S, END_S, everywhere_and_again)
    assert done.returncode == 143, done.stderr
    assert done.stderr.splitlines()[-1].startswith("interrupted by SIGTERM; what was measured until then")
    assert "Traceback" not in done.stderr
    assert (run.status, run.problem) == ("failed", "interrupted by SIGTERM")
    assert run.blocks[-1].interrupted, "the load generator has written what it had"
    assert [each.pid for each in psutil.process_iter() if belongs_to(each, data)] == []
    assert frames.headline(run)["requests"].sum() > 0
    assert nodes_running(driven) == [False, False, False]


def belongs_to(process: psutil.Process, data: Path) -> bool:
    """Whether it works with that data folder."""
    with contextlib.suppress(psutil.Error):
        return str(data) in process.environ().get("LABKIT_DATA", "") or str(data) in " ".join(process.cmdline())
    return False


@pytest.fixture
def full_disk(data: Path) -> Iterator[Path]:
    """The runs' folder on a disk of 900 kB."""
    if os.geteuid():
        pytest.skip("mounting a small disk needs root")
    runs = data / "runs"
    runs.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(runs)], check=True)
    yield runs
    subprocess.run(["umount", str(runs)], check=True)


def test_a_full_disk_ends_the_run_with_one_clear_error(driven: dict[str, str], full_disk: Path) -> None:
    small = [each for each in SMALL if not each.startswith("vus=")]
    words = command(
        "run", "read-scaling", *with_parameters(*small, "duration_s=50", "rounds=100", "vus=0", "rate=16000")
    )
    done = subprocess.run(words, env=driven, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 2
    assert "is full" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    run = RunStore(full_disk).latest()
    assert run.status == "failed"
    assert len(run.table("ops")) > 0
    assert nodes_running(driven) == [False, False, False]
