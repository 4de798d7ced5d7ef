"""`labkit lab`: one's own copies of the notebooks, and the originals that JupyterLab cannot change."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import nbformat
import pytest
from fix_cli import invoke

from labkit import paths
from labkit.cli import lab
from labkit.experiments.catalogue import EXPERIMENTS
from labkit.lab.cluster.waiting import wait_until

START_S = 60


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that one works in."""
    monkeypatch.setattr(paths, "workplace", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def started(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words with which JupyterLab would have been started."""
    words: list[str] = []
    monkeypatch.setenv("LABKIT_DATA", str(place / "data"))
    monkeypatch.setattr(os, "execv", lambda _, line: words.extend(line))
    return words


def test_copies_are_made_once_and_never_overwritten(place: Path) -> None:
    originals = {path.name for path in paths.notebooks().glob("*.ipynb")}
    assert lab.copy_missing() == len(originals)
    own = place / "my_notebooks"
    assert {path.name for path in own.iterdir()} == originals
    (own / "failover.ipynb").write_text("a typo")
    (own / "read_scaling.ipynb").unlink()
    assert lab.copy_missing() == 1
    assert (own / "failover.ipynb").read_text() == "a typo"
    assert (own / "read_scaling.ipynb").read_bytes() == (paths.notebooks() / "read_scaling.ipynb").read_bytes()


def test_batch_runs_and_reports_execute_the_originals_whatever_was_changed(place: Path) -> None:
    lab.copy_missing()
    for experiment in EXPERIMENTS.values():
        (paths.own_notebooks() / experiment.notebook).write_text("a typo")
        nbformat.read(experiment.notebook_path, as_version=4)
        assert place not in experiment.notebook_path.parents


def test_git_ignores_the_copies() -> None:
    ignored = (paths.home() / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert f"{paths.own_notebooks().relative_to(paths.home())}/" in ignored


@pytest.mark.parametrize("user", [0, 1000])
def test_jupyter_is_told_that_it_may_run_as_root_where_it_does(
    user: int, started: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert invoke("lab", "--port=8890").exit_code == 0
    assert ("--allow-root" in started) == (user == 0)
    assert f"--ServerApp.root_dir={place}" in started
    assert "--ip=127.0.0.1" in started
    assert started[-1] == "--port=8890"


def test_the_lab_opens_where_the_readme_and_the_docs_are() -> None:
    assert {"README.md", "docs", "notebooks"} <= {path.name for path in paths.workplace().iterdir()}


class Jupyter:
    """A running JupyterLab, asked as its pages ask it."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/"

    def ask(self, method: str, path: str, content: object = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = Request(self._url + path, data, {"Authorization": "token t"}, method=method)
        with urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def answers(self) -> bool:
        try:
            return bool(self.ask("GET", "status"))
        except URLError:
            return False


@pytest.fixture
def jupyter(tmp_path: Path) -> Iterator[Jupyter]:
    """`labkit lab` as it is typed, in a checkout of its own, whatever user the tests run as."""
    for name in ("labkit", "notebooks", "README.md", "docs", "pyproject.toml"):
        (tmp_path / name).symlink_to(paths.home() / name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        f"import sys; from pathlib import Path; from labkit import paths; "
        f"paths.workplace = lambda: Path({str(tmp_path)!r}); from labkit.cli import main; main()"
    )
    words = ["lab", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=t"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            server = Jupyter(port)
            wait_until(
                lambda: server.answers() or process.poll() is not None, START_S, "JupyterLab to answer", interval_s=0.2
            )
            assert process.poll() is None, (tmp_path / "log").read_text()
            yield server
        finally:
            process.terminate()
            process.wait(30)


def test_in_jupyterlab_an_original_is_read_only_and_a_copy_is_not(jupyter: Jupyter, tmp_path: Path) -> None:
    shown = {entry["name"] for entry in jupyter.ask("GET", "contents/")["content"]}
    assert {"README.md", "docs", "my_notebooks"} <= shown
    original = jupyter.ask("GET", "contents/notebooks/read_scaling.ipynb")
    copy = jupyter.ask("GET", "contents/my_notebooks/read_scaling.ipynb")
    assert not original["writable"]
    assert copy["writable"]
    assert original["content"] == copy["content"]
    before = (paths.notebooks() / "read_scaling.ipynb").read_bytes()
    copy["content"]["cells"][3]["source"] = "vus = 7  # a session's own"
    changed = {"type": "notebook", "content": copy["content"]}
    assert jupyter.ask("PUT", "contents/my_notebooks/read_scaling.ipynb", changed)["writable"]
    assert "a session's own" in (tmp_path / "my_notebooks" / "read_scaling.ipynb").read_text(encoding="utf-8")
    with pytest.raises(HTTPError, match="403"):
        jupyter.ask("PUT", "contents/notebooks/read_scaling.ipynb", changed)
    assert (paths.notebooks() / "read_scaling.ipynb").read_bytes() == before
