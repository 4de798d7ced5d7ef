"""The failover notebook from the outside: with its steps taken at once, and by hand, also where a cell fails."""

from __future__ import annotations

import subprocess
from pathlib import Path

import nbformat
import pytest
from fix_driven import command, interrupted, nodes_running, with_parameters

from labkit.run.schema.events import WritingAgain
from labkit.run.store import Run, RunStore

RUN_S = 150
BEGIN_S = 90
END_S = 60
SMALL = ("cluster=driven", "writers=4", "before_s=0.4", "sample_interval_s=0.2")
REFUSED = ("mode=async", "level=local", "fault=kill-all-behind", "max_lag_bytes=0")


def failover(*pairs: str) -> list[str]:
    return command("run", "failover", *with_parameters(*SMALL, *pairs))


@pytest.mark.parametrize("by_hand", [True, False])
def test_each_cell_shows_its_step(driven: dict[str, str], data: Path, by_hand: bool) -> None:
    words = failover(f"by_hand={by_hand}", "after_s=0.2")
    done = subprocess.run(words, env=driven, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 0, done.stderr
    run = RunStore(data / "runs").latest()
    assert (run.status, run.blocks[0].verdict) == ("complete", "true")
    executed = nbformat.read(run.derived / "notebook.ipynb", as_version=4)
    shown = {cell.source: str(cell.outputs) for cell in executed.cells if cell.cell_type == "code"}
    assert "is the primary" in shown["drill.promote()"]
    assert "rows read back" in shown["drill.read_back()"]
    assert "no note of it" not in str(shown)
    assert ("taken by hand" in shown["findings.verdicts(run)"]) == by_hand
    assert nodes_running(driven) == [False, False, False]


def test_a_cell_that_is_refused_ends_the_drill_and_its_servers(driven: dict[str, str], data: Path) -> None:
    words = failover("by_hand=true", "after_s=0.2", *REFUSED)
    done = subprocess.run(words, env=driven, capture_output=True, text=True, timeout=RUN_S, check=False)
    assert done.returncode == 2
    assert "nothing was promoted" in done.stderr
    assert "Traceback" not in done.stderr
    run = RunStore(data / "runs").latest()
    assert run.status == "failed"
    assert "decide() ended with Refused" in run.problem
    assert nodes_running(driven) == [False, False, False]


def in_stop_writing(run: Run) -> bool:
    """Whether the cell after repoint's has begun: it takes 600 s, and the one before ends soon after its event."""
    return any(run.now_ns() - event.t_ns > 3e9 for event in run.events_of(WritingAgain))


def test_ctrl_c_in_a_cell_by_hand_ends_the_drill_and_its_servers(driven: dict[str, str]) -> None:
    words = failover("by_hand=true", "after_s=600")
    done, run = interrupted(words, driven, in_stop_writing, BEGIN_S, END_S)
    assert done.returncode == 130, done.stderr
    assert run.status == "failed"
    assert run.problem.startswith(
        "the drill was left after repoint(), before its end; stop_writing() was interrupted by Ctrl-C"
    )
    assert nodes_running(driven) == [False, False, False]
