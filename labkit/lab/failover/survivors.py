"""The nodes that are left when a primary fails: reached, kept from receiving more, looked at, and sent back to it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import psycopg

from labkit.errors import ClusterError, WaitTimeout
from labkit.lab.cluster import sql
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.failover import candidates, faults
from labkit.lab.failover.candidates import Survivor

_ENDING_BY_ITSELF_S = 0.1
_PATIENCE_S = 2.0  # with a survivor that was there before

Sessions = dict[str, sql.Connection]


def connect(nodes: Sequence[Node], sessions: Sessions) -> None:
    """Have an open connection to each that answers; those there are and still answer stay."""
    for node in nodes:
        if not _is_open(sessions.get(node.name)):
            sessions.pop(node.name, None)
            with contextlib.suppress(ClusterError):
                sessions[node.name] = node.connect(connect_timeout=2)


def stop_receivers(old: Node, nodes: Sequence[Node], sessions: Mapping[str, sql.Connection], deadline_s: float) -> None:
    """Until nothing more can arrive from `old`. Replicas that lost their primary stop receiving by themselves; others,
    whose primary hangs, are told to. Raises ClusterError, WaitTimeout."""
    there = [node for node in nodes if node.name in sessions]

    def silent() -> bool:
        return not any(sql.receives(sessions[node.name]) for node in there)

    if not old.control.running():
        with contextlib.suppress(WaitTimeout):
            wait_until(silent, _ENDING_BY_ITSELF_S, "the WAL receivers to stop", interval_s=0.002)
            return
    for node in there:
        if sql.role(sessions[node.name]) != "primary":
            faults.stop_receiving(node, deadline_s)


def follow_again(old: Node, cluster: Cluster, sessions: Mapping[str, sql.Connection]) -> None:
    """Replicas that were told to receive nothing, by this failover or one cut off before it, receive from `old`."""
    for name, session in sessions.items():
        told = sql.settings(session, ["primary_conninfo"])["primary_conninfo"]
        if sql.role(session) == "replica" and not told:
            cluster.node(name).follow(old, session)


def look_at(node: Node, session: sql.Connection | None, priorities: Mapping[str, int]) -> Survivor:
    """What it has, over an administrator's connection to it; None if it does not answer."""
    priority = priorities.get(node.name, candidates.DEFAULT_PRIORITY)
    if session is None:
        return Survivor(node.name, answers=False, priority=priority)
    position, timeline = sql.wal_position(session), sql.timeline(session)
    if position.role == "primary":
        return Survivor(node.name, role="primary", received=position.flushed, timeline=timeline, priority=priority)
    return Survivor(
        node.name,
        received=position.received,
        replayed=position.replayed,
        timeline=timeline,
        replay_paused=sql.replay_paused(session),
        priority=priority,
    )


def cannot_follow(
    cluster: Cluster, followers: Sequence[Survivor], new: Node, connection: sql.Connection
) -> dict[str, ClusterError]:
    """Which of these replicas cannot follow `new`, just promoted, as they are.

    Name -> why, and what helps, an error that is not raised.
    """
    timeline = sql.timeline(connection)
    fork = sql.forked_at(connection, timeline)
    found = {}
    for s in followers:
        if fork is not None and (s.timeline or 0) < timeline and (s.replayed or 0) > fork:
            found[s.name] = ClusterError(
                f"it has replayed {(s.replayed or 0) - fork:,} bytes of WAL that {new.name} never had",
                node=s.name,
                remedy=cluster.remedy("rejoin", "takes them back", node=s.name),
            )
        elif s.replay_paused:
            helps = sql.resume_replay(f"lets it follow {new.name}")
            found[s.name] = ClusterError("its WAL replay is paused", node=s.name, remedy=helps)
    return found


def _is_open(connection: sql.Connection | None) -> bool:
    """Whether a connection that was opened earlier still answers."""
    if connection is None:
        return False
    try:
        sql.answer(connection, b"SELECT 1", _PATIENCE_S)
    except (psycopg.Error, ClusterError):
        connection.close()
        return False
    return True
