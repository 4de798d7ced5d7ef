"""Noticing that a primary is gone, as a failover manager does: ask it all the time, and believe a second refusal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Self

import psycopg

from labkit.errors import ClusterError, WaitTimeout
from labkit.lab.cluster import sql, synchronize
from labkit.lab.cluster.node import Node
from labkit.lsn import parse_lsn

_QUESTION = b"SELECT pg_current_wal_flush_lsn()::text"


class Watch:
    """Asks a primary for its LSN over one open connection; a context manager.

    Every `interval_s`; an answer that takes longer than `patience_s` counts as none. `primary_lsn` is the last answer,
    `replication` what its commits wait for. A broken connection is not enough: a new one must be refused too. It also
    holds a connection to each of `others`, the replicas, so that a failover need not begin by connecting:
    `take_sessions` hands them over.
    """

    def __init__(
        self, node: Node, others: Sequence[Node] = (), interval_s: float = 0.02, patience_s: float = 1.0
    ) -> None:
        self.node, self.interval_s, self.patience_s = node, interval_s, patience_s
        self._connection = node.connect()
        self._others = {other.name: other.connect() for other in others}
        self.replication = synchronize.current(self._connection)
        self.primary_lsn: int | None = None
        self.probe()

    def probe(self) -> str:
        """Ask once; empty if it answered, else what went wrong."""
        try:
            lsn = sql.answer(self._connection, _QUESTION, self.patience_s)
        except (psycopg.Error, ClusterError) as error:
            return str(error).strip().splitlines()[0]
        self.primary_lsn = parse_lsn(lsn)
        return ""

    def wait_for_failure(self, deadline_s: float = 30.0) -> str:
        """Until the primary does not answer, nor lets anybody in; why. Raises WaitTimeout if it keeps answering."""
        give_up = time.monotonic() + deadline_s
        while time.monotonic() < give_up:
            if (problem := self.probe()) and (refusal := self._refused()):
                return f"{problem}; {refusal}"
            time.sleep(self.interval_s)
        raise WaitTimeout(f"timed out after {deadline_s:g} s waiting for it to fail: it answers", node=self.node.name)

    def _refused(self) -> str:
        """Why a new connection cannot be made; empty if it can, which then takes the old one's place."""
        try:
            # libpq takes no deadline below two seconds.
            fresh = self.node.connect(connect_timeout=2)
        except ClusterError as error:
            return error.reason
        with contextlib.suppress(psycopg.Error):
            self._connection.close()
        self._connection = fresh
        return ""

    def take_sessions(self) -> dict[str, sql.Connection]:
        """The connections to the others, by node; the caller closes them."""
        taken, self._others = self._others, {}
        return taken

    def close(self) -> None:
        """Close what is not handed over."""
        for other in self._others.values():
            other.close()
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
