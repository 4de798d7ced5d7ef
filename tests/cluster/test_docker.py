"""What Docker adds to the contract, and what bad input gets there. Clusters of their own, removed afterwards."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import paths
from labkit.errors import BadInput, ClusterError, ProviderUnavailable
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.powers import Isolatable, Limitable
from labkit.lab.providers.docker.container import DATA, ContainerServer
from labkit.lab.providers.docker.provider import IMAGE, ComposeProvider
from labkit.lab.providers.protocol import ClusterSpec

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_engine", "lab_data")]
NAME = f"docker-{os.getpid()}"


@pytest.fixture(scope="module")
def containers(docker_engine: str, lab_data: Path) -> Iterator[Cluster]:
    """A primary and a replica that the tests of this module share; each leaves both running."""
    assert docker_engine
    assert lab_data
    yield ComposeProvider().up(ClusterSpec(name=NAME, replicas=1))
    ComposeProvider().down(NAME, purge=True)


def server(cluster: Cluster, node: str) -> ContainerServer:
    control = cluster.node(node).control
    assert isinstance(control, ContainerServer)
    return control


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def test_an_isolated_node_is_unreachable_and_catches_up_when_it_is_back(containers: Cluster) -> None:
    replica = containers.node("pg2")
    assert isinstance(replica.control, Isolatable)
    replica.control.isolate()
    try:
        assert replica.control.running()
        with pytest.raises(ClusterError):
            replica.connect(connect_timeout=2)
        with containers.primary().connect() as connection:
            connection.execute("CREATE TABLE meanwhile (id int)")
    finally:
        replica.control.rejoin_network()
    replica.wait_ready(30)
    containers.wait_streaming(60)
    containers.wait_for_catchup(30)
    with replica.connect() as connection:
        assert connection.execute("SELECT count(*) FROM meanwhile").fetchone() == (0,)


def test_a_limit_holds_a_node_back_and_says_so(containers: Cluster) -> None:
    primary = containers.node("pg1")
    assert isinstance(primary.control, Limitable)
    control = server(containers, "pg1")
    primary.control.limit(0.1)
    try:
        before = control.usage()
        with primary.connect() as connection:
            connection.execute("SELECT count(*) FROM generate_series(1, 2000000)")
        after = control.usage()
        assert after.cpu_limit == 0.1
        assert after.throttled_s > before.throttled_s
        with pytest.raises(ClusterError, match="cannot be limited"):
            primary.control.limit(10_000)
    finally:
        primary.control.limit(None)
    assert control.usage().cpu_limit == control._engine.capacity().cpus


def test_containers_are_bound_to_this_machine_and_hold_few_powers(containers: Cluster) -> None:
    assert containers.nodes
    for node in ("pg1", "pg2"):
        facts = docker("inspect", "--format", "{{json .HostConfig}}", f"{NAME}-{node}")
        assert '"HostIp":"127.0.0.1"' in facts
        assert '"CapDrop":["ALL"]' in facts
        assert "no-new-privileges:true" in facts
        assert docker("inspect", "--format", "{{.Config.Labels.labkit}}", f"{NAME}-{node}") == NAME
        effective = docker("exec", "--user", "postgres", f"{NAME}-{node}", "grep", "CapEff", "/proc/self/status")
        assert effective.split() == ["CapEff:", "0" * 16]


def test_no_password_is_readable_from_outside_the_secret(containers: Cluster) -> None:
    assert containers.nodes
    file = paths.data() / "docker" / NAME / "passwords"
    assert file.stat().st_mode & 0o077 == 0
    secret = file.read_text(encoding="utf-8").split(":")[4].splitlines()[0]
    seen = docker("inspect", f"{NAME}-pg1") + docker("logs", f"{NAME}-pg1")
    seen += docker("exec", f"{NAME}-pg2", "cat", f"{DATA}/postgresql.auto.conf")
    assert secret not in seen


def test_the_health_check_fails_where_the_server_does_not_answer_in_its_role(containers: Cluster) -> None:
    command = ["sh", "/etc/labkit/node.sh", "healthy"]
    docker("exec", f"{NAME}-pg2", *command)
    docker("exec", "--user", "postgres", f"{NAME}-pg2", "mv", f"{DATA}/standby.signal", f"{DATA}/aside")
    try:
        # A server in recovery whose data says primary.
        with pytest.raises(subprocess.CalledProcessError):
            docker("exec", f"{NAME}-pg2", *command)
    finally:
        docker("exec", "--user", "postgres", f"{NAME}-pg2", "mv", f"{DATA}/aside", f"{DATA}/standby.signal")
    assert containers.node("pg2").role() == "replica"


def test_a_removed_container_is_noticed_and_recreated_on_its_data(containers: Cluster) -> None:
    docker("rm", "--force", f"{NAME}-pg2")
    with pytest.raises(ClusterError, match=r"pg2: its container is gone.*labkit\.up"):
        containers.node("pg2").control.start()
    again = ComposeProvider().up(ClusterSpec(name=NAME, replicas=1))
    assert again.roles() == {"pg1": "primary", "pg2": "replica"}
    containers.nodes[:] = again.nodes


def test_a_program_that_a_killed_lab_left_beside_a_node_is_removed_and_is_no_cluster(containers: Cluster) -> None:
    assert containers.nodes
    image = docker("inspect", "--format", "{{.Config.Image}}", f"{NAME}-pg1")
    before = ComposeProvider().names()
    left = docker("run", "--detach", "--label", f"labkit.program={NAME}", "--entrypoint", "sleep", image, "600")
    assert ComposeProvider().names() == before
    ComposeProvider().down(NAME)
    assert left not in docker("ps", "--all", "--quiet", "--no-trunc")
    again = ComposeProvider().up(ClusterSpec(name=NAME, replicas=1))
    containers.nodes[:] = again.nodes


def test_data_of_another_major_version_is_refused_with_the_way_out(containers: Cluster) -> None:
    pg2 = f"{NAME}-pg2"
    docker("exec", "--user", "postgres", pg2, "sh", "-c", f"echo 17 >{DATA}/PG_VERSION")
    server(containers, "pg2").stop()
    with pytest.raises(ClusterError, match=r"holds data of PostgreSQL 17, the image has PostgreSQL 18"):
        ComposeProvider().up(ClusterSpec(name=NAME, replicas=1))
    assert containers.node("pg1").role() == "primary", "whatever runs keeps running"
    ComposeProvider().rebuild(NAME, "pg2")
    containers.wait_streaming(30)


def test_a_node_killed_for_its_memory_says_so(containers: Cluster) -> None:
    control = server(containers, "pg2")
    docker("update", "--memory", "64m", "--memory-swap", "64m", f"{NAME}-pg2")
    try:
        # A file in shared memory belongs to the container, and nothing can swap it out.
        subprocess.run(
            ["docker", "exec", f"{NAME}-pg2", "sh", "-c", "head -c 200m /dev/zero >/dev/shm/ballast"],
            capture_output=True,
            check=False,
            timeout=60,
        )
        control.stop("immediate")
        assert "out of memory" in control.log_tail()
        assert "LABKIT_NODE_MEMORY" in control.log_tail()
    finally:
        docker("update", "--memory", "2g", "--memory-swap", "2g", f"{NAME}-pg2")
        control.start()
        containers.node("pg2").wait_ready(30)
        containers.wait_streaming(30)


def test_limits_that_the_engine_cannot_give_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LABKIT_NODE_CPUS", "1000")
    monkeypatch.setenv("LABKIT_NODE_MEMORY", "1m")
    with pytest.raises(BadInput) as refused:
        ComposeProvider().up(ClusterSpec(name=f"{NAME}-none", replicas=0))
    assert len(refused.value.problems) == 2
    assert f"{NAME}-none" not in ComposeProvider().names()


def test_an_unavailable_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMAGE, "labkit/there-is-no-such-image:0")
    with pytest.raises(ProviderUnavailable, match=r"there-is-no-such-image.*LABKIT_PG_IMAGE"):
        ComposeProvider().up(ClusterSpec(name=f"{NAME}-none", replicas=0))
    assert f"{NAME}-none" not in ComposeProvider().names()


def test_without_an_engine_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    with pytest.raises(ProviderUnavailable, match=r"no Docker engine answers \(DOCKER_HOST, .*provider embedded"):
        ComposeProvider().find("lab")


def test_lost_passwords_are_reported_and_nothing_is_deleted(containers: Cluster) -> None:
    file = paths.data() / "docker" / NAME / "passwords"
    kept = file.rename(file.with_name("aside"))
    try:
        with pytest.raises(ClusterError, match=r"passwords of cluster .* are gone"):
            ComposeProvider().up(ClusterSpec(name=NAME, replicas=1))
    finally:
        kept.rename(file)
    assert containers.node("pg1").role() == "primary"


def test_containers_without_the_label_are_left_alone(containers: Cluster, docker_engine: str) -> None:
    assert containers.nodes
    stranger = docker("run", "--detach", "--rm", "--name", f"{NAME}-pg9", "--entrypoint", "sleep", docker_engine, "300")
    try:
        found = ComposeProvider().find(NAME)
        assert found is not None
        assert [node.name for node in found.nodes] == ["pg1", "pg2"]
        ComposeProvider().down(NAME)
        again = f'labkit.up("{NAME}", provider="docker")'
        assert again in str(found.when_stopped), "without the provider it would make another cluster"
        with pytest.raises(ClusterError, match=re.escape(again)):
            found.primary()
        assert docker("inspect", "--format", "{{.State.Running}}", stranger) == "true"
    finally:
        docker("kill", stranger)
        ComposeProvider().up(ClusterSpec(name=NAME, replicas=1))
