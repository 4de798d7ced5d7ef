"""Replication on real servers: the primary does what is asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.errors import BadInput, WaitTimeout
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.synchronize import announced
from labkit.lab.failover import faults


def standby_names(cluster: Cluster) -> str:
    return cluster.primary().settings(["synchronous_standby_names"])["synchronous_standby_names"]


@pytest.fixture
def replicated(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    for node in cluster.nodes:
        node.configure({"synchronous_standby_names": None, "synchronous_commit": None})


def test_modes_and_levels_follow_one_another_and_the_primary_shows_them(replicated: Cluster) -> None:
    assert replicated.synchronous("FIRST", 1, "on", deadline_s=15) == {"pg2": "sync", "pg3": "potential"}
    assert "pg2" in announced(replicated.primary())
    assert replicated.synchronous("ANY", 1, "remote_apply", deadline_s=15) == {"pg2": "quorum", "pg3": "quorum"}
    assert "pg3" in announced(replicated.primary())
    assert replicated.node("pg2").settings(["synchronous_standby_names"]) == {
        "synchronous_standby_names": "ANY 1 (pg1, pg3)"
    }
    assert replicated.synchronous("off", level="local", deadline_s=15) == {"pg2": "async", "pg3": "async"}


def test_a_commit_under_any_1_is_on_a_replica_when_it_is_acknowledged(replicated: Cluster) -> None:
    replicated.synchronous("ANY", 1, "remote_apply", deadline_s=15)
    with replicated.primary().session() as connection:
        connection.execute("CREATE TABLE acknowledged (n int)")
        replicated.wait_for_catchup(20)
        connection.execute("INSERT INTO acknowledged VALUES (1)")
        found = []
        for node in replicated.replicas():
            with node.session() as replica:
                found += replica.execute("SELECT count(*) FROM acknowledged").fetchall()
        connection.execute("DROP TABLE acknowledged")
    assert (1,) in found


def test_more_than_there_are_is_refused_before_anything_changes(replicated: Cluster) -> None:
    with pytest.raises(BadInput, match="more than the 2 replicas"):
        replicated.synchronous("ANY", 3)
    assert replicated.primary().settings(["synchronous_standby_names"]) == {"synchronous_standby_names": ""}


@pytest.mark.parametrize("k", [True, 1.5, "2"])
def test_k_is_a_whole_number(replicated: Cluster, k: object) -> None:
    with pytest.raises(BadInput, match="is not a whole number"):
        replicated.synchronous("ANY", k)  # type: ignore[arg-type]


def test_a_stopped_replica_is_left_out_and_what_needs_it_is_refused(own_cluster: Cluster) -> None:
    cluster = own_cluster
    cluster.node("pg3").control.stop("fast")
    assert cluster.synchronous("ANY", 1, "on", deadline_s=15) == {"pg2": "quorum"}
    with pytest.raises(BadInput, match=r"ANY 2 asks for more than the 1 replica that runs.*start pg3"):
        cluster.synchronous("ANY", 2)
    assert standby_names(cluster) == "ANY 1 (pg2, pg3)"
    with cluster.primary().session() as connection:
        connection.execute("CREATE TABLE meanwhile ()")
    assert cluster.synchronous("off", level="off", deadline_s=15) == {"pg2": "async"}
    cluster.node("pg3").control.start()
    cluster.wait_streaming(20)
    assert cluster.synchronous("FIRST", 2, "on", deadline_s=15) == {"pg2": "sync", "pg3": "sync"}


def test_where_a_replica_does_not_stream_nothing_is_left_waiting_for_it(own_cluster: Cluster) -> None:
    faults.stop_receiving(own_cluster.node("pg3"))
    with pytest.raises(WaitTimeout, match=r"replicas to stream with sync_state.*what was set before is set again"):
        own_cluster.synchronous("ANY", 2, "on", deadline_s=1)
    assert standby_names(own_cluster) == ""
