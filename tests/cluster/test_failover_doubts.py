"""What a failover must not rely on: an unknown position, old settings, a server that merely answers."""

from __future__ import annotations

import contextlib
import time

import pytest
from fix_cli import on_own
from fix_cluster import MakeCluster, paused, write_wal

from labkit.errors import ClusterError
from labkit.lab.cluster import sql, synchronize
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Repairable
from labkit.lab.failover import FailoverSteps, faults, note
from labkit.lab.failover.watching import Watch
from labkit.units import MIB


def tell(node: Node, **settings: str) -> None:
    with node.session() as connection:
        sql.configure(connection, settings)


def test_a_primary_that_was_promoted_a_moment_ago_tells_how_far_its_replica_is_behind(own_cluster: Cluster) -> None:
    """Its control file still names the timeline of before: the checkpoint after the promotion has not ended."""
    pg2, pg3 = own_cluster.node("pg2"), own_cluster.node("pg3")
    faults.inject(own_cluster.node("pg1"), "kill")
    assert on_own("failover").exit_code == 0
    faults.stop_receiving(pg3)
    write_wal(pg2, 40, record_bytes=MIB)
    faults.inject(pg2, "kill")
    done = on_own("failover", "--old", "pg2")
    assert done.exit_code == 2
    assert "bytes of WAL behind the last known position of the primary" in done.stderr
    assert pg3.role() == "replica"


def test_the_lag_is_unknown_when_commits_waited_for_no_replica_and_the_primary_s_disk_is_lost(
    own_cluster: Cluster,
) -> None:
    control = own_cluster.node("pg1").control
    assert isinstance(control, Repairable)
    faults.inject(own_cluster.node("pg1"), "kill")
    control.clear()
    refused = on_own("failover")
    assert refused.exit_code == 2
    assert "how far pg2 is behind is not known" in refused.stderr
    assert note.read(own_cluster) is None
    done = on_own("failover", "--accept-data-loss")
    assert done.exit_code == 0, done.output
    assert "pg1 cannot be fenced, it could come back as a second primary" in done.output
    assert "its data marked as a replica's" not in done.output


def test_a_survivor_that_missed_a_change_does_not_say_what_commits_waited_for(own_cluster: Cluster) -> None:
    pg1, pg2, pg3 = own_cluster.nodes
    pg2.control.stop("fast")
    own_cluster.synchronous("ANY", 1, "on", deadline_s=20)
    pg2.control.start()
    pg2.wait_ready(30)
    with pg2.session() as connection:
        assert str(synchronize.current(connection)) == "async", "it missed the change"
    faults.inject(pg1, "kill")
    faults.inject(pg3, "kill")
    done = on_own("failover", "--old", "pg1")
    assert done.exit_code == 2
    assert "the quorum cannot be proven: commits waited for ANY 1, and pg3 does not answer" in done.stderr
    assert pg2.role() == "replica"


def test_a_survivor_that_hangs_after_the_loss_is_waited_for_no_longer_than_another(own_cluster: Cluster) -> None:
    pg1, pg2, pg3 = own_cluster.nodes
    own_cluster.synchronous("ANY", 1, "on", deadline_s=20)
    with Watch(pg1, [pg2, pg3]) as watch:
        faults.inject(pg1, "kill")
        watch.wait_for_failure(20)
        sessions, lsn, replication = watch.take_sessions(), watch.primary_lsn, watch.replication
    with paused(pg3):
        steps = FailoverSteps(own_cluster, pg1, primary_lsn=lsn, replication=replication, sessions=sessions)
        with contextlib.closing(steps):
            began = time.monotonic()
            found = {survivor.name: survivor.answers for survivor in steps.survey()}
            assert time.monotonic() - began < 15
            assert found == {"pg2": True, "pg3": False}
            with pytest.raises(ClusterError, match="the quorum cannot be proven"):
                steps.decide()


def test_one_replica_that_hangs_keeps_nothing_else_from_being_set_or_rejoined(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(replicas=3)
    pg1, _, pg3, pg4 = cluster.nodes
    with paused(pg4):
        assert set(cluster.synchronous("ANY", 2, "on", deadline_s=30)) == {"pg2", "pg3"}
        faults.inject(pg1, "kill")
        done = on_own("failover", "--old", "pg1")
        assert done.exit_code == 0, done.output
        back = on_own("rejoin", "pg1")
        assert back.exit_code == 0, back.output
        new = cluster.primary()
        back = on_own("rejoin", "pg4")
        assert back.exit_code == 0, back.output
    with new.session() as connection:
        assert str(synchronize.current(connection)) == "ANY 2"
        assert {row["application_name"] for row in sql.replication(connection)} == {"pg1", pg3.name, "pg4"}


def test_two_primaries_become_one_again_with_the_command_that_the_message_names(own_cluster: Cluster) -> None:
    with own_cluster.node("pg2").session() as connection:
        connection.execute("SELECT pg_promote()")
    said = on_own("status").output
    assert "more than one primary" in said
    assert "`labkit rejoin NODE --name own` makes NODE, the old one, a replica" in said
    done = on_own("rejoin", "pg1")
    assert done.exit_code == 0, done.output
    assert own_cluster.primary().name == "pg2"


def test_a_node_that_answers_is_not_failed_over_from_by_the_library_either(own_cluster: Cluster) -> None:
    pids = {node.name: node.control.describe()["pid"] for node in own_cluster.nodes}
    for name, said in (("pg1", "it answers as the primary"), ("pg2", "it is a replica, and answers")):
        with (
            contextlib.closing(FailoverSteps(own_cluster, own_cluster.node(name))) as steps,
            pytest.raises(ClusterError, match=said),
        ):
            steps.run()
    assert {node.name: node.control.describe()["pid"] for node in own_cluster.nodes} == pids
    assert note.read(own_cluster) is None


def test_a_second_rejoin_is_refused_while_one_runs(own_cluster: Cluster) -> None:
    with note.alone_on(own_cluster):
        done = on_own("rejoin", "pg2")
    assert done.exit_code == 2
    assert "is under way already" in done.stderr


def test_what_was_raised_by_a_rejoin_is_said(own_cluster: Cluster) -> None:
    own_cluster.synchronous("ANY", 1, "on", deadline_s=20)
    faults.inject(own_cluster.node("pg1"), "kill")
    assert on_own("failover").exit_code == 0
    for node in ("pg2", "pg3"):
        tell(own_cluster.node(node), synchronous_standby_names="", synchronous_commit="local")
    assert "replication is ANY 1, on as before the failover (it was async, local)" in on_own("rejoin", "pg1").output


def test_up_starts_as_many_as_there_are(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(replicas=3)
    assert on_own("down").exit_code == 0
    assert "`labkit up --name own` starts it" in on_own("status").output
    done = on_own("up")
    assert done.exit_code == 0, done.output
    assert len(cluster.replicas()) == 3
