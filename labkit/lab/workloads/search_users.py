"""Prefix searches on two names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from psycopg import pq

from labkit import names
from labkit.lab import dataset
from labkit.lab.workloads.base import CHUNK, COLUMNS, TEXT_OID, Check, Parameters

_PREFIX = 4


@dataclass(frozen=True)
class SearchUsers:
    """All users whose two names begin with two given prefixes.

    A hit takes the first four characters of both names of a random user; a miss takes four letters with which no
    name begins. Misses are what the original report measured.
    """

    data: dataset.DatasetSpec
    hit_ratio: float = 0.0
    name: ClassVar[str] = names.SEARCH_USERS
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
            while len(found) < CHUNK:
                start = pool[rng.integers(len(pool))][:1]
                prefix = start + "".join(letters[i] for i in rng.integers(0, len(letters), _PREFIX - 1))
                if prefix not in known:
                    found.append(_pattern(prefix))
            return found

        no_firsts, no_seconds = absent(firsts), absent(seconds)
        while True:
            hits = (rng.random(CHUNK) < self.hit_ratio).tolist()
            users = rng.integers(0, self.data.users, CHUNK).tolist()
            misses = rng.integers(0, CHUNK, (CHUNK, 2)).tolist()
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


def _pattern(prefix: str) -> bytes:
    """The LIKE pattern for names that begin with `prefix`."""
    return prefix.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_").encode() + b"%"


def _unescaped(pattern: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", pattern[:-1], flags=re.DOTALL)
