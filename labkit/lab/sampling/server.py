"""The probe that asks a server itself: its connections and, on the primary, how far behind the replicas are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import psycopg

from labkit.lab.cluster.node import Node
from labkit.lab.sampling.probe import Reading

APPLICATION_NAME = "labkit-sampler"

# pg_current_wal_lsn() is an error in recovery, so a server in recovery is asked for no lag; it may have replicas of
# its own, but theirs is not the distance from the primary.
_QUERY = f"""
WITH clients AS (
    SELECT state FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND application_name <> '{APPLICATION_NAME}'
), lags AS (
    SELECT application_name, pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::bigint AS lag_bytes,
           extract(epoch FROM replay_lag)::float8 AS lag_s
    FROM pg_stat_replication WHERE NOT pg_is_in_recovery() AND replay_lsn IS NOT NULL
)
SELECT count(*) AS clients,
       count(*) FILTER (WHERE state = 'active') AS active,
       count(*) FILTER (WHERE state = 'idle') AS idle,
       count(*) FILTER (WHERE state LIKE 'idle in transaction%') AS idle_in_transaction,
       (SELECT json_agg(lags) FROM lags) AS lags
FROM clients"""
_STATES = ("active", "idle", "idle_in_transaction")


class ServerProbe:
    """Client connections by state, the sampler's own left out, and the lag of every replica of this node.

    lag_bytes is the WAL the primary has written and the replica has not replayed, both as the primary sees them at
    one moment. lag_s is the primary's `replay_lag`. That is NULL once a replica has been caught up and idle for a
    while, which is no lag: 0. The replica's now() - pg_last_xact_replay_timestamp() would not do, it grows on an
    idle primary.
    """

    name = "server"
    not_measured: Mapping[str, str] = {}

    def __init__(self, node: Node, others: Collection[Node]) -> None:
        self.node = node.name
        self._replicas = {other.application_name: other.name for other in others if other.application_name}
        # A server that is stopped, not dead, never answers; statement_timeout bounds only one that runs.
        self._conninfo = node.conninfo(
            application_name=APPLICATION_NAME,
            connect_timeout=2,
            tcp_user_timeout=5000,
            options="-c statement_timeout=2000",
        )
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def read(self) -> list[Reading]:
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(
                self._conninfo, autocommit=True, prepare_threshold=0
            )
        try:
            row = await (await self._connection.execute(_QUERY)).fetchone()
        except psycopg.Error:
            self.close()
            raise
        assert row is not None
        clients, *counts, lags = row
        readings: list[Reading] = [
            (self.node, f"connections_{state}", float(count)) for state, count in zip(_STATES, counts, strict=True)
        ]
        # Starting up, in a function call of the old protocol, or with track_activities off.
        readings.append((self.node, "connections_other", float(clients - sum(counts))))
        for lag in lags or ():
            replica = self._replicas.get(lag["application_name"])
            lag_bytes, lag_s = max(0, lag["lag_bytes"]), lag["lag_s"]
            if replica is None:
                continue  # pg_basebackup, for one
            readings.append((replica, "lag_bytes", float(lag_bytes)))
            if lag_s is not None or lag_bytes == 0:
                readings.append((replica, "lag_s", float(lag_s or 0.0)))
        return readings

    def close(self) -> None:
        if self._connection is not None:
            # Not AsyncConnection.close(), which only the event loop could await: this one also ends a read that
            # waits for a server that does not answer.
            self._connection.pgconn.finish()
            self._connection = None
