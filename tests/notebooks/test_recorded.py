"""The notebooks on recorded runs: no server is driven, by papermill and by labkit alike."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from fix_cli import invoke
from fix_notebooks import figures, smallest_px
from fix_runs import UNMEASURED, Recipe, build

from labkit import paths
from labkit.analysis.report import report
from labkit.errors import LabkitError
from labkit.experiments.read_scaling import findings as read_scaling
from labkit.run.store import Run

EXECUTION_S = 180
ANYWHERE_ELSE = re.compile(r"""(?:src|href)\s*=\s*["'](?!data:|\#)|url\(\s*["']?(?!data:)|@import""", re.IGNORECASE)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    root = tmp_path_factory.mktemp("notebooks") / "runs"
    return build(root, Recipe(rounds=2)), build(root, Recipe(rounds=3, rate=1200.0, seed=2))


@pytest.fixture(scope="module")
def executed(runs: tuple[Run, Run]) -> report.Executed:
    return report.execute(paths.notebooks() / "read_scaling.ipynb", {"run_id": str(runs[0].path)})


@pytest.fixture(scope="module")
def page(executed: report.Executed, runs: tuple[Run, Run]) -> str:
    return report.publish(executed, runs[0], read_scaling).read_text(encoding="utf-8")


def papermill(tmp_path: Path, *parameters: str) -> subprocess.CompletedProcess[str]:
    notebook = paths.notebooks() / "read_scaling.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"), *parameters]
    return subprocess.run(command, capture_output=True, text=True, timeout=EXECUTION_S, check=False)


def test_papermill_alone_executes_it(runs: tuple[Run, Run], tmp_path: Path) -> None:
    done = papermill(tmp_path, "-p", "run_id", str(runs[0].path))
    assert done.returncode == 0, done.stderr
    assert len(figures(nbformat.read(tmp_path / "out.ipynb", as_version=4))) >= 14


def test_a_misspelt_parameter_is_refused_where_papermill_only_warns(runs: tuple[Run, Run], tmp_path: Path) -> None:
    done = papermill(tmp_path, "-p", "run_id", str(runs[0].path), "-p", "vsu", "5")
    assert done.returncode != 0
    assert "unknown parameter 'vsu', did you mean 'vus'" in done.stderr


def test_the_executed_copy_lies_with_the_run_that_it_shows(executed: report.Executed, runs: tuple[Run, Run]) -> None:
    assert executed.run is not None
    assert executed.run.path == runs[0].path
    assert executed.path == runs[0].path / "derived" / "notebook.ipynb"
    assert executed.path.exists()


def test_text_of_every_figure_has_nine_pixels_on_a_narrow_page(executed: report.Executed) -> None:
    for output in figures(executed.notebook):
        assert smallest_px(output.data["image/svg+xml"], 400) >= 9


def test_every_figure_shows_both_arms_and_describes_itself(executed: report.Executed) -> None:
    drawn = figures(executed.notebook)
    assert len(drawn) >= 14
    for output in drawn:
        assert output.metadata["image/svg+xml"]["alt"]
    everything = " ".join(output.data["image/svg+xml"] for output in drawn)
    for panel in (
        *("throughput", "errors per minute", "latency", "distribution of latency", "open connections"),
        *("waiting for a connection", "CPU of servers", "CPU of the host", "memory", "cached memory"),
        *("data read", "data written", "network received", "network sent", "load average", "replication lag"),
    ):
        assert panel in everything, panel
    pictures = [output.data["image/svg+xml"] for output in drawn]
    assert sum(">primary alone<" in svg and ">replicas<" in svg for svg in pictures) >= 10


def test_what_was_not_measured_is_said_and_not_drawn_as_zero(executed: report.Executed) -> None:
    drawn = [output.data["image/svg+xml"] for output in figures(executed.notebook)]
    network = [svg for svg in drawn if "network received by the servers" in svg]
    assert network
    assert all("not measured" in svg and UNMEASURED[:20] in svg for svg in network)


def test_the_page_asks_no_other_host_for_anything(page: str) -> None:
    assert not ANYWHERE_ELSE.findall(page)
    assert "<script" not in page
    assert "default-src 'none'" in page
    for picture in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page):
        svg = base64.b64decode(picture).decode()
        assert not re.findall(r'(?:href|src)="(?!#)', svg)


def test_the_page_is_titled_by_its_question_and_leads_with_the_answer(page: str) -> None:
    assert "<title>What do streaming replicas buy for reads?</title>" in page
    lead = page.index('<ul class="lead">')
    assert page.index("<h1") < lead < page.index("What you need")
    assert "requests per second" in page[lead : lead + 400]


def test_code_is_there_but_folded(page: str) -> None:
    assert page.count('<details class="code">') >= 20
    assert "<details open" not in page
    assert page.count("<img") == len(re.findall(r'<img[^>]*alt="[^"]+"', page, re.DOTALL))


def test_text_from_a_server_is_text_in_the_page(page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "alert(1)</script>" not in page


def test_two_runs_side_by_side(runs: tuple[Run, Run], tmp_path: Path) -> None:
    parameters = {"runs_a": str(runs[0].path), "runs_b": str(runs[1].path)}
    made = report.execute(paths.notebooks() / "compare_runs.ipynb", parameters, output=tmp_path / "compared.ipynb")
    text = report.export(made.path, tmp_path / "compared.html").read_text(encoding="utf-8")
    assert "What differs between two runs?" in text
    assert "cannot be known from 1 run a side" in text
    assert "requests per second" not in text
    assert not ANYWHERE_ELSE.findall(text)


def test_a_run_that_is_not_valid_is_reported_and_ends_with_exit_code_1(tmp_path: Path) -> None:
    run = build(tmp_path / "runs", Recipe(rounds=1, workloads=("get-user",), wrong=3))
    done = invoke("report", str(run.path), "-o", str(tmp_path / "copy.html"))
    assert done.exit_code == 1, done.output
    assert "Not valid: get-user, primary-only: 3 answers were wrong." in done.output
    page = (tmp_path / "copy.html").read_text(encoding="utf-8")
    assert "3 answers were wrong" in page
    assert "LK003" in page


def test_an_error_of_the_lab_comes_back_as_its_message(tmp_path: Path) -> None:
    with pytest.raises(LabkitError, match=r"there is no run 'nowhere'") as raised:
        report.execute(paths.notebooks() / "read_scaling.ipynb", {"run_id": "nowhere"}, output=tmp_path / "x.ipynb")
    assert "Traceback" not in str(raised.value)
    assert str(tmp_path / "x.ipynb") in str(raised.value)
