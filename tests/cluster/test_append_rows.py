"""Writers and their ledger on real servers: what it says is what the server did."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit.errors import LoadError, WaitTimeout
from labkit.lab.cluster import sql
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.load import writing
from labkit.lab.load.shards import Generators
from labkit.lab.load.writing import WriteLoad
from labkit.lab.workloads.append_rows import AppendRows
from labkit.run import ledger
from labkit.run.schema import WRITE_OUTCOMES
from labkit.run.store import Run, RunStore

Begin = Callable[..., WriteLoad]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return RunStore(tmp_path / "runs").create("failover", {})


@pytest.fixture
def generators() -> Iterator[Generators]:
    with Generators() as made:
        yield made


@pytest.fixture
def begin(cluster: Cluster, run: Run, generators: Generators) -> Iterator[Begin]:
    """`begin(rows_per_tx=…, writers=…)` on the shared cluster."""

    def start(rows_per_tx: int = 1, **options: float) -> WriteLoad:
        workload = AppendRows(rows_per_tx)
        writing.prepare(cluster, workload)
        load = writing.begin(cluster, run, generators, workload, **options)  # type: ignore[arg-type]
        load.wait_acknowledged(deadline_s=40)
        return load

    yield start
    generators.close()  # the table is dropped below: no writer may use it any more
    for node in cluster.nodes:
        node.configure({"synchronous_standby_names": None, "synchronous_commit": None})
    with cluster.primary().session() as connection:
        connection.execute(f"DROP TABLE {AppendRows.table}")


def _keys(cluster: Cluster) -> list[int]:
    with cluster.primary().session() as connection:
        return [int(row[0]) for row in connection.execute(f"SELECT key FROM {AppendRows.table} ORDER BY key")]


@pytest.mark.parametrize("rows_per_tx", [1, 7])
def test_the_ledger_and_the_table_agree(cluster: Cluster, run: Run, begin: Begin, rows_per_tx: int) -> None:
    with writing.writing(begin(rows_per_tx, duration_s=0.5, timeout_s=5)) as load:
        load.future.result(20)
    writes = run.table("writes")
    assert set(writes["outcome"]) == {"ok"}
    assert (writes["done_ns"] > writes["intent_ns"]).all()
    wanted = [key + i for key in writes["key"].tolist() for i in range(rows_per_tx)]
    assert sorted(wanted) == _keys(cluster)
    assert load.result is not None
    assert load.result.requests == len(writes)


def test_a_commit_whose_wait_was_cancelled_is_no_plain_success(cluster: Cluster, run: Run, begin: Begin) -> None:
    """With no replica to answer, the server acknowledges after a cancel, with a warning: the row is local only."""
    cluster.synchronous("ANY", 1, "on", deadline_s=15)
    replicas = cluster.replicas()
    load = begin(writers=2, timeout_s=20)
    try:
        for node in replicas:
            node.control.pause()  # type: ignore[attr-defined]
        with cluster.primary().session() as connection:

            def waiting() -> list[int]:
                rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchall()
                return [int(row[0]) for row in rows] if len(rows) == 2 else []

            pids = wait_until(waiting, 10, "both writers to wait for a replica")
            connection.execute("SELECT pg_cancel_backend(%s)", (pids[0],))
            wait_until(lambda: WRITE_OUTCOMES.index("ok-with-warning") in _outcomes(load), 10, "the warned writer")
    finally:
        for node in replicas:
            node.control.resume()  # type: ignore[attr-defined]
        load.stop()
    writes = run.table("writes")
    warned = writes[writes["outcome"] == "ok-with-warning"]
    assert len(warned) == 1
    assert set(warned["sqlstate"]) == {"LK004"}
    assert "canceling wait for synchronous replication" in load.result.problems["LK004"]  # type: ignore[union-attr]
    assert int(warned["key"].iloc[0]) in _keys(cluster)
    assert run.table("ops")["outcome"].value_counts()["unknown"] >= 1


def _outcomes(load: WriteLoad) -> set[int]:
    assert load.spec.ledger is not None
    return set(ledger.read(load.spec.ledger)[0]["outcome"][0].tolist())


def test_a_killed_lab_loses_no_intent_and_its_reader_says_what_it_does_not_know(
    cluster: Cluster, generators: Generators, begin: Begin
) -> None:
    load = begin(writers=4, timeout_s=5)
    assert load.spec.ledger is not None
    path = load.spec.ledger
    wait_until(lambda: len(ledger.read(path)[0]["key"]) > 200, 10, "200 transactions")
    for pid in generators.pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(LoadError, match="its ledger is kept"):
        load.stop()
    with cluster.primary().session() as connection:
        wait_until(lambda: _no_writer(connection), 10, "the last transaction to end")
    columns, open_ended = ledger.read(path)
    assert set(_keys(cluster)) <= set(columns["key"].tolist()), "a row without an intent"
    assert 0 <= open_ended <= 4
    words = [columns["sqlstate"][1][code] for code in columns["sqlstate"][0]]
    assert words.count(ledger.LAB_KILLED) == open_ended


def _no_writer(connection: sql.Connection) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'labkit_app' AND state = 'active'"
    row = connection.execute(query).fetchone()
    return row is not None and row[0] == 0


def test_a_change_of_route_is_followed_at_once(cluster: Cluster, run: Run, begin: Begin) -> None:
    """A replica refuses writes: every refusal there is a plain `fail`, and back on the primary they succeed."""
    load = begin(writers=3, timeout_s=5)
    load.follow(cluster.replicas()[0])
    wait_until(lambda: WRITE_OUTCOMES.index("fail") in _outcomes(load), 5, "a refusal by the replica")
    with pytest.raises(WaitTimeout, match=r"1 more acknowledged transaction on pg2"):
        load.wait_acknowledged(deadline_s=0.3)
    load.follow(cluster.primary())
    load.wait_acknowledged(deadline_s=5)
    load.stop()
    writes = run.table("writes")
    assert set(writes.loc[writes["outcome"] == "fail", "sqlstate"]) == {"25006"}
    assert set(writes.loc[writes["outcome"] == "ok", "node"]) == {"pg1"}


def test_a_load_that_was_not_stopped_ends_with_its_generators(begin: Begin, generators: Generators) -> None:
    load = begin(writers=2, timeout_s=5)
    generators.close()
    assert load.future.result(timeout=10).interrupted
