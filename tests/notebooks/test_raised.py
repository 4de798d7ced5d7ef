"""An error of labkit's in an executed notebook: short in the copy, and with all its fields for the command line."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from labkit import interrupts
from labkit.analysis.report import report
from labkit.cli import wording
from labkit.errors import LabkitError, RunError
from labkit.remedies import Remedy

RAISES = """
from labkit.errors import ClusterError
from labkit.remedies import Remedy
error = ClusterError("it hangs", node="pg1", remedy=Remedy("rejoin", "helps", node="pg1", name="own"), log_tail="FATAL")
error.add_note("What was measured is kept.")
raise error
"""
INTERRUPTED = """
import os, signal
from labkit.lab.load.shards import LoadInterrupted
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt as interrupt:
    os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
    raise LoadInterrupted([]) from interrupt
"""


def notebook(folder: Path, source: str) -> Path:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "raises.ipynb"
    nbformat.write(made, path)
    return path


def test_it_comes_back_with_its_fields_and_is_put_into_the_shell_s_words(tmp_path: Path) -> None:
    copy = tmp_path / "copy.ipynb"
    with pytest.raises(LabkitError) as caught:
        report.execute(notebook(tmp_path, RAISES), {}, output=copy)
    error = caught.value
    assert (error.reason, error.node, error.log_tail) == ("it hangs", "pg1", "FATAL")
    assert error.remedy == Remedy("rejoin", "helps", node="pg1", name="own")
    assert wording.explain(error).splitlines() == [
        f"pg1: it hangs; `labkit rejoin pg1 --name own` helps, or see the executed notebook, {copy}",
        "  last lines of the log of pg1:",
        "    FATAL",
        "What was measured is kept.",
    ]
    (shown,) = [
        output
        for cell in nbformat.read(copy, as_version=4).cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert shown.traceback == ["line 5: raise error", *shown.traceback[1:]]
    assert shown.traceback[1].startswith("ClusterError: pg1: it hangs; rejoining pg1 to cluster own helps")


def test_a_kernel_that_was_interrupted_ends_as_an_interrupted_command_does(tmp_path: Path) -> None:
    """Whoever sent the signal: what is told is one line, and no exception without a word of its own."""
    with pytest.raises(KeyboardInterrupt) as caught:
        report.execute(notebook(tmp_path, INTERRUPTED), {}, output=tmp_path / "copy.ipynb")
    assert interrupts.exit_code(caught.value) == 143


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    copy = tmp_path / "copy.ipynb"
    with pytest.raises(
        RunError, match=r"raises\.ipynb, cell 1: ZeroDivisionError: .*see the executed notebook, "
    ) as bug:
        report.execute(notebook(tmp_path, "1 / 0"), {}, output=copy)
    assert str(copy) in str(bug.value)
    assert "Traceback" in copy.read_text(encoding="utf-8")
