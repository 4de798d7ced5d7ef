"""Synchronous replication on real servers: what is asked for is what the primary does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from labkit.cluster import Cluster
from labkit.errors import BadInput
from labkit.synchronous import announced


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
