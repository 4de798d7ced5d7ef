"""The commands after a failover: nothing is forgotten, nothing hangs, and the next step works."""

from __future__ import annotations

import contextlib
import json
import shutil
import time

import pytest
from fix_cli import invoke, on_own
from fix_cluster import MakeCluster, write_wal

from labkit.errors import ClusterError, WaitTimeout
from labkit.lab.cluster import synchronize
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.powers import Killable, Repairable
from labkit.lab.failover import FailoverSteps, Policy, faults


def replication(cluster: Cluster, node: str) -> str:
    with cluster.node(node).session() as connection:
        return str(synchronize.current(connection))


def all_name(remedy: str, *commands: str) -> None:
    """Each of the commands tells this next step, and none an `up` that would not get there."""
    for command in commands:
        told = on_own(command).output
        assert f"`labkit {remedy} --name own`" in told, f"{command}: {told}"
        assert "labkit up" not in told, f"{command}: {told}"


def test_a_step_before_those_it_needs_does_nothing_and_names_them(own_cluster: Cluster) -> None:
    cluster = own_cluster
    with contextlib.closing(FailoverSteps(cluster, cluster.node("pg1"))) as steps:
        for early, needed in [
            (steps.decide, r"survey\(\)"),
            (steps.preflight, r"survey\(\), then decide\(\)"),
            (steps.fence, r"survey\(\), then decide\(\)"),
            (steps.promote, r"survey\(\), then decide\(\), then preflight\(\), then fence\(\)"),
            (steps.repair, r"promote\(\)"),
            (steps.repoint, r"promote\(\)"),
        ]:
            with pytest.raises(ClusterError, match=f"does nothing yet: {needed} must come first"):
                early()
    assert cluster.primary().name == "pg1"
    cluster.wait_streaming(10)
    assert "cut off" not in on_own("status").output


def test_one_replica_and_a_lost_disk(make_cluster: MakeCluster) -> None:
    """Alone, the new primary waits for no replica; with the old one back it waits again, even if its data was lost."""
    cluster = make_cluster(replicas=1)
    cluster.synchronous("ANY", 1, "on", deadline_s=20)
    faults.inject(cluster.node("pg1"), "kill")
    assert on_own("failover").exit_code == 0
    write_wal(cluster.primary(), 1)
    assert replication(cluster, "pg2") == "async"
    assert "(pg_rewind); replication is ANY 1, on" in on_own("rejoin", "pg1").output
    assert replication(cluster, "pg2") == "ANY 1"
    cluster.wait_streaming(20)

    faults.inject(cluster.node("pg2"), "kill")
    control = cluster.node("pg2").control
    assert isinstance(control, Repairable)
    shutil.rmtree(control.data)
    refused = on_own("failover")
    assert refused.exit_code == 2
    assert "pg2 cannot be fenced" in refused.stderr
    assert "--accept-data-loss" in refused.stderr
    assert on_own("failover", "--accept-data-loss").exit_code == 0
    done = on_own("rejoin", "pg2")
    assert done.exit_code == 0, done.output
    assert "pg2 is a replica of pg1 (pg_basebackup)" in done.output
    cluster.wait_streaming(20)


def test_up_starts_the_old_primary_and_says_within_seconds_what_has_it_follow(own_cluster: Cluster) -> None:
    faults.inject(own_cluster.node("pg1"), "kill")
    done = on_own("failover").output
    assert "by each rule: labkit pg2, Patroni pg2, pg_auto_failover pg2, repmgr pg2" in done
    assert "pg3 streams from the new primary" in done
    assert "writers" not in done, "a command has none to send anywhere"
    all_name("rejoin pg1", "status", "failover")

    began = time.monotonic()
    up = on_own("up")
    assert time.monotonic() - began < 20, "it waited for the old primary to stream, which was not asked for"
    assert up.exit_code == 2
    advice = "pg1: it runs, but follows no primary, as a failover leaves an old primary; `labkit rejoin pg1 --name own`"
    assert advice in up.stderr
    assert advice in on_own("status").output
    all_name("rejoin pg1", "status", "failover", "up")
    assert own_cluster.primary().name == "pg2"

    assert on_own("rejoin", "pg1").exit_code == 0
    assert "follows no primary" not in on_own("status").output
    assert on_own("up").exit_code == 0


def test_a_healthy_node_is_never_failed_over_from(own_cluster: Cluster) -> None:
    pid = own_cluster.node("pg1").control.describe()["pid"]
    faults.inject(own_cluster.node("pg3"), "kill")
    for arguments, said in [
        ((), "pg1 is primary: there is nothing to fail over"),
        (("--old", "pg1"), "it answers as the primary"),
        (("--old", "pg2"), "it is a replica, and answers"),
    ]:
        done = on_own("failover", *arguments)
        assert done.exit_code == 2
        assert said in done.stderr
    assert own_cluster.node("pg1").control.describe()["pid"] == pid
    assert own_cluster.node("pg2").role() == "replica"


