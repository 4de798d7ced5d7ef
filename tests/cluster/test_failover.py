"""The story: writers, a primary killed under them, a replica promoted, the rest following, and the proof."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from labkit.checkers import audit
from labkit.errors import BadInput
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import USERS
from labkit.lab.cluster.powers import Isolatable
from labkit.lab.failover import FailoverSteps, Policy, Refused, faults, readback, rejoining
from labkit.lab.failover.watching import Watch
from labkit.lab.load import writing
from labkit.lab.load.shards import Generators
from labkit.lab.workloads.append_rows import AppendRows
from labkit.replication import Replication
from labkit.run.kinds import event
from labkit.run.store import Run, RunStore


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return RunStore(tmp_path / "runs").create("failover", {})


@pytest.fixture(scope="module")
def generators() -> Iterator[Generators]:
    with Generators() as made:
        yield made


@pytest.mark.parametrize("fault", ["kill", "postmaster", "pause", "switchover", "isolate"])
def test_the_twelve_steps(each_cluster: Cluster, run: Run, generators: Generators, fault: str) -> None:
    """On every provider; each fault leaves a whole cluster, with another primary, to the next."""
    cluster = each_cluster
    if fault == "isolate" and not isinstance(cluster.primary().control, Isolatable):
        with pytest.raises(BadInput, match="isolate needs a provider that can do it"):
            faults.inject(cluster.primary(), fault)
        return
    cluster.synchronous("ANY", 1, "on", deadline_s=15)
    workload = AppendRows()
    writing.prepare(cluster, workload, deadline_s=20)
    old = cluster.primary()
    load = writing.begin(cluster, run, generators, workload, writers=4, timeout_s=10)
    with writing.writing(load):
        load.wait_acknowledged(deadline_s=40)
        with Watch(old) as watch:
            faults.inject(old, fault)
            watch.wait_for_failure(deadline_s=20)
        failover = FailoverSteps(
            cluster,
            old,
            primary_lsn=watch.primary_lsn,
            replication=watch.replication,
            log=lambda kind, **details: run.note(event(kind, **details)),
        )
        for step in (failover.survey, failover.decide, failover.preflight, failover.fence):
            step()
        new = failover.promote()
        failover.repair()
        failover.route(load.follow)
        assert failover.decision is not None
        others = [
            readback.Snapshot(cluster.node(s.name), s.received, deadline_s=20)
            for s in failover.decision.survivors
            if s.name != new.name
        ]
        failover.repoint()
        failover.close()
        assert cluster.primary() is new
        load.wait_acknowledged(100, deadline_s=10)
    keys, xids = readback.promoted(new)
    readback.record(run, 0, "promoted", new.name, keys, xids)
    found = audit.judge(run.table("writes"), keys)
    assert found.verdict == "true", found.reason
    assert len(found.unexpected) == 0

    other_keys, _ = others[0].read()
    assert set(other_keys.tolist()) <= set(keys.tolist())

    own = rejoining.own_rows(old, deadline_s=30)
    ghosts = rejoining.ghosts(old, own, keys, failover.decision.chosen.has)  # type: ignore[union-attr]
    assert (ghosts.commit_lsns > 0).all(), "every row that only the dead primary has is in a commit of its WAL"
    how = rejoining.rejoin(cluster, old, new, Replication("ANY", 1, "on"), deadline_s=60)
    assert how == "pg_rewind"
    cluster.wait_for_catchup(30)
    assert cluster.primary() is new
    assert len(cluster.replicas()) == 2
    logs = "".join(node.control.log_tail(10_000) for node in cluster.nodes)
    assert 'parameter "primary_conninfo" changed' in logs
    for user in USERS:
        assert str(conninfo_to_dict(new.conninfo(user))["password"]) not in logs
    kinds = list(run.events()["kind"])
    assert kinds == [
        "survey", "decide", "preflight", "fence", "promote_called", "promote", "repair", "route", "repoint",
    ]  # fmt: skip


def test_an_asynchronous_loss_is_found_and_shown_by_key_and_commit(
    own_cluster: Cluster, run: Run, generators: Generators
) -> None:
    """Both replicas stop receiving, then the primary dies: what it acknowledged meanwhile is lost, and is named."""
    cluster = own_cluster
    cluster.synchronous("off", level="local", deadline_s=15)
    writing.prepare(cluster, AppendRows(3), deadline_s=20)
    old = cluster.primary()
    load = writing.begin(cluster, run, generators, AppendRows(3), writers=4, timeout_s=10)
    with writing.writing(load):
        load.wait_acknowledged(deadline_s=40)
        for node in cluster.replicas():
            faults.stop_receiving(node)
        load.wait_acknowledged(100, deadline_s=10)  # rows that no replica receives
        faults.inject(old, "kill")
        with (
            contextlib.closing(FailoverSteps(cluster, old, Policy(max_lag_bytes=0), primary_lsn=2**40)) as refused,
            pytest.raises(Refused, match=r"max_lag_bytes.*accept_data_loss=True"),
        ):
            refused.run()
        failover = FailoverSteps(cluster, old)
        new = failover.run(on_promoted=load.follow)
        failover.close()
    keys, _ = readback.promoted(new)
    found = audit.judge(run.table("writes"), keys)
    assert found.verdict == "false"
    assert len(found.lost) > 0
    assert len(found.lost) % 3 == 0, "a transaction is lost as a whole"
    own = rejoining.own_rows(old, deadline_s=30)
    ghosts = rejoining.ghosts(old, own, keys, failover.decision.chosen.has)  # type: ignore[union-attr]
    assert set(found.lost.tolist()) <= set(ghosts.keys.tolist())
    assert (ghosts.commit_lsns > failover.decision.chosen.has).all()  # type: ignore[union-attr]
    rejoining.record(run, 0, ghosts)
    table = audit.lost_rows(run, found)
    assert len(table) == len(found.lost)
    assert table["commit_utc"].notna().all()
