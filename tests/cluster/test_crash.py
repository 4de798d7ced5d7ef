"""An interrupted command leaves nothing that the next up or down cannot clean up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from fix_cli import LABKIT
from fix_cluster import MakeCluster

from labkit import paths
from labkit.errors import ClusterError
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.providers.embedded import processes
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.embedded.server import EmbeddedServer
from labkit.lab.providers.protocol import ClusterSpec

Labkit = Callable[..., subprocess.Popen[str]]

MOMENTS: dict[str, str] = {
    "the record is written": "cluster.json",
    "initdb works": "servers/pg1/data/PG_VERSION",
    "the primary starts": "servers/pg1/data/postmaster.pid",
    "base backups run": "servers/pg2/data",
    "a replica starts": "servers/pg2/data/postmaster.pid",
    "the last replica starts": "servers/pg3/data/postmaster.pid",
}


@pytest.fixture
def labkit(provider: EmbeddedProvider) -> Iterator[Labkit]:
    """`labkit("up", …)`: the real command in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [LABKIT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return process

    assert provider.find("own") is None
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def cut_off(labkit: Labkit, moment: str, number: signal.Signals) -> subprocess.Popen[str]:
    """Run `labkit up` and send it a signal as soon as a file shows that it has come to `moment`."""
    sign = paths.clusters() / "own" / MOMENTS[moment]
    process = labkit("up", "--name", "own")
    give_up = time.monotonic() + 60
    while not sign.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up, f"{sign} did not appear within 60 s"
        time.sleep(0.001)  # each moment lasts for several of these; without a pause the wait takes a core from it
    process.send_signal(number)
    process.wait(30)
    return process


def programs() -> list[psutil.Process]:
    return processes.within(paths.clusters() / "own")


@pytest.mark.parametrize("moment", MOMENTS)
def test_up_after_an_up_that_was_killed(labkit: Labkit, make_cluster: MakeCluster, moment: str) -> None:
    cut_off(labkit, moment, signal.SIGKILL)
    made = make_cluster()
    assert {row["application_name"]: row["state"] for row in made.replication()} == {
        "pg2": "streaming",
        "pg3": "streaming",
    }
    members = {
        member.pid
        for node in made.nodes
        if (postmaster := processes.postmaster(control(made, node.name).state.data))
        for member in processes.tree(postmaster)
    }
    assert {process.pid for process in programs() if process.is_running()} <= members


@pytest.mark.parametrize("moment", ["initdb works", "base backups run", "the last replica starts"])
def test_down_after_an_up_that_was_killed(labkit: Labkit, provider: EmbeddedProvider, moment: str) -> None:
    cut_off(labkit, moment, signal.SIGKILL)
    provider.down("own")
    assert not (paths.clusters() / "own").exists()
    assert programs() == []


def test_a_replica_that_was_being_added_when_killed_is_added_again(
    labkit: Labkit, make_cluster: MakeCluster, provider: EmbeddedProvider
) -> None:
    made = make_cluster(replicas=1)
    process = labkit("up", "--name", "own", "--replicas", "3")
    sign = paths.clusters() / "own" / "servers" / "pg3" / "data" / "PG_VERSION"
    give_up = time.monotonic() + 60
    while not sign.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.001)
    process.kill()
    process.wait(30)
    found = provider.find("own")
    assert found is not None
    assert [node.name for node in found.nodes] == ["pg1", "pg2"]
    assert control(found, "pg1").pid() == control(made, "pg1").pid()
    again = make_cluster(replicas=3)
    assert [row["application_name"] for row in again.replication()] == ["pg2", "pg3", "pg4"]


@pytest.mark.parametrize(
    ("moment", "number", "by", "code"),
    [("initdb works", signal.SIGINT, "Ctrl-C", 130), ("base backups run", signal.SIGTERM, "SIGTERM", 143)],
)
def test_an_interrupt_while_a_cluster_is_made_removes_it(
    labkit: Labkit, moment: str, number: signal.Signals, by: str, code: int
) -> None:
    process = cut_off(labkit, moment, number)
    _, error = process.communicate()
    assert process.returncode == code
    assert f"interrupted by {by}; " in error
    assert "Traceback" not in error
    assert not (paths.clusters() / "own").exists()
    assert programs() == []


def test_two_ups_at_once_make_one_cluster(labkit: Labkit) -> None:
    both = [labkit("up", "--name", "own", "--json") for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda process: process.communicate(timeout=120), both))
    assert [process.returncode for process in both] == [0, 0], answers
    first, second = (json.loads(output)[0] for output, _ in answers)
    assert [node["pid"] for node in first["nodes"]] == [node["pid"] for node in second["nodes"]]


def test_servers_outlive_the_process_that_started_them(labkit: Labkit, provider: EmbeddedProvider) -> None:
    process = labkit("up", "--name", "own", "--replicas", "1", "--json")
    output, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    found = provider.find("own")
    assert found is not None
    started = [node["pid"] for node in json.loads(output)[0]["nodes"]]
    assert [control(found, node.name).pid() for node in found.nodes] == started
    assert found.roles() == {"pg1": "primary", "pg2": "replica"}


