"""Figures of a node under load beside those of the command `docker stats`, which reads the same engine its own way."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from statistics import fmean

import pytest

from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Usage
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.providers.docker.container import ContainerServer
from labkit.lab.providers.docker.provider import ComposeProvider
from labkit.lab.providers.protocol import ClusterSpec

pytestmark = [pytest.mark.alone, pytest.mark.docker, pytest.mark.usefixtures("docker_engine", "lab_data")]
NAME = f"stats-{os.getpid()}"
CPUS = 0.5
CPU_TOLERANCE = 8  # % of a core: the windows of the two do not fall together
KERNEL_BYTES = 48 * 2**20  # sockets, page tables and the like, which `docker stats` counts and labkit does not
AGREE_S = 15.0
MB = 1_000_000


@pytest.fixture(scope="module")
def node(docker_engine: str) -> Iterator[Node]:
    """A primary alone."""
    assert docker_engine
    yield ComposeProvider().up(ClusterSpec(name=NAME, replicas=0)).primary()
    ComposeProvider().down(NAME, purge=True)


@pytest.fixture
def control(node: Node) -> ContainerServer:
    assert isinstance(node.control, ContainerServer)
    return node.control


def docker_stats(column: str) -> list[float]:
    """The figures of one column, in bytes or percent. Network and disk are in powers of 1000, memory of 1024."""
    command = ["docker", "stats", "--no-stream", "--format", f"{{{{.{column}}}}}", f"{NAME}-pg1"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    units = {"%": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9, "B": 1}
    found = []
    for word in shown.split("/"):
        unit = next(unit for unit in units if word.strip().endswith(unit))
        found.append(float(word.strip().removesuffix(unit)) * units[unit])
    return found


def newly(control: ContainerServer) -> tuple[float, Usage]:
    """The next reading that the engine sends, and when it came. It sends one per second; deadline 5 s."""
    old = control.usage()
    wait_until(lambda: control.usage() != old, 5.0, "another reading")
    return time.monotonic(), control.usage()


@pytest.fixture
def busy(node: Node, control: ContainerServer) -> Iterator[None]:
    """A query after the other, as much as half a core allows."""
    ending = threading.Event()

    def work() -> None:
        with node.connect() as connection:
            while not ending.is_set():
                connection.execute("SELECT count(*) FROM generate_series(1, 200000)")

    control.limit(CPUS)
    thread = threading.Thread(target=work)
    thread.start()
    yield
    ending.set()
    thread.join()
    control.limit(None)


@pytest.mark.usefixtures("busy")
def test_cpu_under_load_is_what_docker_stats_shows(control: ContainerServer) -> None:
    newly(control)
    begun, before = newly(control)
    shown = fmean(docker_stats("CPUPerc")[0] for _ in range(2))
    ended, after = newly(control)
    assert before.cpu_s is not None
    assert after.cpu_s is not None
    measured = 100 * (after.cpu_s - before.cpu_s) / (ended - begun)
    assert measured == pytest.approx(shown, abs=CPU_TOLERANCE)
    assert measured == pytest.approx(100 * CPUS, abs=CPU_TOLERANCE)


def agree(ours: Callable[[], list[int | None]], column: str) -> None:
    """Within 2 %, and 0.1 MB for what is going on meanwhile, at some moment of the next 15 s."""
    seen: list[tuple[list[int | None], list[float]]] = []

    def same() -> bool:
        measured, shown = ours(), docker_stats(column)
        seen.append((measured, shown))
        return measured == [pytest.approx(value, rel=0.02, abs=0.1 * MB) for value in shown]

    try:
        wait_until(same, AGREE_S, f"the same {column}")
    finally:
        print(column, seen)


def test_network_disk_and_memory_after_a_load_are_what_docker_stats_shows(node: Node, control: ContainerServer) -> None:
    """100 MB of rows are written to disk, and 100 MB are sent to the client."""
    before = newly(control)[1]
    with node.connect() as connection:
        connection.execute("CREATE TABLE big AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 100000)")
        connection.execute("CHECKPOINT")
        assert len(connection.execute("SELECT x FROM big").fetchall()) == 100_000
    control.usage()

    agree(lambda: [control.usage().received_bytes, control.usage().sent_bytes], "NetIO")
    after = control.usage()
    assert after.sent_bytes is not None
    assert before.sent_bytes is not None
    assert after.sent_bytes - before.sent_bytes == pytest.approx(100 * MB, rel=0.05)

    if "written_bytes" in control.not_measured:
        assert docker_stats("BlockIO") == [0, 0], "neither counts what the kernel does not"
    else:
        agree(lambda: [control.usage().read_bytes, control.usage().written_bytes], "BlockIO")
        # The rows, and their WAL.
        assert (control.usage().written_bytes or 0) - (before.written_bytes or 0) >= 200 * MB

    shown = docker_stats("MemUsage")[0]
    usage = control.usage()
    counts = control._engine.stats(control.container())["memory_stats"]["stats"]
    used_of_late = counts.get("total_active_file", counts["active_file"])  # the page cache that `docker stats` counts
    assert usage.memory_bytes is not None
    assert usage.memory_bytes > 100 * MB, "shared buffers hold the table"
    kernel = shown - usage.memory_bytes - used_of_late
    assert -0.05 * shown <= kernel <= KERNEL_BYTES
