"""What every provider that owns its servers guarantees; Docker's additions are in test_docker.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from fix_cluster import paused, taken_port

from labkit import paths
from labkit.errors import BadInput, ClusterError, WaitTimeout
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Killable, Measurable, NodeControl, ReplicaKeeper
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.providers.protocol import ClusterSpec, Provider

MB = 2**20


@pytest.fixture(scope="module")
def lab_data(disk_data: Path) -> Path:
    return disk_data  # for what is said of bytes written


def test_up_gives_one_primary_and_replicas_that_stream(each_cluster: Cluster) -> None:
    assert each_cluster.roles() == {"pg1": "primary", "pg2": "replica", "pg3": "replica"}
    streaming = {row["application_name"]: row["state"] for row in each_cluster.replication()}
    assert streaming == {"pg2": "streaming", "pg3": "streaming"}
    with each_cluster.primary().connect() as connection:
        slots = connection.execute("SELECT slot_name, active FROM pg_replication_slots ORDER BY 1").fetchall()
    assert slots == [("pg2", True), ("pg3", True)]


def test_what_the_primary_commits_arrives_on_every_replica(each_cluster: Cluster) -> None:
    with each_cluster.primary().connect() as connection:
        connection.execute("CREATE TABLE arrives AS SELECT generate_series(1, 1000) AS number")
        each_cluster.wait_for_catchup(10)
        for replica in each_cluster.replicas():
            with replica.connect("app") as reader, pytest.raises(Exception, match="read-only"):
                reader.execute("INSERT INTO arrives VALUES (1)")
            with replica.connect("app") as reader:
                assert reader.execute("SELECT count(*) FROM arrives").fetchone() == (1000,)
        connection.execute("DROP TABLE arrives")


def test_the_files_in_configs_are_in_effect_and_trust_is_not_used(each_cluster: Cluster) -> None:
    for node in each_cluster.nodes:
        role = "primary" if node.role() == "primary" else "replica"
        wanted = _settings_of(paths.configs() / "postgresql" / role / "postgresql.conf")
        with node.connect() as connection:
            found = dict(
                connection.execute(
                    "SELECT name, setting FROM pg_file_settings WHERE applied AND name = ANY(%s)", (list(wanted),)
                ).fetchall()
            )
            methods = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
        assert {name: found.get(name) for name in wanted} == wanted
        assert methods == [("scram-sha-256",)]
        with pytest.raises(ClusterError, match="password"):
            node.connect("admin", password="wrong")


def _settings_of(file: Path) -> dict[str, str]:
    lines = (line.split("#")[0].split("=", 1) for line in file.read_text(encoding="utf-8").splitlines())
    pairs = {pair[0].strip(): pair[1].strip().strip("'") for pair in lines if len(pair) == 2}
    return {name: value for name, value in pairs.items() if not name.startswith("include")}


def test_up_again_finds_the_cluster_and_changes_nothing(each_provider: Provider, each_cluster: Cluster) -> None:
    def started(cluster: Cluster) -> list[object]:
        rows = []
        for node in cluster.nodes:
            with node.connect() as connection:
                rows.append(connection.execute("SELECT pg_postmaster_start_time()").fetchone())
        return rows

    before = started(each_cluster)
    again = each_provider.up(ClusterSpec(name=each_cluster.name))
    assert started(again) == before
    assert each_cluster.name in each_provider.names()
    found = each_provider.find(each_cluster.name)
    assert found is not None
    assert found.roles() == each_cluster.roles()


@pytest.mark.parametrize("scope", ["tree", "postmaster"])
def test_a_killed_node_stays_down_and_comes_back_in_the_role_its_data_says(each_cluster: Cluster, scope: str) -> None:
    for name, role in (("pg2", "replica"), ("pg1", "primary")):
        node = each_cluster.node(name)
        assert isinstance(node.control, Killable)
        node.control.kill(scope)  # type: ignore[arg-type]
        assert not node.control.running()
        with pytest.raises(ClusterError):
            node.role()
        node.control.start()
        node.wait_ready(30)
        assert node.role() == role
    each_cluster.wait_streaming(30)


@pytest.mark.parametrize("mode", ["fast", "smart", "immediate"])
def test_a_stopped_node_starts_again(each_cluster: Cluster, mode: str) -> None:
    node = each_cluster.node("pg3")
    node.control.stop(mode)  # type: ignore[arg-type]
    assert not node.control.running()
    if mode != "immediate":
        assert "database system is shut down" in node.control.log_tail()
    node.control.start()
    node.wait_ready(30)
    each_cluster.wait_streaming(30)


def test_a_paused_node_does_not_answer_until_it_is_resumed(each_cluster: Cluster) -> None:
    node = each_cluster.node("pg2")
    with paused(node):
        assert node.control.running()
        with pytest.raises(ClusterError):
            node.connect(connect_timeout=2)
    node.wait_ready(10)
    each_cluster.wait_streaming(30)


def test_a_promoted_replica_leads_and_the_others_follow_it(make_each: Callable[..., Cluster]) -> None:
    cluster = make_each()
    old, new, other = cluster.nodes
    old.control.stop("immediate")
    new.promote(30)
    other.repoint(new, 30)
    assert cluster.roles() == {"pg1": None, "pg2": "primary", "pg3": "replica"}
    with new.connect() as connection:
        connection.execute("CREATE TABLE after_failover (id int)")
    cluster.wait_for_catchup(10)


def test_a_node_is_recreated_from_the_current_primary(
    each_provider: Provider, make_each: Callable[..., Cluster]
) -> None:
    assert isinstance(each_provider, ReplicaKeeper)
    cluster = make_each(replicas=1)
    with pytest.raises(ClusterError, match="it is the primary itself"):
        each_provider.rebuild(cluster.name, "pg1")
    cluster.node("pg1").control.stop("immediate")
    cluster.node("pg2").promote(30)
    each_provider.rebuild(cluster.name, "pg1")
    assert cluster.roles() == {"pg1": "replica", "pg2": "primary"}
    assert each_provider.remove_replicas(cluster.name) == ["pg1"]
    alone = each_provider.find(cluster.name)
    assert alone is not None
    assert [node.name for node in alone.nodes] == ["pg2"]
    with alone.primary().connect() as connection:
        assert connection.execute("SELECT count(*) FROM pg_replication_slots").fetchone() == (0,)
    assert make_each(replicas=2).roles() == {"pg1": "replica", "pg2": "primary", "pg3": "replica"}


def test_down_keeps_the_data_and_purge_does_not(each_provider: Provider, make_each: Callable[..., Cluster]) -> None:
    cluster = make_each(replicas=0)
    with cluster.primary().connect() as connection:
        connection.execute("CREATE TABLE kept (id int)")
    each_provider.down(cluster.name)
    stopped = each_provider.find(cluster.name)
    assert stopped is not None
    assert not any(node.control.running() for node in stopped.nodes)
    with make_each(replicas=0).primary().connect() as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    each_provider.down(cluster.name, purge=True)
    assert each_provider.find(cluster.name) is None
    assert cluster.name not in each_provider.names()
    each_provider.down(cluster.name, purge=True)


def test_settings_of_an_experiment_hold_on_every_node(make_each: Callable[..., Cluster]) -> None:
    cluster = make_each(replicas=1, settings={"work_mem": "5MB"})
    assert [node.settings(["work_mem"])["work_mem"] for node in cluster.nodes] == ["5MB", "5MB"]
    with pytest.raises(ClusterError, match="work_mem"):
        make_each(replicas=1, settings={"work_mem": "much"})
    assert cluster.primary().settings(["work_mem"]) == {"work_mem": "5MB"}
    needs_restart = make_each(replicas=1, settings={"shared_buffers": "64MB"})
    found = [node.settings(["work_mem", "shared_buffers"]) for node in needs_restart.nodes]
    assert found == [{"work_mem": "8MB", "shared_buffers": "64MB"}] * 2


def test_a_specification_is_refused_with_all_that_is_wrong(each_provider: Provider) -> None:
    with pytest.raises(BadInput) as refused:
        each_provider.up(ClusterSpec(name="no/path", replicas=99, base_port=80, settings={"port": "1"}))
    assert len(refused.value.problems) == 4


def test_a_port_that_is_taken_is_named(make_each: Callable[..., Cluster], each_provider: Provider) -> None:
    with taken_port() as port, pytest.raises(ClusterError, match=f"port {port} is taken"):
        make_each(replicas=0, base_port=port)
    assert not any(name.startswith("own-") for name in each_provider.names()), "nothing is left half up"


def test_usage_grows_with_work(each_cluster: Cluster) -> None:
    node = each_cluster.primary()
    assert isinstance(node.control, Measurable)
    before = node.control.usage()
    with node.connect() as connection:
        connection.execute("SELECT count(*) FROM generate_series(1, 3000000)")
    after = _when(node.control, lambda usage: usage.cpu_s > before.cpu_s + 0.1)
    assert after.memory_bytes > 10 * MB


def test_200_mb_written_are_200_mb_sampled(each_cluster: Cluster) -> None:
    """Deadline for the sample that shows them: 10 s."""
    node = each_cluster.primary()
    assert isinstance(node.control, Measurable)
    control: Measurable = node.control
    if "written_bytes" in control.not_measured:
        pytest.skip(control.not_measured["written_bytes"])
    with node.connect() as connection:
        connection.execute("CHECKPOINT")
        row = connection.execute("SELECT current_setting('data_directory') || '/known_load'").fetchone()
        assert row is not None
        before = control.usage().written_bytes
        assert before is not None
        # A line of 999 characters and its end, 200,000 times; dd does not return before the disk has them.
        connection.execute(
            "COPY (SELECT repeat('x', 999) FROM generate_series(1, 200000))"
            f" TO PROGRAM 'dd bs=1M iflag=fullblock conv=fsync of={row[0]} 2>/dev/null'"
        )
        after = _when(control, lambda usage: usage.written_bytes - before > 195 * 10**6)
        connection.execute(f"COPY (SELECT) TO PROGRAM 'rm {row[0]}'")
    assert after.written_bytes is not None
    assert after.written_bytes - before == pytest.approx(200e6, rel=0.05)


def _when(control: Measurable, condition: Callable[..., bool], deadline_s: float = 10.0):  # type: ignore[no-untyped-def]
    """The first usage that fulfils a condition, or the last one before the deadline."""
    give_up = time.monotonic() + deadline_s
    while True:
        usage = control.usage()
        if condition(usage) or time.monotonic() > give_up:
            return usage
        time.sleep(0.1)


def test_disk_usage_is_what_the_server_says(each_cluster: Cluster) -> None:
    node = each_cluster.primary()
    assert isinstance(node.control, Measurable)
    with node.connect() as connection:
        row = connection.execute("SELECT sum(size)::bigint FROM pg_ls_waldir()").fetchone()
    counted: Mapping[str, int] = node.control.disk_usage()
    assert row is not None
    assert counted["pg_wal_bytes"] == pytest.approx(row[0], rel=0.1)
    assert counted["data_directory_bytes"] > counted["pg_wal_bytes"] + 20 * MB


def test_a_wait_that_times_out_names_the_node_and_shows_its_log(each_cluster: Cluster) -> None:
    node: Node = each_cluster.node("pg2")
    with pytest.raises(WaitTimeout, match=r"pg2: timed out after .* waiting for a miracle") as timeout:
        wait_until(lambda: False, 0.05, "a miracle", node)
    assert timeout.value.log_tail
    control: NodeControl = node.control
    assert control.describe()
