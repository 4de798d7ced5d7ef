"""`labkit` in a process of its own, with a data folder of its own that is cleared away with its servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fix_cluster import Prepared, folder_for_servers, in_memory

from labkit.lab.cluster.waiting import wait_until
from labkit.run.store import Run, RunStore


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from labkit.cli import main; main()", *words]


def with_parameters(*pairs: str) -> list[str]:
    """`-p name=value` for each."""
    return [word for pair in pairs for word in ("-p", pair)]


@pytest.fixture
def data() -> Iterator[Path]:
    """The data folder of these processes."""
    with folder_for_servers(in_memory()) as folder:
        yield folder


@pytest.fixture
def environment(data: Path) -> Iterator[dict[str, str]]:
    found = os.environ | {"LABKIT_DATA": str(data)}
    yield found
    subprocess.run(command("down", "--all", "--purge"), env=found, capture_output=True, timeout=60, check=True)


@pytest.fixture
def driven(environment: dict[str, str], prepared: Prepared, data: Path) -> dict[str, str]:
    """The same, where a cluster named `driven` was up before, and is stopped."""
    prepared.copy(data / "clusters", "driven")
    return environment


def nodes_running(environment: dict[str, str]) -> list[bool]:
    """Of every cluster, node by node."""
    words = command("status", "--json")
    status = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return [node["running"] for cluster in json.loads(status.stdout) for node in cluster["nodes"]]


def interrupted(
    words: Sequence[str],
    environment: dict[str, str],
    so_far: Callable[[Run], bool],
    begin_s: float,
    end_s: float,
    send: Callable[[int], None] = lambda pid: os.kill(pid, signal.SIGINT),
) -> tuple[subprocess.CompletedProcess[str], Run]:
    """A command that drives a run, with a Ctrl-C as soon as its run has come `so_far`: how it ended, and the run.

    It leads a group of processes. `begin_s` and `end_s` are the deadlines of the one and of the other; `send` is what
    interrupts it instead.
    """
    store = RunStore(Path(environment["LABKIT_DATA"]) / "runs")
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )

    def begun() -> Run | None:
        assert process.poll() is None, f"it ended before, with exit code {process.returncode}"
        return next((run for run in map(store.open, store.paths()) if so_far(run)), None)

    try:
        run = wait_until(begun, begin_s, "the run to come so far", interval_s=0.1)
        assert run is not None
        send(process.pid)
        stdout, stderr = process.communicate(timeout=end_s)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr), store.open(run.path)
