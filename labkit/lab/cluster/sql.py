"""The SQL the lab asks of a server. Every function takes an open connection and asks one thing; LSNs are integers."""

from __future__ import annotations

import select
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg import pq
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier
from psycopg.sql import Literal as Quoted

from labkit.errors import ClusterError
from labkit.lsn import lsn_text, parse_lsn
from labkit.remedies import Remedy

Role = Literal["primary", "replica"]
Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class WalPosition:
    """How far one server's WAL has come, in LSNs as integers.

    A primary has `written` and `flushed`. A replica has `received` (None if it has not streamed since its start)
    and `replayed` (None before recovery has begun).
    """

    role: Role
    written: int | None = None
    flushed: int | None = None
    received: int | None = None
    replayed: int | None = None

    @property
    def furthest(self) -> int:
        """The most advanced of what is known; 0 if nothing is."""
        return max((self.written or 0, self.flushed or 0, self.received or 0, self.replayed or 0))

    def __str__(self) -> str:
        known = (
            (name, getattr(self, name))
            for name in ("written", "flushed", "received", "replayed")
            if getattr(self, name) is not None
        )
        return " ".join(f"{name} {lsn_text(lsn)}" for name, lsn in known) or "nothing replayed yet"


def _row(connection: Connection, query: str, parameters: object = None) -> tuple[Any, ...]:
    # Without parameters a % in the query stays what it is.
    row = connection.execute(query, parameters).fetchone()  # type: ignore[call-overload]
    assert row is not None
    return tuple(row)


def role(connection: Connection) -> Role:
    """What the server is now: a server in recovery is a replica."""
    return "replica" if _row(connection, "SELECT pg_is_in_recovery()")[0] else "primary"


def wal_position(connection: Connection) -> WalPosition:
    """How far this server's WAL has come; which of the LSNs are known depends on its role."""
    if role(connection) == "primary":
        written, flushed = _row(connection, "SELECT pg_current_wal_lsn()::text, pg_current_wal_flush_lsn()::text")
        return WalPosition("primary", written=parse_lsn(written), flushed=parse_lsn(flushed))
    received, replayed = _row(connection, "SELECT pg_last_wal_receive_lsn()::text, pg_last_wal_replay_lsn()::text")
    return WalPosition(
        "replica",
        received=parse_lsn(received) if received else None,
        replayed=parse_lsn(replayed) if replayed else None,
    )


def flush_wal(connection: Connection) -> int:
    """Flush everything committed so far on a primary and return the LSN reached.

    With synchronous_commit off an acknowledged commit may still be in memory, beyond every LSN the server reports
    as written. A small transaction that waits for its own flush takes everything before it along.
    """
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = local")
        connection.execute("SELECT pg_logical_emit_message(true, 'labkit', 'flush')")
    return parse_lsn(_row(connection, "SELECT pg_current_wal_flush_lsn()::text")[0])


def settings(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Current values as PostgreSQL shows them (`256MB`, `off`). Raises ClusterError for a name that does not exist."""
    wanted = list(names)
    rows = connection.execute(
        "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", (wanted,)
    ).fetchall()
    found = {str(name): str(value) for name, value in rows}
    if unknown := [name for name in wanted if name not in found]:
        raise ClusterError(f"no such setting: {', '.join(unknown)}")
    return {name: found[name] for name in wanted}


def configure(connection: Connection, changes: Mapping[str, str | None]) -> None:
    """ALTER SYSTEM for each change (None resets it), then reload. Raises ClusterError if one is refused."""
    for name, value in changes.items():
        # A list setting takes its items as separate literals; as one literal it would become one quoted item.
        words = SQL(", ").join(Quoted(item.strip()) for item in value.split(",")) if value else SQL("''")
        assignment = SQL("RESET {}") if value is None else SQL("SET {} = {}")
        statement = SQL("ALTER SYSTEM ") + assignment.format(
            Identifier(name), words if name in _LIST_SETTINGS else Quoted(value)
        )
        try:
            connection.execute(statement)
        except psycopg.Error as error:
            raise ClusterError(f"{name} cannot be set to {value!r}: {error.diag.message_primary or error}") from error
    reload(connection)


_LIST_SETTINGS = {"shared_preload_libraries", "search_path", "temp_tablespaces", "unix_socket_directories"}


def reload(connection: Connection) -> None:
    """Have the server read its configuration files again; it does so within moments, not at once."""
    connection.execute("SELECT pg_reload_conf()")


def needs_restart(connection: Connection, names: Iterable[str]) -> bool:
    """Whether one of these settings takes effect only when the server starts."""
    query = "SELECT FROM pg_settings WHERE context = 'postmaster' AND name = ANY(%s)"
    return connection.execute(query, (list(names),)).fetchone() is not None


_REPLICATION = """
SELECT application_name, usename::text AS user, host(client_addr) AS client_addr, client_port, pid, state,
       sync_state, sync_priority,
       sent_lsn::text, write_lsn::text, flush_lsn::text, replay_lsn::text,
       pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS replay_lag_bytes,
       extract(epoch FROM write_lag)::float8 AS write_lag_s,
       extract(epoch FROM flush_lag)::float8 AS flush_lag_s,
       extract(epoch FROM replay_lag)::float8 AS replay_lag_s,
       to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS backend_start
FROM pg_stat_replication ORDER BY application_name, pid
"""


def replication(connection: Connection) -> list[dict[str, Any]]:
    """pg_stat_replication as plain dicts: LSNs as text, lags in bytes and in seconds (None while nothing is sent)."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_REPLICATION).fetchall()


def create_slot(connection: Connection, name: str) -> None:
    """Make sure that a physical replication slot exists and holds WAL from now on."""
    connection.execute(
        "SELECT pg_create_physical_replication_slot(%s, true)"
        " WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s)",
        (name, name),
    )


def drop_slot(connection: Connection, name: str) -> None:
    """Drop a physical replication slot if it exists, ending the connection that still holds it."""
    connection.execute(
        "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
        " WHERE slot_name = %s AND active_pid IS NOT NULL",
        (name,),
    )
    connection.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (name,)
    )