def control(cluster: Cluster, name: str) -> EmbeddedServer:
    found = cluster.node(name).control
    assert isinstance(found, EmbeddedServer)
    return found


def test_kill_tree_ends_every_process_at_once_and_the_server_recovers(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=1)
    node = made.node("pg1")
    server = control(made, "pg1")
    with node.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
    made.wait_for_catchup(20)  # with synchronous_commit off, the newest commit may be lost in a crash
    idle = [node.connect() for _ in range(5)]
    postmaster = processes.postmaster(server.state.data)
    assert postmaster is not None
    members = processes.tree(postmaster)
    assert len(members) > 8
    server.kill()
    assert [member.pid for member in members if psutil.pid_exists(member.pid) and not zombie(member)] == []
    assert server.running() is False
    assert made.roles()["pg1"] is None
    for connection in idle:
        connection.close()
    with pytest.raises(ClusterError, match="pg1: the server is not running"):
        server.kill()

    server.start()
    node.wait_ready(30)
    with node.connect() as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]
    made.wait_for_catchup(30)


def zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_start_after_only_the_postmaster_was_killed_ends_what_it_left(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=0)
    node, server = made.node("pg1"), control(made, "pg1")
    server.kill("postmaster")
    assert server.running() is False
    assert (server.state.data / "postmaster.pid").exists()
    server.start()
    node.wait_ready(30)
    assert node.role() == "primary"


def test_a_postmaster_that_stays_a_zombie_counts_as_dead(make_cluster: MakeCluster) -> None:
    # Started by a process that never collects its children and lives on, as a container's first process may.
    made = make_cluster(replicas=0)
    server = control(made, "pg1")
    server.stop()
    script = (
        "import signal, sys\n"
        "from labkit.lab.providers.embedded.provider import EmbeddedProvider\n"
        "EmbeddedProvider().find('own').node('pg1').control.start()\n"
        "print('started', flush=True)\n"
        "signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == "started"
        made.node("pg1").wait_ready(30)
        pid = server.pid()
        assert pid is not None
        server.kill()
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        assert server.running() is False
        again = make_cluster(replicas=0)
        assert control(again, "pg1").pid() not in (None, pid)
        assert again.roles() == {"pg1": "primary"}
    finally:
        parent.kill()
        parent.communicate()


def test_a_pid_file_that_names_a_stranger_is_not_believed(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=0)
    server = control(made, "pg1")
    server.kill()
    pid_file = server.state.data / "postmaster.pid"
    lines = pid_file.read_text(encoding="utf-8").split("\n")
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]), encoding="utf-8")
    assert server.running() is False
    assert make_cluster(replicas=0).roles() == {"pg1": "primary"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists its segments in /proc")
@pytest.mark.timeout(60)
def test_killed_servers_whose_data_is_deleted_leave_no_shared_memory(make_cluster: MakeCluster) -> None:
    """The kernel has room for 4,096 segments: without this no server would start after as many kills."""
    made = make_cluster(replicas=1)
    primary, replica = control(made, "pg1"), control(made, "pg2")
    theirs = {segment(primary), segment(replica)}
    assert theirs <= segments()
    primary.kill()
    replica.kill()
    assert theirs <= segments()
    replica.clear()
    assert theirs & segments() == {segment(primary)}
    EmbeddedProvider().down(made.name, purge=True)
    assert theirs & segments() == set()


def segment(server: EmbeddedServer) -> int:
    lines = (server.state.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    return int(lines[6].split()[1])


def segments() -> set[int]:
    lines = Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines()[1:]
    return {int(line.split()[1]) for line in lines}


def test_up_wakes_a_paused_server(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=1)
    server = control(made, "pg2")
    server.pause()
    postmaster = processes.postmaster(server.state.data)
    assert postmaster is not None
    wait_until(
        lambda: all(member.status() == psutil.STATUS_STOPPED for member in processes.tree(postmaster)),
        5,
        "the whole tree to be stopped",
    )
    assert server.running() is True
    again = make_cluster(replicas=1)
    assert again.node("pg2").role() == "replica"
    assert control(again, "pg2").pid() == postmaster.pid


def test_a_paused_server_can_be_stopped(make_cluster: MakeCluster, provider: EmbeddedProvider) -> None:
    made = make_cluster(replicas=1)
    for node in made.nodes:
        control(made, node.name).pause()
    provider.down("own")
    assert [node.control.running() for node in made.nodes] == [False, False]


def test_a_replica_is_killed_and_comes_back_streaming(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=1)
    control(made, "pg2").kill()
    assert [(lag.name, lag.lag_bytes) for lag in made.lag() if lag.state == "disconnected"] == [("pg2", None)]
    again = EmbeddedProvider().up(ClusterSpec("own", 1))
    assert [lag.state for lag in again.lag()] == ["streaming"]
