"""The way the rows get into a cluster: COPY, indexes, statistics, checkpoint, replicas caught up."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import psycopg
from psycopg.sql import SQL, Identifier

from labkit.errors import ClusterError
from labkit.lab.cluster import sql
from labkit.lab.cluster.marks import ADOPT_USERS, is_marked, mark
from labkit.lab.dataset.rows import BLOCK_ROWS, DatasetSpec, copy_text
from labkit.lab.providers.declared import DECLARED
from labkit.progress import Progress
from labkit.remedies import Remedy, advice, setting
from labkit.run import schema
from labkit.run.schema import Seeding
from labkit.units import GIB, count, gib

if TYPE_CHECKING:
    from labkit.lab.cluster.cluster import Cluster
    from labkit.lab.cluster.node import Node

CATCHUP_DEADLINE_S = 600.0
_LOCK_TIMEOUT = "30s"
# Table and indexes of one user in the widest locale (ru_RU: 430 bytes), and as much WAL until it is recycled.
_BYTES_PER_USER = 450
_RETAINED_WAL_BYTES = 4 * GIB

_RECORD = "CREATE TABLE IF NOT EXISTS labkit_dataset (spec text NOT NULL, seeded_at timestamptz NOT NULL)"
_TABLES = ("users", "labkit_dataset")
_TABLE = """
CREATE TABLE users (
    id uuid NOT NULL, first_name text NOT NULL, second_name text NOT NULL, birthdate date NOT NULL,
    biography text NOT NULL, city text NOT NULL, password_hash text NOT NULL
)"""
# Built after the rows are in: sorting once is far cheaper than a million descents.
_PRIMARY_KEY = "ALTER TABLE users ADD PRIMARY KEY (id)"
# text_pattern_ops serves LIKE 'prefix%' whatever the database's collation is.
_NAMES_INDEX = "CREATE INDEX users_names ON users (second_name text_pattern_ops, first_name text_pattern_ops)"


@runtime_checkable
class _OnThisMachine(Protocol):
    data_directory: Path


def seed(cluster: Cluster, spec: DatasetSpec, progress: Callable[[str, float, str], Progress] = Progress) -> Seeding:
    """Make the users table hold exactly the rows of `spec`, on every node, ready to be measured.

    The table is replaced in one transaction; the spec is recorded last, so seeding that was cut off at any
    point is done again by the next call. The same spec again changes nothing. Raises ClusterError if the disk
    is too small or a server refuses.
    """
    primary = cluster.primary()
    with primary.connect() as connection:
        try:
            return _seeded(cluster, connection, spec, progress)
        except psycopg.errors.LockNotAvailable as error:
            raise ClusterError(
                f"the users table is in use, so it could not be replaced within {_LOCK_TIMEOUT}",
                node=primary.name,
                remedy=advice("end the load or the other seeding, then seed again"),
            ) from error
        except psycopg.Error as error:
            raise ClusterError(
                f"seeding {count(spec.users, 'user')} was cut off: {' '.join(str(error).split()).rstrip('.')}",
                node=primary.name,
                remedy=advice("remove the cause and seed again, which starts from the beginning"),
            ) from error


def _seeded(
    cluster: Cluster,
    connection: psycopg.Connection[Any],
    spec: DatasetSpec,
    progress: Callable[[str, float, str], Progress],
) -> Seeding:
    noted = schema.DatasetSpec(**asdict(spec))
    # Waiting for a synchronous standby would not make the rows safer: the replicas are waited for at the end.
    connection.execute("SET synchronous_commit = local")
    connection.execute(SQL("SET lock_timeout = {}").format(_LOCK_TIMEOUT))
    connection.execute("SELECT pg_advisory_lock(hashtext('labkit_dataset'))")
    if _recorded(connection) == spec.fingerprint:
        if not _level(cluster, connection):
            cluster.wait_for_catchup(CATCHUP_DEADLINE_S)
        return Seeding(spec=noted, already_there=True, **_sizes(connection))
    check_space(cluster, spec)
    clock = _Clock()
    if not DECLARED[cluster.provider].owns and is_marked(connection, "users") is False:
        raise _another_s_table()
    with connection.transaction():
        connection.execute(_RECORD)
        connection.execute("DELETE FROM labkit_dataset")
        connection.execute("DROP TABLE IF EXISTS users")
        connection.execute(_TABLE)
        for table in _TABLES:
            mark(connection, table, spec.fingerprint)
        _copy(connection, spec, progress)
        copy_s = clock.lap()
        with progress("indexing the users", 2, "indexes") as bar:
            connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
            connection.execute(f"SET LOCAL max_parallel_maintenance_workers = {min(4, os.cpu_count() or 1)}")
            connection.execute(_PRIMARY_KEY)
            bar.update(1)
            connection.execute(_NAMES_INDEX)
            bar.update(2)
    index_s = clock.lap()
    with progress("settling the dataset", 3, "steps") as bar:
        # Autovacuum would otherwise come for the new rows within a minute: in the middle of a measurement. It goes by
        # counters, which have to arrive before VACUUM sets them back, not a second after.
        if connection.info.server_version >= 150000:
            connection.execute("SELECT pg_stat_force_next_flush()")
        connection.execute("VACUUM (ANALYZE) users")
        analyze_s = clock.lap()
        connection.execute(
            "INSERT INTO labkit_dataset (spec, seeded_at) VALUES (%s, clock_timestamp())", [spec.fingerprint]
        )
        bar.update(1)
        connection.execute("CHECKPOINT")
        checkpoint_s = clock.lap()
        bar.update(2)
        cluster.wait_for_catchup(CATCHUP_DEADLINE_S)
        bar.update(3)
    return Seeding(
        spec=noted,
        already_there=False,
        **_sizes(connection),
        copy_s=copy_s,
        index_s=index_s,
        analyze_s=analyze_s,
        checkpoint_s=checkpoint_s,
        catchup_s=clock.lap(),
    )


def read_once(nodes: Iterable[Node]) -> None:
    """Read the users table and its indexes whole on each node, so that no load is the first to fetch them from storage.

    Otherwise the first round would compare caches: an arm's nodes are cold in it, and warm where another arm was there
    before. Raises ClusterError.
    """
    for node in nodes:
        with node.session() as connection:
            connection.execute(
                "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off"
            )
            connection.execute("SELECT count(biography) FROM users")
            connection.execute("RESET enable_indexscan; RESET enable_indexonlyscan; SET enable_seqscan = off")
            connection.execute("SELECT count(id) FROM users")
            connection.execute("SELECT count(first_name) FROM users")


def remove(cluster: Cluster) -> dict[str, bool]:
    """Drop the tables that `seed` made, and only those.

    Each table that there is -> whether labkit had made it, so that it is gone now. Raises ClusterError if a table is in
    use, or a server refuses.
    """
    primary = cluster.primary()
    found: dict[str, bool] = {}
    with primary.connect() as connection:
        try:
            connection.execute(SQL("SET lock_timeout = {}").format(_LOCK_TIMEOUT))
            connection.execute("SELECT pg_advisory_lock(hashtext('labkit_dataset'))")
            with connection.transaction():
                for table in _TABLES:
                    made = is_marked(connection, table)
                    if made is not None:
                        found[table] = made
                    if made:
                        connection.execute(SQL("DROP TABLE {}").format(Identifier(table)))
        except psycopg.Error as error:
            reason = f"the dataset could not be removed: {' '.join(str(error).split()).rstrip('.')}"
            raise ClusterError(reason, node=primary.name, remedy=advice("end what uses it, then try again")) from error
    return found


def _another_s_table() -> ClusterError:
    return ClusterError(
        "its table `users` was not made by labkit, and is not replaced",
        remedy=[
            advice("name a database for labkit alone"),
            Remedy("sql", "if an earlier labkit did make it", statement=ADOPT_USERS),
        ],
    )


def _copy(
    connection: psycopg.Connection[Any], spec: DatasetSpec, progress: Callable[[str, float, str], Progress]
) -> None:
    # FREEZE (allowed in the transaction that created the table) marks the rows visible to all as they are written:
    # no hint bits and no visibility map are left to be written, and logged, by the first reads and by VACUUM.
    statement = "COPY users FROM STDIN (FORMAT text, FREEZE true)"
    with progress("seeding users", spec.users, "users") as bar, connection.cursor().copy(statement) as copy:
        for number, block in enumerate(copy_text(spec), start=1):
            copy.write(block)
            bar.update(min(number * BLOCK_ROWS, spec.users))


def _recorded(connection: psycopg.Connection[Any]) -> str | None:
    """The fingerprint of the complete dataset that is there, if one is."""
    both = "SELECT to_regclass('users') IS NOT NULL AND to_regclass('labkit_dataset') IS NOT NULL"
    if connection.execute(both).fetchone() != (True,):
        return None
    row = connection.execute("SELECT spec FROM labkit_dataset").fetchone()
    return row[0] if row else None


def _level(cluster: Cluster, connection: psycopg.Connection[Any]) -> bool:
    """Whether the primary sees every other node level with it: one query, where waiting takes many connections."""
    lags = [row["replay_lag_bytes"] for row in sql.replication(connection)]
    return lags == [0] * (len(cluster.nodes) - 1)


def _sizes(connection: psycopg.Connection[Any]) -> dict[str, int]:
    row = connection.execute("SELECT pg_table_size('users'), pg_indexes_size('users')").fetchone()
    assert row is not None
    return {"table_bytes": row[0], "index_bytes": row[1]}


def check_space(cluster: Cluster, spec: DatasetSpec) -> None:
    """Raise ClusterError if the file systems under the nodes' data directories are too small for the rows.

    Nodes whose data directory is not on this machine's file systems are not checked: the server itself will say.
    """
    wal_bytes = min(spec.users * _BYTES_PER_USER, _RETAINED_WAL_BYTES)
    nodes_on: dict[int, list[tuple[str, Path]]] = {}
    for node in cluster.nodes:
        if isinstance(node.control, _OnThisMachine):
            directory = node.control.data_directory
            nodes_on.setdefault(directory.stat().st_dev, []).append((node.name, directory))
    for placed in nodes_on.values():
        need_bytes = len(placed) * (spec.users * _BYTES_PER_USER + wal_bytes)
        free_bytes = shutil.disk_usage(placed[0][1]).free
        if need_bytes > free_bytes:
            raise ClusterError(
                f"{count(spec.users, 'user')} on {', '.join(name for name, _ in placed)} need about "
                f"{gib(need_bytes)}, and the file system of {placed[0][1]} has "
                f"{gib(free_bytes)} free",
                remedy=[advice("free some"), advice("seed fewer users"), setting("LABKIT_DATA", "a larger disk")],
            )


class _Clock:
    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last lap."""
        last, self._last = self._last, time.monotonic()
        return self._last - last
