"""Promoting a replica: what is looked at before, the promotion itself, and what its failure looks like to a client."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from labkit.errors import ClusterError
from labkit.lab.cluster import sql
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.failover.candidates import Survivor

# At the end of recovery the server deletes standby.signal, and dies if it cannot. Renaming a new file over the old one
# needs exactly the right to delete the old one, and at no moment is there none: a crash in between makes no primary.
# A folder that cannot be written to is no problem then: pg_promote says so itself, and the replica stays one.
_CAN_DELETE = """
cat > /dev/null
test -e standby.signal || exit 41
touch standby.signal.new || exit 42
mv -f standby.signal.new standby.signal 2> /dev/null && exit 0
rm -f standby.signal.new
exit 43
"""
_MEANINGS = {
    41: "standby.signal is gone: somebody has deleted it by hand. The promotion would end with a crash; "
    "put an empty file of that name back into the data directory",
    42: "the data directory is not writable for the server: pg_promote would be refused; "
    "give it to the server's user (mode 0700)",
    43: "standby.signal cannot be deleted: the file is mounted on its own, immutable, or of another user in a sticky "
    "directory. The promotion would end with a crash; unmount it, or make it an ordinary file of the server's user",
}


def preflight(
    node: Node, followers: Sequence[tuple[str, int]] = (), connection: sql.Connection | None = None
) -> list[str]:
    """What would make the promotion of this replica fail, or leave its followers behind; one sentence each.

    `followers` are the other replicas and the LSN from which each must go on. Needs a shell beside the server, which
    every provider of labkit has. Raises ClusterError if the node does not answer.
    """
    problems = []
    with node.session() if connection is None else _given(connection, node) as session:
        if sql.role(session) == "primary":
            return [f"{node.name} is a primary already"]
        if sql.replay_paused(session):
            problems.append(f"{node.name}: its WAL replay is paused; SELECT pg_wal_replay_resume() continues it")
        oldest = sql.oldest_wal(session)
        problems += [
            f"{node.name} has WAL from {sql.lsn_text(oldest)} on, but {name} must go on from "
            f"{sql.lsn_text(lsn)}: it would have to be rebuilt. Raise wal_keep_size"
            for name, lsn in followers
            if lsn < oldest
        ]
        problems += [f"{node.name}: {problem}" for problem in _standby_signal(session)]
    return problems


def _standby_signal(connection: sql.Connection) -> list[str]:
    try:
        connection.execute(f"COPY (SELECT) TO PROGRAM $shell${_CAN_DELETE}$shell$")
    except psycopg.errors.ExternalRoutineException as error:
        found = re.search(r"exit code (\d+)", error.diag.message_detail or "")
        code = int(found[1]) if found else 0
        return [_MEANINGS.get(code, f"standby.signal could not be looked at: {error.diag.message_detail}")]
    return []


def promote(node: Node, connection: sql.Connection | None = None, deadline_s: float = 30.0) -> None:
    """Promote and wait until the node has left recovery. Raises ClusterError with the log's last lines, WaitTimeout.

    pg_promote itself looks every 100 ms; this looks every 2 ms. No error if somebody's request has just been granted.
    """
    with node.session() if connection is None else _given(connection, node) as session:
        try:
            # "Recovery is not in progress": it has ended since this was decided.
            with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
                sql.begin_promotion(session)
            wait_until(
                lambda: sql.role(session) == "primary", deadline_s, "the end of recovery", node, interval_s=0.002
            )
        except psycopg.OperationalError as error:
            raise ClusterError(
                f"the promotion failed: {str(error).strip().splitlines()[0]}; the reason is in the log",
                node=node.name,
                log_tail=node.control.log_tail(),
            ) from error


def cannot_follow(followers: Sequence[Survivor], new: Node, connection: sql.Connection) -> dict[str, str]:
    """Which of these replicas cannot follow `new`, just promoted, as they are: name -> why, and what helps."""
    timeline = sql.timeline(connection)
    fork = sql.forked_at(connection, timeline)
    found = {}
    for s in followers:
        if fork is not None and (s.timeline or 0) < timeline and (s.replayed or 0) > fork:
            found[s.name] = (
                f"it has replayed {(s.replayed or 0) - fork:,} bytes of WAL that {new.name} never had; "
                f"`labkit rejoin {s.name}` takes them back"
            )
        elif s.replay_paused:
            found[s.name] = f"its WAL replay is paused; it follows {new.name} after SELECT pg_wal_replay_resume()"
    return found


class _given:
    """A connection that somebody else closes, with this node's name on its errors."""

    def __init__(self, connection: sql.Connection, node: Node) -> None:
        self._connection, self._node = connection, node

    def __enter__(self) -> sql.Connection:
        return self._connection

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ClusterError):
            error.node = error.node or self._node.name


@dataclass(frozen=True)
class Attempt:
    """What a person at psql sees of one pg_promote(), and the server's own words about it."""

    promoted: bool
    client: str
    log: tuple[str, ...]


def attempt(node: Node, deadline_s: float = 30.0) -> Attempt:
    """SELECT pg_promote() as a person would type it, whatever comes of it. Raises WaitTimeout."""
    said: list[str] = []
    before = node.control.log_tail(5000).splitlines()
    with node.connect() as connection:
        connection.add_notice_handler(lambda notice: said.append(_as_psql(notice)))
        try:
            row = connection.execute("SELECT pg_promote(true, %s)", (max(1, round(deadline_s)),)).fetchone()
            said.append(f" pg_promote \n------------\n {'t' if row and row[0] else 'f'}")
            promoted = sql.role(connection) == "primary"
        except psycopg.OperationalError as error:
            # What psql prints of the same loss, without psycopg's words about where it noticed.
            said.append(str(error).removeprefix("consuming input failed: ").strip())
            promoted = False
        except psycopg.Error as error:
            said.append(f"{error.diag.severity}:  {error.diag.message_primary}")
            promoted = False
    if not promoted and any("server closed the connection" in line for line in said):
        wait_until(lambda: not node.control.running(), deadline_s, "the server to end after the crash", node)
    fresh = node.control.log_tail(5000).splitlines()[len(before) :]
    telling = tuple(line for line in fresh if re.search(r"FATAL|ERROR|PANIC|standby\.signal|promot", line))
    return Attempt(promoted, "\n".join(said), telling)


def _as_psql(notice: psycopg.errors.Diagnostic) -> str:
    lines = [f"{notice.severity}:  {notice.message_primary}"]
    lines += [f"DETAIL:  {notice.message_detail}"] if notice.message_detail else []
    lines += [f"HINT:  {notice.message_hint}"] if notice.message_hint else []
    return "\n".join(lines)