def begin_promotion(connection: Connection) -> None:
    """pg_promote without waiting for its end. While replay is paused it would discard WAL that was received only."""
    connection.execute("SELECT pg_promote(false)")


def resume_replay(effect: str, node: str = "") -> Remedy:
    """What has a replica go on whose replay is paused; the one that an error names, unless it is named here."""
    where = {"node": node} if node else {}
    return Remedy("sql", effect, statement="SELECT pg_wal_replay_resume()", **where)


def streaming_from(connection: Connection) -> tuple[str, int] | None:
    """Host and port that this replica's WAL receiver streams from; None while it does not stream."""
    row = connection.execute(
        "SELECT sender_host, sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'"
    ).fetchone()
    return (str(row[0]), int(row[1])) if row else None


def receives(connection: Connection) -> bool:
    """Whether this server has a WAL receiver, whatever that is doing."""
    return connection.execute("SELECT FROM pg_stat_wal_receiver").fetchone() is not None


def timeline(connection: Connection) -> int:
    """The newest timeline of which this server has WAL.

    Its control file names that of the last restartpoint, which may be an older one.
    """
    query = "SELECT max(left(name, 8)) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'"
    return int(_row(connection, query)[0], 16)


def forked_at(connection: Connection, timeline: int) -> int | None:
    """The LSN at which a timeline left the one before it; None if the server has no history of it, as of the first."""
    query = "SELECT pg_read_file(%s, 0, 1000000, true)"
    history = str(_row(connection, query, (f"pg_wal/{timeline:08X}.history",))[0] or "")
    # One line per ancestor: its timeline, where it was left, a reason; comments begin with #.
    lines = [line.split() for line in history.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return parse_lsn(lines[-1][1]) if lines else None


def oldest_wal(connection: Connection) -> int:
    """Where the oldest WAL that this server still has begins."""
    query = """
        SELECT min(right(name, 16)), (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size')
        FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'
    """
    segment, segment_bytes = _row(connection, query)
    return (int(segment[:8], 16) << 32) + int(segment[8:], 16) * int(segment_bytes)


def replay_paused(connection: Connection) -> bool:
    return bool(_row(connection, "SELECT pg_is_wal_replay_paused()")[0])


def create_roles(connection: Connection, database: str, passwords: Mapping[str, str]) -> None:
    """The database and its roles: labkit_app may only read and write rows, labkit_replication only replicate.

    Passwords travel as SCRAM verifiers, so that neither the server log nor pg_stat_statements ever holds one.
    """
    for name, attributes in (("labkit_app", "LOGIN"), ("labkit_replication", "LOGIN REPLICATION")):
        verifier = connection.pgconn.encrypt_password(
            passwords[name].encode(), name.encode(), b"scram-sha-256"
        ).decode()
        connection.execute(
            SQL("CREATE ROLE {} {} PASSWORD {}").format(Identifier(name), SQL(attributes), Quoted(verifier))
        )
    named = Identifier(database)
    connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(named))
    connection.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(named))
    connection.execute(SQL("GRANT CONNECT ON DATABASE {} TO labkit_app").format(named))


def grant_rows(connection: Connection) -> None:
    """In the current database: labkit_app may use rows of every table that the current user makes in `public`."""
    for statement in (
        # Up to version 14 every role may create objects in public.
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        "GRANT USAGE ON SCHEMA public TO labkit_app",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO labkit_app",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO labkit_app",
    ):
        connection.execute(statement)


def answer(connection: Connection, question: bytes, patience_s: float) -> str:
    """The first value of a query's answer, waited for no longer than `patience_s`: a server that hangs never answers.

    After a failure the connection is of no more use. Raises ClusterError, psycopg.Error if it is broken.
    """
    pgconn = connection.pgconn
    pgconn.send_query(question)
    if not answered(connection, patience_s):
        raise ClusterError(f"timed out after {patience_s:g} s waiting for an answer")
    result = pgconn.get_result()
    while pgconn.get_result() is not None:
        continue
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        said = result.error_message.decode(errors="replace").strip() if result else ""
        raise ClusterError(said or "the connection was closed")
    return (result.get_value(0, 0) or b"").decode()


def answered(connection: Connection, patience_s: float) -> bool:
    """Wait until what was sent is answered, no longer than `patience_s`. Raises psycopg.Error if it is broken."""
    pgconn, give_up = connection.pgconn, time.monotonic() + patience_s
    while pgconn.is_busy():
        left_s = give_up - time.monotonic()
        if left_s <= 0 or not select.select([pgconn.socket], [], [], left_s)[0]:
            return False
        pgconn.consume_input()
    return True
