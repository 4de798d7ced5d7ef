"""What synchronous replication costs, and what waits: every mode and level under load, then replicas that stop."""

from __future__ import annotations

import time
from collections import Counter

from psycopg import pq

from labkit.checkers import outage
from labkit.checkers.comparisons import comparisons
from labkit.experiments.quorum_commit.parameters import QuorumCommit
from labkit.experiments.stage import accounted, on_cluster, recorded, replication_restored
from labkit.lab.cluster import sql
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.load import writing
from labkit.lab.load.shards import Generators
from labkit.lab.workloads.append_rows import AppendRows
from labkit.progress import Progress
from labkit.replication import Replication
from labkit.run.schema import CostBlock, Demonstration, WriteFigures
from labkit.run.store import Run

_DEADLINE_S = 60.0
_WRITE = f"INSERT INTO {AppendRows.table} (key, payload) VALUES ({{key}}, 'lone')"


def quorum_commit(parameters: QuorumCommit) -> Run:
    """Commit latency and throughput of every mode and level, in interleaved rounds; then what stopped replicas do.

    With `run_id` nothing is driven: the recorded run is returned. Raises LabkitError.
    """
    p = parameters
    if p.run_id:
        return recorded(p)
    with (
        on_cluster(p) as (run, cluster),
        replication_restored(cluster),
        Generators() as generators,
    ):
        plan = [(r, arm) for r in range(p.rounds) for arm in (p.arms if r % 2 == 0 else p.arms[::-1])]
        run.update(planned=Counter(f"{replication}/{replication.level}" for _, replication in plan))
        with accounted(run, cluster, generators.pids), Progress("measuring", len(plan), "blocks") as bar:
            for number, (r, replication) in enumerate(plan):
                run.note_block(_measure(p, cluster, run, generators, number, r, replication))
                bar.update(number + 1)
        run.update(comparisons=comparisons(run.experiment, run.blocks), demonstrations=_demonstrate(p, cluster))
    return run


def _measure(
    p: QuorumCommit, cluster: Cluster, run: Run, generators: Generators, number: int, r: int, replication: Replication
) -> CostBlock:
    workload = AppendRows()
    states = cluster.synchronous(replication.mode, replication.k, replication.level, _DEADLINE_S)
    writing.prepare(cluster, workload, _DEADLINE_S)
    load = writing.begin(
        cluster,
        run,
        generators,
        workload,
        writers=p.writers,
        seed=p.seed,
        block=number,
        duration_s=p.warmup_s + p.block_s,
    )
    with writing.writing(load):
        load.future.result(_DEADLINE_S + p.warmup_s + p.block_s)
    assert load.result is not None
    writes = run.table("writes", block=number)
    begun = load.result.from_ns + int(p.warmup_s * 1e9)
    found = outage.figures(writes[writes["intent_ns"] >= begun], load.result.to_ns)
    return CostBlock(
        block=number,
        round=r,
        mode=str(replication),
        level=replication.level,
        sync_states=states,
        from_ns=load.result.from_ns,
        warm_until_ns=begun,
        to_ns=load.result.to_ns,
        **found.model_dump(include=set(WriteFigures.model_fields)),
    )


def _demonstrate(p: QuorumCommit, cluster: Cluster) -> list[Demonstration]:
    """One commit each with none, the first, and all replicas stopped; then the wait of a lone primary is cancelled."""
    primary = cluster.primary()
    replicas = cluster.replicas()
    writing.prepare(cluster, AppendRows(), _DEADLINE_S)
    shown: list[Demonstration] = []
    key = 0
    for replication in (Replication("FIRST", 1), Replication("ANY", 1), Replication("ANY", 2)):
        for stopped in (replicas[:0], replicas[:1], replicas):
            cluster.synchronous(replication.mode, replication.k, replication.level, _DEADLINE_S)
            try:
                _stop(stopped, primary)
                key += 1
                commit = _Commit(primary, key)
                waited_ms = commit.wait(p.deadline_s)
                one = Demonstration(
                    mode=str(replication),
                    stopped=[node.name for node in stopped],
                    states=_states(primary),
                    commit_ms=waited_ms,
                    key=key,
                )
                if waited_ms is None and len(stopped) == len(replicas) and replication == Replication("ANY", 1):
                    one = one.changed(cancelled=commit.cancel(_DEADLINE_S), on_primary=_has(primary, key))
                commit.close()
                shown.append(one)
            finally:
                _start(stopped, cluster)
    return [one.changed(later_on_replicas=[node.name for node in replicas if _has(node, one.key)]) for one in shown]


class _Commit:
    """One INSERT under way on a connection of its own."""

    def __init__(self, node: Node, key: int) -> None:
        self._connection = node.connect("app")
        self._said: list[str] = []
        self._connection.add_notice_handler(
            lambda notice: self._said.append(f"{notice.severity}:  {notice.message_primary}")
        )
        self._began = time.monotonic()
        self._connection.pgconn.send_query(_WRITE.format(key=key).encode())

    def wait(self, deadline_s: float) -> float | None:
        """Milliseconds until the server answered; None if it has not within the deadline."""
        answered = sql.answered(self._connection, deadline_s)
        return (time.monotonic() - self._began) * 1e3 if answered else None

    def cancel(self, deadline_s: float) -> str:
        """Ask the server to cancel, and what it says to that."""
        self._connection.pgconn.get_cancel().cancel()
        self.wait(deadline_s)
        result = self._connection.pgconn.get_result()
        status = result.status if result is not None else None
        answer = result.command_status if result is not None and status == pq.ExecStatus.COMMAND_OK else None
        return "\n".join([*self._said, answer.decode() if answer else "ERROR"])

    def close(self) -> None:
        self._connection.close()


def _stop(nodes: list[Node], primary: Node) -> None:
    for node in nodes:
        node.control.stop("fast")
    names = {node.name for node in nodes}
    wait_until(lambda: not names & _states(primary).keys(), _DEADLINE_S, "the primary to notice", primary)


def _start(nodes: list[Node], cluster: Cluster) -> None:
    for node in nodes:
        node.control.start()
    for node in nodes:
        node.wait_ready(_DEADLINE_S)
    cluster.wait_streaming(_DEADLINE_S)
    cluster.wait_for_catchup(_DEADLINE_S)


def _states(primary: Node) -> dict[str, str]:
    with primary.session() as connection:
        return {row["application_name"]: row["sync_state"] for row in sql.replication(connection)}


def _has(node: Node, key: int) -> bool:
    with node.session() as connection:
        row = connection.execute(f"SELECT count(*) FROM {AppendRows.table} WHERE key = %s", (key,)).fetchone()
        return row is not None and row[0] > 0
