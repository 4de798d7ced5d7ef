"""The embedded provider on real servers: up, found again, more replicas, other settings, down."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import time
from collections import namedtuple
from pathlib import Path

import psutil
import psycopg
import pytest
from fix_cluster import MakeCluster, taken_port

from labkit import paths
from labkit.errors import BadInput, ClusterError, ProviderUnavailable, WaitTimeout
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.powers import Killable, Measurable, NodeControl
from labkit.lab.providers import checks
from labkit.lab.providers.embedded import processes, state
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.embedded.server import EmbeddedServer
from labkit.lab.providers.protocol import ClusterSpec


@pytest.fixture
def make_cluster(initdb_cluster: MakeCluster) -> MakeCluster:
    """No prepared one: how clusters are made is what these tests are about."""
    return initdb_cluster


def server(cluster: Cluster, name: str) -> EmbeddedServer:
    control = cluster.node(name).control
    assert isinstance(control, EmbeddedServer)
    return control


def pids(cluster: Cluster) -> list[int | None]:
    return [server(cluster, node.name).pid() for node in cluster.nodes]


def test_up_makes_a_primary_and_replicas_that_stream(cluster: Cluster) -> None:
    assert cluster.roles() == {"pg1": "primary", "pg2": "replica", "pg3": "replica"}
    assert {row["application_name"]: row["state"] for row in cluster.replication()} == {
        "pg2": "streaming",
        "pg3": "streaming",
    }
    with cluster.primary().connect() as connection:
        slots = connection.execute("SELECT slot_name, active FROM pg_replication_slots ORDER BY 1").fetchall()
    assert slots == [("pg2", True), ("pg3", True)]


@pytest.mark.alone
def test_up_takes_no_longer_than_three_seconds(make_cluster: MakeCluster) -> None:
    # This holds for an idle machine; on a busy one everything takes longer.
    crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    took_s = []
    for attempt in range(3):
        before_s = time.monotonic()
        made = make_cluster(name=f"own{attempt}")
        took_s.append(time.monotonic() - before_s)
        assert len(made.replicas()) == 2
        if took_s[-1] < 3.0 * crowd:
            break
    assert min(took_s) < 3.0 * crowd


def test_up_again_finds_the_same_servers(cluster: Cluster, provider: EmbeddedProvider) -> None:
    before = pids(cluster)
    again = provider.up(ClusterSpec(name="shared"))
    found = provider.find("shared")
    assert found is not None
    assert pids(again) == pids(found) == before
    assert None not in before


def test_the_configuration_files_really_are_the_settings_used(cluster: Cluster) -> None:
    for name, role in (("pg1", "primary"), ("pg2", "replica")):
        text = (paths.configs() / "postgresql" / role / "postgresql.conf").read_text(encoding="utf-8")
        written = dict(re.findall(r"^(\w+) = '?([^'\n]*)'?$", text, re.MULTILINE))
        written.pop("include_if_exists")
        with cluster.node(name).connect() as connection:
            rows = connection.execute("SELECT name, sourcefile, current_setting(name) FROM pg_settings").fetchall()
        used = {name.lower(): (sourcefile, value) for name, sourcefile, value in rows}
        conf = server(cluster, name).state.folder / "postgresql.conf"
        assert {key: used[key][0] for key in written} == dict.fromkeys(written, str(conf))
        assert {key: used[key][1].strip() for key in written} == {key: value.strip() for key, value in written.items()}


def test_both_roles_are_configured_alike_so_that_a_failover_changes_nothing_else() -> None:
    folder = paths.configs() / "postgresql"
    read = {
        role: dict(re.findall(r"^(\w+) = (.*)$", (folder / role / "postgresql.conf").read_text("utf-8"), re.MULTILINE))
        for role in ("primary", "replica")
    }
    assert read["primary"] == read["replica"]
    assert read["primary"]["synchronous_commit"] == "off"
    assert read["primary"]["fsync"] == read["primary"]["full_page_writes"] == "on"


def test_no_user_gets_in_without_a_password_and_the_app_only_touches_rows(cluster: Cluster) -> None:
    node = cluster.primary()
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(psycopg.conninfo.make_conninfo(node.conninfo("app"), password="wrong"))
    for hba in cluster.nodes:
        rules = (server(cluster, hba.name).state.folder / "pg_hba.conf").read_text(encoding="utf-8")
        methods = {line.split()[-1] for line in rules.splitlines() if line and not line.startswith("#")}
        assert methods == {"scram-sha-256"}
    with node.connect() as admin:
        admin.execute("CREATE TABLE rows_of_the_app (id int)")
    try:
        with node.connect("app") as app:
            app.execute("INSERT INTO rows_of_the_app VALUES (1)")
            assert app.execute("SELECT id FROM rows_of_the_app").fetchall() == [(1,)]
            for forbidden in (
                "CREATE TABLE mine (id int)",
                "CREATE TEMP TABLE mine (id int)",
                "DROP TABLE rows_of_the_app",
                "TRUNCATE rows_of_the_app",
                "SELECT pg_promote()",
                "ALTER SYSTEM SET work_mem = '1MB'",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    app.execute(forbidden)
    finally:
        with node.connect() as admin:
            admin.execute("DROP TABLE rows_of_the_app")


def test_no_password_is_visible(cluster: Cluster) -> None:
    passwords = state.read_passwords(paths.clusters(), "shared")
    file = paths.clusters() / "shared" / "passwords.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    seen = [(paths.clusters() / "shared" / "cluster.json").read_text(encoding="utf-8")]
    for node in cluster.nodes:
        control = server(cluster, node.name)
        seen.append(control.state.log.read_text(encoding="utf-8"))
        process = processes.postmaster(control.state.data)
        assert process is not None
        for member in processes.tree(process):
            with contextlib.suppress(psutil.NoSuchProcess):  # a backend whose session has just ended
                seen.append(" ".join(member.cmdline()))
        seen.append(repr(node))
    for password in passwords.values():
        assert not any(password in text for text in seen)


def test_servers_listen_on_loopback_only_and_do_not_run_as_root(cluster: Cluster) -> None:
    for node in cluster.nodes:
        process = processes.postmaster(server(cluster, node.name).state.data)
        assert process is not None
        listening = {c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
        assert listening == {("127.0.0.1", node.port)}
        assert process.uids().effective != 0


def test_controls_have_the_powers_that_the_protocols_name(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert isinstance(node.control, NodeControl)
        assert isinstance(node.control, Killable)
        assert isinstance(node.control, Measurable)


def test_down_then_up_keeps_data_ports_and_roles(own_cluster: Cluster, provider: EmbeddedProvider) -> None:
    ports = [node.port for node in own_cluster.nodes]
    with own_cluster.primary().connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 100) AS id")
    provider.down("own")
    assert pids(own_cluster) == [None, None, None]
    assert provider.find("own") is not None
    again = provider.up(ClusterSpec(name="own"))
    assert [node.port for node in again.nodes] == ports
    again.wait_for_catchup(20)
    for node in again.nodes:
        with node.connect("admin") as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (100,)


def test_up_starts_what_is_stopped_and_adds_replicas_but_takes_none_away(make_cluster: MakeCluster) -> None:
    first = make_cluster(replicas=1)
    first.node("pg2").control.stop()
    assert first.node("pg2").control.running() is False
    more = make_cluster(replicas=3)
    assert [row["application_name"] for row in more.replication()] == ["pg2", "pg3", "pg4"]
    assert pids(more)[0] == pids(first)[0]
    with pytest.raises(ClusterError, match=r"has 3 replicas, asked for are 2.*labkit\.down\(.*purge=True\)"):
        make_cluster(replicas=2)
    with pytest.raises(ClusterError, match="asked for is base port 7000"):
        make_cluster(replicas=3, base_port=7000)
    assert None not in pids(more)


def test_other_settings_are_applied_restarting_only_if_they_need_it(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=1, settings={"work_mem": "5MB"})
    before = pids(made)
    assert [node.settings(["work_mem"]) for node in made.nodes] == [{"work_mem": "5MB"}] * 2
    again = make_cluster(replicas=1, settings={"work_mem": "6MB"})
    assert pids(again) == before
    # A reload takes effect within moments: each new connection asks again.
    give_up = time.monotonic() + 5
    while [node.settings(["work_mem"])["work_mem"] for node in again.nodes] != ["6MB", "6MB"]:
        assert time.monotonic() < give_up, "the new work_mem is not in use after 5 s"
    restarted = make_cluster(replicas=1, settings={"shared_buffers": "64MB"})
    assert [node.settings(["work_mem", "shared_buffers"]) for node in restarted.nodes] == [
        {"work_mem": "8MB", "shared_buffers": "64MB"}
    ] * 2
    assert set(pids(restarted)).isdisjoint(before)


def test_settings_that_cannot_be_leave_the_cluster_as_it_was(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=1)
    before = pids(made)
    for settings, words in (
        ({"work_mem": "many"}, 'invalid value for parameter "work_mem"'),
        ({"shared_buffers": "-1"}, "shared_buffers"),
        ({"no_such_setting": "1"}, 'unrecognized configuration parameter "no_such_setting"'),
        ({"max_connections": "20"}, "max_connections cannot change"),
    ):
        with pytest.raises(ClusterError, match=re.escape(words)):
            make_cluster(replicas=1, settings=settings)
    with pytest.raises(BadInput, match="port is given by labkit"):
        make_cluster(replicas=1, settings={"port": "1"})
    assert pids(make_cluster(replicas=1)) == before


def test_a_new_cluster_whose_settings_cannot_be_is_removed_again(make_cluster: MakeCluster) -> None:
    with pytest.raises(ClusterError, match="superuser_reserved_connections"):
        make_cluster(replicas=0, settings={"max_connections": "2"})
    assert not (paths.clusters() / "own").exists()


def test_a_taken_port_is_named_with_its_node_and_process(make_cluster: MakeCluster, provider: EmbeddedProvider) -> None:
    with taken_port() as port, pytest.raises(ClusterError, match=rf"pg1: port {port} is taken by process \d+"):
        make_cluster(replicas=0, base_port=port)
    assert not (paths.clusters() / "own").exists()

    made = make_cluster(replicas=0)
    provider.down("own")
    with taken_port(made.nodes[0].port) as port, pytest.raises(ClusterError, match=f"pg1: port {port} is taken"):
        make_cluster(replicas=0)
    assert make_cluster(replicas=0).roles() == {"pg1": "primary"}


def test_base_port_gives_one_port_after_another(make_cluster: MakeCluster) -> None:
    free = {*checks.free_ports(len(checks.ports()) // 2, 0, [])}
    base = next(port for port in sorted(free) if {port + 1, port + 2} <= free)
    assert [node.port for node in make_cluster(base_port=base).nodes] == [base, base + 1, base + 2]
    assert len(make_cluster(base_port=base).nodes) == 3


def test_too_little_disk_is_said_before_anything_starts(
    make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = namedtuple("space", "free")
    monkeypatch.setattr(checks.psutil, "disk_usage", lambda _: space(free=10 * 2**20))
    with pytest.raises(ClusterError, match="not enough disk for 3 servers: about 600 MB needed"):
        make_cluster()
    assert not (paths.clusters() / "own" / "cluster.json").exists()


def test_data_of_another_major_version_is_refused(make_cluster: MakeCluster, provider: EmbeddedProvider) -> None:
    made = make_cluster(replicas=0)
    provider.down("own")
    marker = server(made, "pg1").state.data / "PG_VERSION"
    marker.write_text("14\n", encoding="utf-8")
    with pytest.raises(ClusterError, match=r"pg1: its data directory is of PostgreSQL 14, the binaries .* are \d+"):
        make_cluster(replicas=0)


def test_binaries_that_lack_a_program_are_refused(
    make_cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_PG_BIN", str(tmp_path))
    with pytest.raises(ProviderUnavailable, match="it lacks postgres, initdb, pg_basebackup"):
        make_cluster()


def test_two_primaries_by_their_data_are_not_started_together(own_cluster: Cluster, make_cluster: MakeCluster) -> None:
    own_cluster.node("pg1").control.stop()
    own_cluster.node("pg2").promote(20)
    with pytest.raises(ClusterError, match="pg1 and pg2 are each a primary by their data") as refused:
        make_cluster()
    (helps,) = refused.value.remedies
    assert helps == own_cluster.remedy("rejoin", "makes it a replica", node="pg1")
    assert own_cluster.detached_replicas()["pg1"].remedy == helps, "status says the same"
    assert own_cluster.node("pg1").control.running() is False


def test_a_second_up_waits_for_the_first(make_cluster: MakeCluster, provider: EmbeddedProvider) -> None:
    provider.lock_deadline_s = 0.2
    with checks.alone_on(paths.clusters(), "own", 0), pytest.raises(WaitTimeout, match="working on cluster own"):
        make_cluster()
    assert make_cluster(replicas=0).name == "own"


def test_down_and_find_of_what_does_not_exist(provider: EmbeddedProvider) -> None:
    assert provider.find("absent") is None
    provider.down("absent")
    provider.down("absent", purge=True)
    assert "absent" not in provider.names()


def test_a_damaged_record_is_an_error_and_purge_removes_all_of_it(
    make_cluster: MakeCluster, provider: EmbeddedProvider
) -> None:
    made = make_cluster(replicas=1)
    before = pids(made)
    (paths.clusters() / "own" / "cluster.json").write_text("{", encoding="utf-8")
    for attempt in (make_cluster, lambda: provider.find("own"), lambda: provider.down("own")):
        with pytest.raises(ClusterError, match=r"cluster\.json cannot be read"):
            attempt()
    provider.down("own", purge=True)
    assert not (paths.clusters() / "own").exists()
    assert not any(psutil.pid_exists(pid) for pid in before if pid)


def test_purge_leaves_neither_files_nor_processes(make_cluster: MakeCluster, provider: EmbeddedProvider) -> None:
    made = make_cluster(replicas=1)
    servers = Path(json.loads((paths.clusters() / "own" / "cluster.json").read_text("utf-8"))["servers"])
    before = pids(made)
    provider.down("own", purge=True)
    assert not servers.exists()
    assert not (paths.clusters() / "own").exists()
    assert not any(psutil.pid_exists(pid) for pid in before if pid)
    assert provider.find("own") is None
