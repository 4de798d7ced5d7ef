"""What a node's processes use, against what the operating system says about the same work."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import psutil
import pytest
from fix_cluster import MakeCluster, shared_cluster

from labkit.errors import ClusterError
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.powers import Usage
from labkit.lab.providers.embedded.server import EmbeddedServer

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


@pytest.fixture(scope="module")
def lab_data(disk_data: Path) -> Path:
    return disk_data  # for what is said of bytes written


@pytest.fixture(scope="module")
def cluster(lab_data: Path) -> Iterator[Cluster]:
    assert lab_data
    with shared_cluster() as made:
        yield made


def control(cluster: Cluster, name: str = "pg1") -> EmbeddedServer:
    found = cluster.node(name).control
    assert isinstance(found, EmbeddedServer)
    return found


def test_what_cannot_be_measured_is_named_and_absent(cluster: Cluster) -> None:
    server = control(cluster)
    usage = server.usage()
    for field in fields(Usage):
        if field.name == "read_at_ns":  # no measurement: when the others were read, and they were read just now
            continue
        assert (getattr(usage, field.name) is None) == (field.name in server.not_measured), field.name
    assert all(len(reason) > 20 for reason in server.not_measured.values())


def test_cpu_time_of_a_busy_backend_is_counted_and_stays_counted_when_it_ends(cluster: Cluster) -> None:
    server = control(cluster, "pg2")
    before = server.usage().cpu_s
    with cluster.node("pg2").connect() as connection:
        give_up = time.monotonic() + 30
        used = 0.0
        while used < 0.5:
            connection.execute("SELECT count(*) FROM generate_series(1, 300000)")
            used = (server.usage().cpu_s or 0.0) - (before or 0.0)
            assert time.monotonic() < give_up
    while_open = server.usage().cpu_s or 0.0
    other = cluster.node("pg2")
    for _ in range(20):
        assert (server.usage().cpu_s or 0.0) >= while_open
        assert other.role() == "replica"


def test_cpu_time_never_falls_while_backends_come_and_go(cluster: Cluster) -> None:
    """Read in the moment when the postmaster collects one, it may be counted twice or not at all."""
    server, done = control(cluster), threading.Event()

    def come_and_go() -> None:
        try:
            for _ in range(60):
                with cluster.node("pg1").connect() as connection:
                    connection.execute("SELECT count(*) FROM generate_series(1, 100000)")
        finally:
            done.set()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    readings = [0.0]
    try:
        while not done.is_set():
            readings.append(server.usage().cpu_s or 0.0)
            assert readings[-1] >= readings[-2]
    finally:
        thread.join()
    assert len(readings) > 100


@linux
def test_bytes_written_grow_by_what_is_written(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=0)
    server = control(made)
    before = server.usage()
    with made.primary().connect() as connection:
        connection.execute("CREATE TABLE filled AS SELECT repeat('x', 1000) AS text FROM generate_series(1, 20000)")
        connection.execute("CHECKPOINT")
    after = server.usage()
    assert (after.written_bytes or 0) - (before.written_bytes or 0) > 20_000_000
    assert (after.read_bytes or 0) >= (before.read_bytes or 0)


@linux
def test_shared_memory_counts_once(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=0)
    server = control(made)
    node = made.primary()
    sessions = [node.connect() for _ in range(10)]
    try:
        # Before the table is there: afterwards the checkpointer may hold some of its pages already.
        empty = server.usage().memory_bytes or 0
        sessions[0].execute("CREATE TABLE filled AS SELECT repeat('x', 1000) AS text FROM generate_series(1, 40000)")
        for session in sessions:
            session.execute("SELECT count(text) FROM filled")
        every = server.usage().memory_bytes or 0
    finally:
        for session in sessions:
            session.close()
    table = 40_000_000  # below a quarter of shared_buffers, so that reading keeps all of it there
    # Ten backends have read the same pages of shared memory: counted each time, that would be ten tables. What the
    # largest process shared before, of the program and its libraries too, is less than three quarters of a table.
    assert table / 4 < every - empty < 3 * table


@linux
def test_a_reading_of_a_hundred_backends_costs_less_than_half_of_what_psutil_would(cluster: Cluster) -> None:
    server = control(cluster)
    sessions = [cluster.node("pg1").connect("app") for _ in range(100)]
    postmaster = psutil.Process(server.pid())

    def through_psutil() -> None:
        for process in [postmaster, *postmaster.children()]:
            with process.oneshot():
                process.cpu_times(), process.memory_info(), process.io_counters()

    def cpu_s(read: Callable[[], object]) -> float:
        started = time.thread_time()
        read()
        return time.thread_time() - started

    try:
        # In turns, so that whatever slows this machine down slows both.
        ours, theirs = zip(*[(cpu_s(server.usage), cpu_s(through_psutil)) for _ in range(20)], strict=True)
    finally:
        for session in sessions:
            session.close()
    assert statistics.median(ours) < statistics.median(theirs) / 2


def test_disk_usage_is_what_du_says(cluster: Cluster) -> None:
    server = control(cluster)
    with cluster.primary().connect() as connection:
        connection.execute("CHECKPOINT")
    usage = server.disk_usage()
    wal = server.state.data / "pg_wal"
    on_disk = sum(file.lstat().st_blocks * 512 for file in wal.rglob("*"))
    assert usage["pg_wal_bytes"] == pytest.approx(on_disk, rel=0.3)
    assert usage["data_directory_bytes"] > usage["pg_wal_bytes"] + 20_000_000


def test_a_server_that_is_down_cannot_be_measured_and_one_started_again_can(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=0)
    server = control(made)
    first = server.usage()
    server.kill()
    with pytest.raises(ClusterError, match="pg1: the server is not running"):
        server.usage()
    server.start()
    made.node("pg1").wait_ready(30)
    assert 0 < (server.usage().cpu_s or 0) < (first.cpu_s or 0) + 10
    assert Path(str(server.describe()["log"])).exists()
