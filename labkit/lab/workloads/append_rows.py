"""Writes whose keys the client makes, so that every acknowledged row can be looked up afterwards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from psycopg import pq

from labkit import names
from labkit.lab.workloads.base import INT8_OID, TEXT_OID, Check, Parameters


@dataclass(frozen=True)
class AppendRows:
    """One transaction of `rows_per_tx` new rows, whose keys the client makes: consecutive numbers, never used twice.

    The table has no unique index on purpose: a row that was written twice must be able to show itself.
    """

    rows_per_tx: int = 1
    payload_bytes: int = 64
    first_key: int = 0
    name: ClassVar[str] = names.APPEND_ROWS
    writes: ClassVar[bool] = True
    table: ClassVar[str] = "appended"
    types: ClassVar[tuple[int, ...]] = (INT8_OID, TEXT_OID)

    @property
    def schema(self) -> list[str]:
        """The statements that make an empty table."""
        return [
            f"DROP TABLE IF EXISTS {self.table}",
            f"CREATE TABLE {self.table} (key bigint NOT NULL, payload text NOT NULL)",
        ]

    @property
    def statement(self) -> str:
        if self.rows_per_tx == 1:
            return f"INSERT INTO {self.table} (key, payload) VALUES ($1, $2)"
        last = self.rows_per_tx - 1
        return f"INSERT INTO {self.table} (key, payload) SELECT $1 + i, $2 FROM generate_series(0, {last}) AS i"

    def requests(self, rng: np.random.Generator) -> Iterator[Parameters]:
        payload = rng.bytes(self.payload_bytes).hex()[: self.payload_bytes].encode()
        for key in itertools.count(self.first_key, self.rows_per_tx):
            yield [key.to_bytes(8, "big"), payload]

    def checker(self) -> Check:
        written = self.rows_per_tx

        def right(result: pq.abc.PGresult, parameters: Parameters) -> bool:
            del parameters
            return result.command_tuples == written

        return right
