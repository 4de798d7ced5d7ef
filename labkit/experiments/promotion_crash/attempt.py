"""One pg_promote() as a person at psql types it: what the client sees, and what the server's log says."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg

from labkit.lab.cluster import sql
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.waiting import wait_until


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
    relevant = tuple(line for line in fresh if re.search(r"FATAL|ERROR|PANIC|standby\.signal|promot", line))
    return Attempt(promoted, "\n".join(said), relevant)


def _as_psql(notice: psycopg.errors.Diagnostic) -> str:
    lines = [f"{notice.severity}:  {notice.message_primary}"]
    lines += [f"DETAIL:  {notice.message_detail}"] if notice.message_detail else []
    lines += [f"HINT:  {notice.message_hint}"] if notice.message_hint else []
    return "\n".join(lines)
