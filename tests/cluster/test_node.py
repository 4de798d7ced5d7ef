"""Node and Cluster on real servers: everything is asked of the server, nothing is stored."""

from __future__ import annotations

import json
import time

import psycopg
import pytest
from fix_cluster import MakeCluster

from labkit.errors import ClusterError, WaitTimeout
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.waiting import wait_until
from labkit.lsn import lsn_text


def test_a_connection_string_is_complete_for_each_user(cluster: Cluster) -> None:
    node = cluster.primary()
    for user, role in (("app", "labkit_app"), ("admin", "labkit_admin")):
        with node.connect(user) as connection:  # type: ignore[arg-type]
            row = connection.execute("SELECT current_user, current_database(), current_setting('application_name')")
            assert row.fetchone() == (role, "labkit", "labkit")
            assert connection.autocommit
    with psycopg.connect(node.conninfo("replication", replication="true"), autocommit=True) as connection:
        assert connection.execute("IDENTIFY_SYSTEM").fetchone() is not None


def test_environment_variables_of_libpq_do_not_redirect_connections(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGHOST": "nowhere", "PGPORT": "1", "PGUSER": "x", "PGSSLMODE": "require"}.items():
        monkeypatch.setenv(name, value)
    assert cluster.primary().role() == "primary"


def test_lsns_tell_how_far_each_server_has_come(cluster: Cluster) -> None:
    before = cluster.primary().lsn()
    with cluster.primary().connect() as connection:
        connection.execute("SELECT pg_logical_emit_message(true, 'test', repeat('x', 100000))")
    cluster.wait_for_catchup(20)
    after = cluster.primary().lsn()
    assert after.role == "primary"
    assert after.received is after.replayed is None
    assert after.written is not None
    assert before.written is not None
    assert after.written - before.written >= 100_000
    for node in cluster.replicas():
        position = node.lsn()
        assert position.role == "replica"
        assert position.written is position.flushed is None
        assert (position.replayed or 0) >= before.written + 100_000
        assert (position.received or 0) >= (position.replayed or 0)
        assert lsn_text(position.replayed or 0) in str(position)


def test_catching_up_includes_commits_that_are_not_yet_flushed(make_cluster: MakeCluster) -> None:
    # A sleepy WAL writer leaves asynchronous commits in memory, beyond what the server reports as written.
    made = make_cluster(replicas=1, settings={"wal_writer_delay": "10s"})
    with made.primary().connect() as writer, made.node("pg2").connect() as reader:
        writer.execute("CREATE TABLE counted (id int)")
        for number in range(1, 21):
            writer.execute("INSERT INTO counted VALUES (%s)", (number,))
            made.wait_for_catchup(20)
            assert reader.execute("SELECT max(id) FROM counted").fetchone() == (number,)


def test_replication_is_plain_and_names_the_nodes(cluster: Cluster) -> None:
    rows = cluster.replication()
    assert json.loads(json.dumps(rows)) == rows
    assert [(row["application_name"], row["user"], row["sync_state"]) for row in rows] == [
        ("pg2", "labkit_replication", "async"),
        ("pg3", "labkit_replication", "async"),
    ]


def test_lag_grows_while_replay_is_paused_and_goes_back_to_nothing(make_cluster: MakeCluster) -> None:
    made = make_cluster(replicas=1)
    replica = made.node("pg2")
    with replica.connect() as held, made.primary().connect() as writer:
        held.execute("SELECT pg_wal_replay_pause()")
        writer.execute("CREATE TABLE filled AS SELECT generate_series(1, 50000) AS id")

        def lag_bytes() -> int:
            return made.lag()[0].lag_bytes or 0

        wait_until(lambda: lag_bytes() > 1_000_000, 20, "a lag of more than a megabyte", replica)
        with pytest.raises(WaitTimeout) as late:
            made.wait_for_catchup(0.3)
        assert str(late.value).startswith("pg2: timed out after 0.3 s waiting for replay up to ")
        assert late.value.log_tail
        with pytest.raises(ClusterError, match="pg2: its WAL replay is paused"):
            replica.promote(5)
        held.execute("SELECT pg_wal_replay_resume()")
        made.wait_for_catchup(20)
        wait_until(lambda: lag_bytes() == 0, 20, "no lag", replica)
        assert made.lag()[0].lag_s is not None


def test_settings_are_changed_and_reset_by_name(make_cluster: MakeCluster) -> None:
    node = make_cluster(replicas=0).primary()
    configured = node.settings(["work_mem", "synchronous_standby_names"])
    node.configure({"work_mem": "7MB", "synchronous_standby_names": "ANY 1 (pg2, pg3)"})
    wanted = {"work_mem": "7MB", "synchronous_standby_names": "ANY 1 (pg2, pg3)"}
    wait_until(lambda: node.settings(wanted) == wanted, 5, "the new settings", node)
    node.configure({"work_mem": None, "synchronous_standby_names": None})
    wait_until(lambda: node.settings(wanted) == configured, 5, "the old settings", node)
    with pytest.raises(ClusterError, match="pg1: no such setting: nonsense"):
        node.settings(["work_mem", "nonsense"])
    with pytest.raises(ClusterError, match="pg1: work_mem cannot be set to 'much'"):
        node.configure({"work_mem": "much"})


def test_failover_by_hand(own_cluster: Cluster) -> None:
    own_cluster.wait_for_catchup(20)
    with own_cluster.primary().connect() as connection:
        connection.execute("CREATE TABLE survives AS SELECT 1 AS id")
    own_cluster.wait_for_catchup(20)
    own_cluster.node("pg1").control.stop("immediate")
    with pytest.raises(ClusterError, match=r"no primary \(pg1 does not answer, pg2 replica, pg3 replica\)"):
        own_cluster.primary()

    own_cluster.node("pg2").promote(30)
    assert own_cluster.primary().name == "pg2"
    own_cluster.node("pg3").repoint(own_cluster.node("pg2"), 30)
    assert [node.name for node in own_cluster.replicas()] == ["pg3"]

    with own_cluster.primary().connect() as connection:
        connection.execute("INSERT INTO survives VALUES (2)")
    own_cluster.wait_for_catchup(20)
    with own_cluster.node("pg3").connect("admin") as connection:
        assert connection.execute("SELECT id FROM survives ORDER BY id").fetchall() == [(1,), (2,)]
    assert {lag.name: lag.state for lag in own_cluster.lag()} == {"pg1": "disconnected", "pg3": "streaming"}
    with pytest.raises(ClusterError, match="pg2: it is a primary already"):
        own_cluster.node("pg2").promote(5)
    with pytest.raises(ClusterError, match="pg2: a primary cannot be repointed"):
        own_cluster.node("pg2").repoint(own_cluster.node("pg3"), 5)

    own_cluster.node("pg1").control.start()
    own_cluster.node("pg1").wait_ready(30)
    with pytest.raises(ClusterError, match="more than one primary"):
        own_cluster.primary()


def test_a_server_that_is_down_is_an_error_with_its_name(make_cluster: MakeCluster) -> None:
    node = make_cluster(replicas=0).primary()
    node.control.stop()
    with pytest.raises(ClusterError, match=rf"pg1: no connection to port {node.port}"):
        node.role()
    before = time.monotonic()
    with pytest.raises(ClusterError, match="pg1: the server ended while it was starting") as ended:
        node.wait_ready(30)
    assert time.monotonic() - before < 5
    assert "database system is shut down" in ended.value.log_tail


def test_a_connection_that_breaks_is_an_error_with_the_node_s_name(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="pg2: terminating connection"):  # noqa: SIM117
        with cluster.node("pg2").session() as connection:
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def test_an_unknown_node_is_an_error_that_names_those_there_are(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="has no node pg9; there are pg1, pg2, pg3"):
        cluster.node("pg9")
