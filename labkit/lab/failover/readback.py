"""Reading rows back: which keys a server has, and in which transactions they were written."""

from __future__ import annotations

from typing import Any

import numpy as np
from psycopg.sql import SQL, Identifier

from labkit.errors import ClusterError
from labkit.lab.cluster import sql
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.workloads.append_rows import AppendRows
from labkit.remedies import advice
from labkit.run.layout import View
from labkit.run.store import Run

Keys = np.ndarray[Any, np.dtype[np.int64]]

# COPY's binary format: a header of 19 bytes, then for each row the number of fields and each field with its length.
_HEADER_BYTES = 19
_ROW = np.dtype([("fields", ">i2"), ("key_bytes", ">i4"), ("key", ">i8"), ("xid_bytes", ">i4"), ("xid", ">i8")])


def rows(connection: sql.Connection) -> tuple[Keys, Keys]:
    """Keys and transaction ids of every visible row, in no order."""
    query = SQL("COPY (SELECT key, xmin::text::bigint FROM {}) TO STDOUT (FORMAT binary)")
    with connection.cursor() as cursor, cursor.copy(query.format(Identifier(AppendRows.table))) as copy:
        content = b"".join(bytes(block) for block in copy)
    count = (len(content) - _HEADER_BYTES) // _ROW.itemsize
    found = np.frombuffer(content, dtype=_ROW, count=count, offset=_HEADER_BYTES)
    return found["key"].astype(np.int64), found["xid"].astype(np.int64)


def promoted(node: Node) -> tuple[Keys, Keys]:
    """What a new primary has. Raises ClusterError while it is still in recovery: rows may be missing then."""
    with node.session() as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if sql.role(connection) != "primary":
            raise ClusterError(
                "it is still in recovery: what it has not replayed yet would count as lost",
                node=node.name,
                remedy=advice("promote it first"),
            )
        return rows(connection)


class Snapshot:
    """What a replica has at this moment, to be read later, when it has long gone on."""

    def __init__(self, node: Node, received: int | None, deadline_s: float = 30.0) -> None:
        """Waits until everything received is replayed. Raises ClusterError, WaitTimeout."""
        self.node = node
        self._connection = node.connect()

        def caught_up() -> bool:
            return (sql.wal_position(self._connection).replayed or 0) >= (received or 0)

        wait_until(caught_up, deadline_s, "the replay of everything received", node, interval_s=0.002)
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._connection.execute("SELECT 1")  # the snapshot is taken with the first query

    def read(self) -> tuple[Keys, Keys]:
        """The rows of that moment; the connection is closed then."""
        with self._connection as connection:
            return rows(connection)


def record(run: Run, block: int, view: View, node: str, keys: Keys, xids: Keys) -> None:
    """Keep what was read as a part of the run's table `survivors`."""
    with run.writer("survivors", block, view) as writer:
        writer.write(
            {
                "block": np.full(len(keys), block, np.int32),
                "node": (np.zeros(len(keys), np.int32), [node]),
                "view": (np.zeros(len(keys), np.int32), [view]),
                "key": keys,
                "xid": xids,
            }
        )
