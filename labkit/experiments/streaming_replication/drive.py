"""What streaming replication does, step by step on a running cluster: every step notes what it sees as events."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
from psycopg.sql import SQL, Literal

from labkit.errors import ClusterError
from labkit.experiments.stage import accounted, on_cluster, recorded
from labkit.experiments.streaming_replication.parameters import StreamingReplication
from labkit.lab import providers
from labkit.lab.cluster import sql
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import ReplicaKeeper
from labkit.lab.cluster.waiting import wait_until
from labkit.lsn import parse_lsn
from labkit.replication import Level
from labkit.run.schema import LessonBlock
from labkit.run.schema.events import (
    Broken,
    Commits,
    Conflict,
    FollowerSeen,
    NodeSeen,
    Position,
    Rebuilt,
    SlotSeen,
    SlotStep,
    Visibility,
)
from labkit.run.store import Run
from labkit.units import MIB, count

DEADLINE_S = 60.0
WATCH_INTERVAL_S = 0.05
MOST_STEPS = 400
_SLOT = """
SELECT wal_status, safe_wal_size, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS retained_bytes
FROM pg_replication_slots WHERE slot_name = %s"""
_BROKEN = ("can no longer", "been removed", "been invalidated")


def streaming_replication(parameters: StreamingReplication) -> Run:
    """Drive every step and return the run. Settings that a step changes are put back.

    With `run_id` nothing is driven: the recorded run is returned. Raises LabkitError; the run is then marked failed.
    """
    p = parameters
    if p.run_id:
        return recorded(p)
    with on_cluster(p) as (run, cluster):
        run.update(planned=dict.fromkeys(p.levels, 1))
        with cluster.primary().session() as connection:
            connection.execute("DROP TABLE IF EXISTS replication_lesson")
            connection.execute("CREATE TABLE replication_lesson (id bigint PRIMARY KEY, filling text NOT NULL)")
        cluster.wait_for_catchup(DEADLINE_S)
        _note_topology(run, cluster, "before")
        _watch_positions(run, cluster, p.write_load_s)
        with accounted(run, cluster):
            for number, level in enumerate(p.levels):
                _time_visibility(run, cluster, p, number, level)
        _provoke_conflict(run, cluster)
        _lose_slot(run, cluster, p)
        _note_topology(run, cluster, "after")
        run.mark("measured")
    return run


def _note_topology(run: Run, cluster: Cluster, when: str) -> None:
    """Roles, positions, pg_stat_replication and slots."""
    for node in cluster.nodes:
        position = node.lsn()
        run.note(NodeSeen(when=when, node=node.name, role=position.role, position=str(position)))
    for row in cluster.replication():
        seen = {name: row[name] for name in ("application_name", "state", "sync_state")}
        run.note(FollowerSeen(when=when, **seen))
    with cluster.primary().session() as connection:
        rows = connection.execute(
            "SELECT slot_name, active, wal_status FROM pg_replication_slots ORDER BY 1"
        ).fetchall()
    for slot, active, status in rows:
        run.note(SlotSeen(when=when, slot=slot, active=active, wal_status=status))


def _watch_positions(run: Run, cluster: Cluster, load_s: float) -> None:
    """Write for some seconds; how far each position of each replica is behind the primary, every 50 ms."""
    primary = cluster.primary()
    ending = threading.Event()
    writer = threading.Thread(target=_write, args=(primary, ending), daemon=True)
    begun = time.monotonic()
    with primary.session() as connection:
        writer.start()
        # A second after the load shows how the replicas catch up.
        while (elapsed := time.monotonic() - begun) < load_s + 1:
            if elapsed >= load_s:
                ending.set()
            position = sql.wal_position(connection)
            now = position.written or 0
            for row in sql.replication(connection):
                behind: dict[str, Any] = {
                    f"{name}_behind_bytes": now - parse_lsn(row[f"{name}_lsn"])
                    for name in ("sent", "write", "flush", "replay")
                    if row[f"{name}_lsn"]
                }
                lags = {name: row[name] for name in ("write_lag_s", "flush_lag_s", "replay_lag_s")}
                run.note(
                    Position(
                        second=elapsed,
                        node=row["application_name"],
                        wal_bytes=now,
                        loaded=not ending.is_set(),
                        **behind,
                        **lags,
                    )
                )
            time.sleep(WATCH_INTERVAL_S)  # the pace of the samples
    writer.join(DEADLINE_S)
    cluster.wait_for_catchup(DEADLINE_S)


def _write(primary: Node, ending: threading.Event) -> None:
    with primary.connect() as connection:
        first = 1
        while not ending.is_set():
            connection.execute(
                "INSERT INTO replication_lesson SELECT i, repeat('x', 500) FROM generate_series(%s::bigint, %s) i",
                (first, first + 499),
            )
            first += 500


def _time_visibility(run: Run, cluster: Cluster, p: StreamingReplication, number: int, level: Level) -> None:
    """Commit rows one by one; when the client knew of each commit, and when each replica first showed its row."""
    primary = cluster.primary()
    replicas = [node for node in cluster.nodes if node is not primary]
    names = ", ".join(node.name for node in replicas)
    with _changed(primary, {"synchronous_standby_names": f"FIRST 1 ({names})"}), primary.session() as connection:
        _wait_synchronous(cluster, replicas[0])
        connection.execute("TRUNCATE replication_lesson")
        cluster.wait_for_catchup(DEADLINE_S)
        watchers = [_Watcher(node, p.commits) for node in replicas]
        connection.execute(SQL("SET synchronous_commit = {}").format(Literal(level)))
        asked, known = [], []
        from_ns = run.now_ns()
        for i in range(1, p.commits + 1):
            asked.append(time.monotonic_ns())
            connection.execute("INSERT INTO replication_lesson VALUES (%s, 'x')", (i,))
            known.append(time.monotonic_ns())
            time.sleep(p.interval_ms / 1000)  # the pace of the load
        to_ns = run.now_ns()
        for watcher in watchers:
            watcher.join()
    latency_ms = [(done - begun) / 1e6 for begun, done in zip(asked, known, strict=True)]
    seconds = (to_ns - from_ns) / 1e9
    run.note(Commits(level=level, synchronous=replicas[0].name, latency_ms=latency_ms, seconds=seconds))
    for watcher in watchers:
        run.note(
            Visibility(
                level=level,
                node=watcher.node.name,
                stale_ms=[(watcher.seen[i] - done) / 1e6 for i, done in enumerate(known, start=1)],
                missed_ms=[(watcher.missed[i] - done) / 1e6 for i, done in enumerate(known, start=1)],
                resolution_ms=watcher.resolution_ms,
            )
        )
    run.note_block(
        LessonBlock(
            block=number,
            workload="commit",
            arm=level,
            round=0,
            from_ns=from_ns,
            warm_until_ns=from_ns,
            to_ns=to_ns,
            nodes=[primary.name],
        )
    )


class _Watcher:
    """Asks one replica as fast as it answers which rows it shows; `seen` and `missed` bound when each appeared.

    seen: row -> when the first answer that had it came. missed: row -> when the last question was asked whose answer
    did not have it: at that time it was not visible yet.
    """

    def __init__(self, node: Node, last: int) -> None:
        self.node, self.seen, self.missed = node, dict[int, int](), dict[int, int]()
        self.resolution_ms = 0.0
        self._last = last
        self._problem: Exception | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._ready.wait(DEADLINE_S)

    def _watch(self) -> None:
        try:
            with self.node.connect() as connection, connection.cursor() as cursor:
                asked, began = 0, time.monotonic()
                before_ns = time.monotonic_ns()
                give_up = began + DEADLINE_S + self._last
                while len(self.seen) < self._last and time.monotonic() < give_up:
                    asked_ns = time.monotonic_ns()
                    row = cursor.execute("SELECT coalesce(max(id), 0) FROM replication_lesson", prepare=True).fetchone()
                    answered = time.monotonic_ns()
                    self._ready.set()
                    asked += 1
                    for i in range(len(self.seen) + 1, (row[0] if row else 0) + 1):
                        self.seen[i], self.missed[i] = answered, before_ns
                    before_ns = asked_ns
                self.resolution_ms = (time.monotonic() - began) / asked * 1e3
        except (ClusterError, psycopg.Error) as error:
            self._problem = error
            self._ready.set()

    def join(self) -> None:
        """Until every row was seen. Raises ClusterError if one never was."""
        self._thread.join(2 * DEADLINE_S)
        if self._problem is not None or len(self.seen) < self._last:
            raise ClusterError(
                f"only {len(self.seen)} of {count(self._last, 'commit')} became visible: "
                f"{self._problem or 'it is behind'}",
                node=self.node.name,
                log_tail=self.node.control.log_tail(),
            )


def _provoke_conflict(run: Run, cluster: Cluster) -> None:
    """A long read on a replica against VACUUM on the primary, without the protection that labkit's settings give."""
    primary = cluster.primary()
    replica = next(node for node in cluster.nodes if node is not primary)
    exposed = {"hot_standby_feedback": "off", "max_standby_streaming_delay": "200ms"}
    with _changed(replica, exposed), replica.connect(autocommit=False) as reader, primary.session() as writer:
        wait_until(lambda: replica.settings(list(exposed)) == exposed, DEADLINE_S, "the settings to hold", replica)
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM replication_lesson")
        writer.execute("DELETE FROM replication_lesson")
        begun = time.monotonic()

        def refused() -> psycopg.Error | None:
            # The replica tells the primary its oldest snapshot for a moment longer: vacuum until the rows are gone.
            writer.execute("VACUUM replication_lesson")
            try:
                reader.execute("SELECT count(*) FROM replication_lesson")
            except psycopg.Error as error:
                return error
            return None

        error = wait_until(refused, DEADLINE_S, "the read to be cancelled", replica, interval_s=0.05)
        assert error is not None
        run.note(
            Conflict(
                node=replica.name,
                after_s=time.monotonic() - begun,
                sqlstate=error.sqlstate,
                message=str(error).strip().splitlines()[0],
                detail=error.diag.message_detail or "",
                hot_standby_feedback=exposed["hot_standby_feedback"],
                max_standby_streaming_delay=exposed["max_standby_streaming_delay"],
            )
        )
        with contextlib.suppress(psycopg.Error):  # the server has ended this session
            reader.rollback()


