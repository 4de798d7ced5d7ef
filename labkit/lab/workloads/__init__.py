"""What a virtual user asks for: the SQL, its parameters, and what a right answer is.

A workload is a small picklable description. `requests` and `checker` run inside the load generator, so what they
give is made of bytes in PostgreSQL's binary format, and costs about a microsecond a request.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from psycopg import pq

from labkit.errors import BadInput
from labkit.lab import dataset

UUID_OID, TEXT_OID, INT8_OID = 2950, 25, 20
COLUMNS = "id, first_name, second_name, birthdate, biography, city"
_PREFIX = 4
_CHUNK = 1024  # random choices are drawn this many at a time, a fraction of a millisecond

Parameters = list[bytes]
Check = Callable[[pq.abc.PGresult, Parameters], bool]


class Workload(Protocol):
    """One kind of request."""

    @property
    def name(self) -> str: ...

    @property
    def writes(self) -> bool: ...

    @property
    def statement(self) -> str:
        """SQL with $1, $2, …; prepared once on each connection."""
        ...

    @property
    def types(self) -> tuple[int, ...]:
        """The parameters' type OIDs; all are sent in binary format."""
        ...

    def requests(self, rng: np.random.Generator) -> Iterator[Parameters]:
        """Endless parameters, one list a request."""
        ...

    def checker(self) -> Check:
        """A function that says whether an answer (binary format) to these parameters is right."""
        ...


@dataclass(frozen=True)
class GetUser:
    """One random existing user by id."""

    data: dataset.DatasetSpec
    name: ClassVar[str] = "get-user"
    writes: ClassVar[bool] = False
    statement: ClassVar[str] = f"SELECT {COLUMNS} FROM users WHERE id = $1"
    types: ClassVar[tuple[int, ...]] = (UUID_OID,)

    def requests(self, rng: np.random.Generator) -> Iterator[Parameters]:
        ids = dataset.ids(self.data)
        while True:
            for i in rng.integers(0, self.data.users, _CHUNK).tolist():
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
    name: ClassVar[str] = "get-user-by-number"
    writes: ClassVar[bool] = False
    types: ClassVar[tuple[int, ...]] = (TEXT_OID,)

    @property
    def statement(self) -> str:
        return f"SELECT {COLUMNS} FROM users WHERE id = md5('{self.data.seed}:' || $1)::uuid"

    def requests(self, rng: np.random.Generator) -> Iterator[Parameters]:
        while True:
            for i in rng.integers(0, self.data.users, _CHUNK).tolist():
                yield [b"%d" % i]

    def checker(self) -> Check:
        ids = dataset.ids(self.data)

        def right(result: pq.abc.PGresult, parameters: Parameters) -> bool:
            i = 16 * int(parameters[0])
            return result.ntuples == 1 and result.get_value(0, 0) == ids[i : i + 16]

        return right


@dataclass(frozen=True)
class SearchUsers:
    """All users whose two names begin with two given prefixes.

    A hit takes the first four characters of both names of a random user; a miss takes four letters with which no
    name begins. Misses are what the original report measured.
    """

    data: dataset.DatasetSpec
    hit_ratio: float = 0.0
    name: ClassVar[str] = "search-users"
    writes: ClassVar[bool] = False
    statement: ClassVar[str] = f"SELECT {COLUMNS} FROM users WHERE first_name LIKE $1 AND second_name LIKE $2"
    types: ClassVar[tuple[int, ...]] = (TEXT_OID, TEXT_OID)

    def requests(self, rng: np.random.Generator) -> Iterator[Parameters]:
        names = dataset.names(self.data)
        firsts, seconds = sorted(set(names.first_pool)), sorted(set(names.second_pool))
        letters = sorted({letter for name in seconds for letter in name[1:].lower() if letter.isalpha()})
        known = {name[:_PREFIX] for name in (*firsts, *seconds)}

        def absent(pool: list[str]) -> list[bytes]:
            found: list[bytes] = []
            while len(found) < _CHUNK:
                start = pool[rng.integers(len(pool))][:1]
                prefix = start + "".join(letters[i] for i in rng.integers(0, len(letters), _PREFIX - 1))
                if prefix not in known:
                    found.append(_pattern(prefix))
            return found

        no_firsts, no_seconds = absent(firsts), absent(seconds)
        while True:
            hits = (rng.random(_CHUNK) < self.hit_ratio).tolist()
            users = rng.integers(0, self.data.users, _CHUNK).tolist()
            misses = rng.integers(0, _CHUNK, (_CHUNK, 2)).tolist()
            for hit, user, (i, j) in zip(hits, users, misses, strict=True):
                if hit:
                    first, second = names.of(user)
                    yield [_pattern(first[:_PREFIX]), _pattern(second[:_PREFIX])]
                else:
                    yield [no_firsts[i], no_seconds[j]]

    def checker(self) -> Check:
        seconds = set(dataset.names(self.data).second_pool)
        known = {_pattern(name[:_PREFIX]): name[:_PREFIX].encode() for name in seconds}
        first_column, second_column = 1, 2

        def right(result: pq.abc.PGresult, parameters: Parameters) -> bool:
            second = known.get(parameters[1])
            if second is None:
                return result.ntuples == 0
            first = _unescaped(parameters[0])
            return result.ntuples > 0 and all(
                (result.get_value(row, first_column) or b"").startswith(first)
                and (result.get_value(row, second_column) or b"").startswith(second)
                for row in range(result.ntuples)
            )

        return right


@dataclass(frozen=True)
class AppendRows:
    """One transaction of `rows_per_tx` new rows, whose keys the client makes: consecutive numbers, never used twice.

    The table has no unique index on purpose: a row that was written twice must be able to show itself.
    """

    rows_per_tx: int = 1
    payload_bytes: int = 64
    first_key: int = 0
    name: ClassVar[str] = "append-rows"
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


def workload(name: str, data: dataset.DatasetSpec, *, hit_ratio: float = 0.0) -> Workload:
    """The workload of that name. Raises BadInput."""
    if name == GetUser.name:
        return GetUser(data)
    if name == GetUserByNumber.name:
        return GetUserByNumber(data)
    if name == SearchUsers.name:
        return SearchUsers(data, hit_ratio)
    raise BadInput(f"unknown workload {name!r}")


def _pattern(prefix: str) -> bytes:
    """The LIKE pattern for names that begin with `prefix`."""
    return prefix.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_").encode() + b"%"


def _unescaped(pattern: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", pattern[:-1], flags=re.DOTALL)