def test_any_2_of_three_proves_with_one_missing_and_the_missing_one_is_brought_back(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(replicas=3)
    cluster.synchronous("ANY", 2, "on", deadline_s=20)
    faults.inject(cluster.node("pg3"), "kill")
    faults.inject(cluster.node("pg1"), "kill")
    done = on_own("failover", "--old", "pg1")
    assert done.exit_code == 0, done.output
    assert "pg3 does not answer; `labkit rejoin pg3 --name own` brings it back" in done.output
    all_name("rejoin pg3", "status", "failover")
    assert replication(cluster, "pg2") == "ANY 1"
    for node in ("pg3", "pg1"):
        assert "replication is ANY 2, on" in on_own("rejoin", node).output
    cluster.wait_streaming(20)
    write_wal(cluster.primary(), 1)


def test_a_lost_primary_s_own_files_tell_how_far_the_replicas_are_behind(make_each: MakeCluster) -> None:
    """It was not watched, and it cannot be asked: neither while it hangs nor when it is dead."""
    cluster = make_each()
    options = ("--name", cluster.name, "--provider", cluster.provider)
    pg1 = cluster.node("pg1")
    for node in cluster.replicas():
        faults.stop_receiving(node)
    write_wal(cluster.primary(), 1_000)
    for fault in ("pause", "kill"):
        faults.inject(pg1, fault)
        done = invoke("failover", "--max-lag-bytes", "100000", *options)
        assert done.exit_code == 2
        assert "bytes of WAL behind the last known position of the primary" in done.stderr
        assert cluster.node("pg2").role() == "replica"
        if fault == "pause":
            assert isinstance(pg1.control, Killable)
            pg1.control.resume()
            cluster.wait_streaming(20)  # a refused failover leaves them following their primary
            for node in cluster.replicas():
                faults.stop_receiving(node)
            write_wal(cluster.primary(), 1_000)
    done = invoke("failover", *options)
    assert done.exit_code == 0, done.output
    assert "(pg_rewind)" in invoke("rejoin", "pg1", *options).output
    cluster.wait_streaming(20)


def test_back_in_the_cluster_commits_wait_for_no_more_replicas_than_stream(own_cluster: Cluster) -> None:
    """pg2 cannot follow while its replay is paused: ANY 2 of one would hang the new primary."""
    cluster = own_cluster
    cluster.synchronous("ANY", 2, "on", deadline_s=20)
    with cluster.node("pg2").session() as paused:
        paused.execute("SELECT pg_wal_replay_pause()")
    faults.inject(cluster.node("pg1"), "kill")
    assert "pg2 does not follow pg3: its WAL replay is paused" in on_own("failover").output
    assert "replication is ANY 1, on" in on_own("rejoin", "pg1").output
    with cluster.primary().session() as connection:
        connection.execute("CREATE TABLE after ()")
    with pytest.raises(WaitTimeout, match=r"pg2: .*its WAL replay is paused; SELECT pg_wal_replay_resume"):
        cluster.wait_streaming(1)
    with cluster.node("pg2").session() as paused:
        paused.execute("SELECT pg_wal_replay_resume()")
    cluster.wait_streaming(20)
    healthy = on_own("rejoin", "pg2")
    assert healthy.exit_code == 2
    assert "pg2 follows pg3 already" in healthy.stderr


def test_a_replica_with_more_wal_than_the_new_primary_does_not_hang_the_failover(own_cluster: Cluster) -> None:
    """Nothing waits for it, neither the repointing nor the new primary's commits; what brings it back is said."""
    cluster = own_cluster
    cluster.synchronous("ANY", 1, "on", deadline_s=20)
    faults.stop_receiving(cluster.node("pg2"))
    write_wal(cluster.primary(), 300)
    cluster.node("pg3").wait_ready(10)
    faults.inject(cluster.node("pg1"), "kill")
    policy = Policy(accept_data_loss=True, priorities={"pg3": 0})
    with contextlib.closing(FailoverSteps(cluster, cluster.node("pg1"), policy)) as steps:
        assert steps.run().name == "pg2"
    assert steps.left_behind["pg3"].remedy == cluster.remedy("rejoin", "takes them back", node="pg3")
    with cluster.node("pg2").session() as connection:
        connection.execute("CREATE TABLE after ()")
    for node in ("pg3", "pg1"):
        assert "replication is ANY 1, on" in on_own("rejoin", node).output
    cluster.wait_streaming(20)


def test_fenced_and_started_it_is_no_second_primary_and_the_next_step_is_named(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(replicas=1)
    faults.inject(cluster.node("pg1"), "kill")
    with contextlib.closing(FailoverSteps(cluster, cluster.node("pg1"))) as steps:
        for step in (steps.survey, steps.decide, steps.preflight, steps.fence):
            step()
    done = on_own("up", "--replicas", "1")
    assert done.exit_code == 2
    assert "`labkit failover --name own` promotes a replica" in done.stderr
    assert cluster.roles() == {"pg1": "replica", "pg2": "replica"}
    told = json.loads(on_own("failover", "--json").stdout)
    assert (told["old"], told["primary"], told["left_behind"]) == ("pg1", "pg2", {})
    assert told["took_ms"]["survey"] < 3_000, (
        "the primary's WAL ends with a segment; the survey does not wait for the next one"
    )
    assert list(told["took_ms"]) == ["survey", "decide", "preflight", "fence", "promote", "repair", "repoint"]
    assert [row["node"] for row in told["decision"]] == ["pg2"]
    told = json.loads(on_own("rejoin", "pg1", "--json").stdout)
    assert told == {"node": "pg1", "primary": "pg2", "how": "pg_rewind", "mode": "async", "level": "off"}
    assert cluster.primary().name == "pg2"