def _lose_slot(run: Run, cluster: Cluster, p: StreamingReplication) -> None:
    """Stop a replica and write until its slot is lost; start it, see what it says, and rebuild it."""
    primary = cluster.primary()
    replica = cluster.nodes[-1] if cluster.nodes[-1] is not primary else cluster.nodes[0]
    keeper = providers.provider(p.provider)
    assert isinstance(keeper, ReplicaKeeper)
    replica.control.stop()
    limits = {"max_slot_wal_keep_size": f"{p.slot_keep_mb}MB", "wal_keep_size": "0"}
    with _changed(primary, limits), primary.session() as connection:
        for _ in range(MOST_STEPS):
            status, safe, retained = connection.execute(_SLOT, (replica.name,)).fetchone() or (None, None, None)
            run.note(SlotStep(node=replica.name, wal_status=status, safe_wal_bytes=safe, retained_bytes=retained))
            if status in ("lost", None):
                break
            connection.execute("SELECT pg_logical_emit_message(true, 'labkit', repeat('x', %s))", (8 * MIB,))
            connection.execute("SELECT pg_switch_wal()")
            connection.execute("CHECKPOINT")
        replica.control.start()
        replica.wait_ready(DEADLINE_S)
        line = wait_until(lambda: _complaint(replica), DEADLINE_S, "the replica to miss its WAL", replica)
        assert line is not None
        run.note(Broken(node=replica.name, line=line, role=replica.role()))
    begun = time.monotonic()
    keeper.rebuild(cluster.name, replica.name)
    run.note(Rebuilt(node=replica.name, seconds=time.monotonic() - begun))
    cluster.wait_for_catchup(DEADLINE_S)


def _complaint(replica: Node) -> str | None:
    lines = replica.control.log_tail(50).splitlines()
    refused = [line for line in lines if "ERROR:" in line or "FATAL:" in line]
    return next((line for line in reversed(refused) if any(words in line for words in _BROKEN)), None)


def _wait_synchronous(cluster: Cluster, replica: Node) -> None:
    def is_synchronous() -> bool:
        states: list[dict[str, Any]] = cluster.replication()
        return any(row["application_name"] == replica.name and row["sync_state"] == "sync" for row in states)

    wait_until(is_synchronous, DEADLINE_S, "the first replica to be synchronous", replica)


@contextlib.contextmanager
def _changed(node: Node, settings: Mapping[str, str]) -> Iterator[None]:
    """Settings that hold while the with-block runs."""
    node.configure(settings)
    try:
        yield
    finally:
        node.configure(dict.fromkeys(settings))
