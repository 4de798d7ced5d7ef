"""Failovers that must not happen, and failovers that are cut off."""

from __future__ import annotations

import contextlib

import pytest
from fix_cli import on_own

from labkit.checkers import audit
from labkit.errors import BadInput, ClusterError
from labkit.experiments.durability_matrix.parameters import DurabilityMatrix
from labkit.experiments.failover.parameters import Failover
from labkit.experiments.promotion_crash import drive as crashes
from labkit.experiments.promotion_crash.attempt import attempt
from labkit.lab.cluster import promotion
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.failover import FailoverSteps, Policy, Refused, faults, readback
from labkit.lab.load import writing
from labkit.lab.workloads.append_rows import AppendRows
from labkit.replication import Replication


def test_one_failover_at_a_time(own_cluster: Cluster) -> None:
    cluster, old = own_cluster, own_cluster.node("pg1")
    with (
        contextlib.closing(FailoverSteps(cluster, old)),
        pytest.raises(ClusterError, match="is under way already"),
    ):
        FailoverSteps(cluster, old)


def test_what_cannot_be_proven_is_refused_and_nothing_is_promoted_until_it_is_overridden(own_cluster: Cluster) -> None:
    """ANY 1 of two: with one of them gone with the primary, the only copy of a row may be gone."""
    cluster, old = own_cluster, own_cluster.node("pg1")
    cluster.synchronous("ANY", 1, "on", deadline_s=20)
    faults.inject(cluster.node("pg3"), "kill")
    faults.inject(old, "kill")
    done = on_own("failover", "--old", "pg1")
    assert done.exit_code == 2
    assert "the quorum cannot be proven" in done.stderr
    assert "--accept-data-loss" in done.stderr
    assert cluster.node("pg2").role() == "replica"

    done = on_own("failover", "--old", "pg1", "--accept-data-loss")
    assert done.exit_code == 0, done.output
    assert cluster.node("pg2").role() == "primary"
    with cluster.node("pg2").session() as connection:  # no inherited setting makes it hang
        connection.execute("CREATE TABLE after ()")


def test_a_paused_replica_is_never_promoted_and_a_crash_is_seen_beforehand(own_cluster: Cluster) -> None:
    cluster, old = own_cluster, own_cluster.node("pg1")
    for node in cluster.replicas():
        with node.session() as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
    faults.inject(old, "kill")
    with (
        contextlib.closing(FailoverSteps(cluster, old, Policy(accept_data_loss=True))) as failover,
        pytest.raises(Refused, match="its WAL replay is paused"),
    ):
        failover.run()
    pg2 = cluster.node("pg2")
    for node in (pg2, cluster.node("pg3")):
        with node.session() as connection:
            connection.execute("SELECT pg_wal_replay_resume()")
    with crashes.damaged(pg2, "deleted"):
        with pg2.session() as connection:
            assert "standby.signal is gone" in promotion.preflight(connection)[0]
        seen = attempt(pg2, deadline_s=30)
    assert not seen.promoted
    assert "terminating connection because of crash of another server process" in seen.client
    assert seen.client.rstrip().endswith("before or while processing the request.")
    assert any('could not remove file "standby.signal"' in line for line in seen.log)


def test_rows_that_are_tampered_with_are_all_found(cluster: Cluster) -> None:
    """On a real server: deletions, duplicates and inventions, planted by hand."""
    import pandas as pd

    writing.prepare(cluster, AppendRows(), deadline_s=20)
    table = AppendRows.table
    with cluster.primary().session() as connection:
        connection.execute(f"INSERT INTO {table} SELECT i, 'x' FROM generate_series(0, 999) AS i")
        connection.execute(f"DELETE FROM {table} WHERE key IN (17, 500)")
        connection.execute(f"INSERT INTO {table} SELECT key, 'again' FROM {table} WHERE key = 3")
        connection.execute(f"INSERT INTO {table} VALUES (-5, 'invented')")
    with pytest.raises(ClusterError, match="still in recovery"):
        readback.promoted(cluster.replicas()[0])
    keys, _ = readback.promoted(cluster.primary())
    with cluster.primary().session() as connection:
        connection.execute(f"DROP TABLE {table}")
    writes = pd.DataFrame({"key": range(1000), "rows": 1, "outcome": "ok", "done_ns": 0})
    found = audit.judge(writes, keys)
    assert found.lost.tolist() == [17, 500]
    assert found.duplicated.tolist() == [3]
    assert found.unexpected.tolist() == [-5]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"mode": "ANY 3"}, "ANY 3 asks for more than the 2 replicas"),
        ({"mode": "SOME 1"}, "is no replication mode"),
        ({"fault": "isolate"}, "isolate needs provider docker"),
        ({"provider": "attach"}, "attached servers are neither killed nor damaged"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(values: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Failover.build(values)


def test_a_matrix_of_impossible_modes_is_refused_at_once() -> None:
    with pytest.raises(BadInput, match="ANY 2 asks for more than the 1 replica"):
        DurabilityMatrix.build({"replicas": 1})
    assert len(DurabilityMatrix().cells) == 32
    assert Replication.parse("ANY 2").k == 2
