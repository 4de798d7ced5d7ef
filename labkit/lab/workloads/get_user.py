"""Point reads: one user by id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from psycopg import pq

from labkit import names
from labkit.lab import dataset
from labkit.lab.workloads.base import CHUNK, COLUMNS, TEXT_OID, UUID_OID, Check, Parameters


@dataclass(frozen=True)
class GetUser:
    """One random existing user by id."""

    data: dataset.DatasetSpec
    name: ClassVar[str] = names.GET_USER
    writes: ClassVar[bool] = False
    statement: ClassVar[str] = f"SELECT {COLUMNS} FROM users WHERE id = $1"
    types: ClassVar[tuple[int, ...]] = (UUID_OID,)

    def requests(self, rng: np.random.Generator) -> Iterator[Parameters]:
        ids = dataset.ids(self.data)
        while True:
            for i in rng.integers(0, self.data.users, CHUNK).tolist():
                yield [ids[16 * i : 16 * i + 16]]

    def checker(self) -> Check:
        def right(result: pq.abc.PGresult, parameters: Parameters) -> bool:
            return result.ntuples == 1 and result.get_value(0, 0) == parameters[0]

        return right


@dataclass(frozen=True)
class GetUserByNumber:
    """One random existing user, whose id the server computes from the user's number.

    The benchmark's query: pgbench can send a random number but no random uuid.
    """

    data: dataset.DatasetSpec
    name: ClassVar[str] = names.GET_USER_BY_NUMBER
    writes: ClassVar[bool] = False
    types: ClassVar[tuple[int, ...]] = (TEXT_OID,)

    @property
    def statement(self) -> str:
        return f"SELECT {COLUMNS} FROM users WHERE id = md5('{self.data.seed}:' || $1)::uuid"

    def requests(self, rng: np.random.Generator) -> Iterator[Parameters]:
        while True:
            for i in rng.integers(0, self.data.users, CHUNK).tolist():
                yield [b"%d" % i]

    def checker(self) -> Check:
        ids = dataset.ids(self.data)

        def right(result: pq.abc.PGresult, parameters: Parameters) -> bool:
            i = 16 * int(parameters[0])
            return result.ntuples == 1 and result.get_value(0, 0) == ids[i : i + 16]

        return right
