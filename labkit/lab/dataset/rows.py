"""The rows of the users table, without a server.

    id             the md5 of '<seed>:<number>' read as a uuid, so SQL, pgbench and Python all know user number i
    first_name, second_name, city   drawn from Faker's lists with their frequencies; a surname agrees with the sex
    biography      one or two sentences of Faker's words in the locale's language (pt_BR: placeholder Latin)
    birthdate      any day from 1940 to 2005
    password_hash  random characters in the shape of a bcrypt hash: the hash of no password

User number i is the same person in a dataset of any size.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labkit.errors import BadInput
from labkit.lab.dataset.locales import LOCALES

BLOCK_ROWS = 4096  # about 1 MB of COPY text; a block is what one random generator draws
_FORMAT = 1  # raise it when the same spec starts to give other rows
_POOL = 3000
_SENTENCE_WORDS = 8
_PREFIX_LETTERS = 3
_BCRYPT_PREFIX, _BCRYPT_REST = "$2b$12$", 53
_BCRYPT_ALPHABET = np.frombuffer(b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", dtype=np.uint8)
_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_BIRTHDATES = np.datetime_as_string(np.arange("1940-01-01", "2006-01-01", dtype="datetime64[D]")).tolist()


@dataclass(frozen=True)
class DatasetSpec:
    """Which rows: how many users, the language of their names, the seed. Raises BadInput."""

    users: int
    locale: str = "en_US"
    seed: int = 20230604

    def __post_init__(self) -> None:
        problems = []
        if self.users < 1:
            problems.append(f"users: {self.users} is out of range, it must be at least 1")
        if self.seed < 0:
            problems.append(f"seed: {self.seed} is out of range, it must be at least 0")
        if self.locale not in LOCALES:
            problems.append(f"locale: {self.locale!r} is not among {', '.join(LOCALES)}")
        if problems:
            raise BadInput(problems, subject="dataset")

    @property
    def fingerprint(self) -> str:
        """What the rows follow from, the versions of the libraries that draw them included."""
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("faker", "numpy"))
        return f"users {self.users}, locale {self.locale}, seed {self.seed}, format {_FORMAT}, {versions}"


@dataclass(frozen=True)
class Names:
    """Who is called what: user i is `first_pool[first[i]]` `second_pool[second[i]]`.

    `first` and `second` are int32 arrays with one entry per user; the pools are lists of words with repetitions.
    `absent_first` and `absent_second` are prefixes with which no name begins, so a search for one is a certain
    miss; they share their beginning with a real name, so the search walks the index as a hit does.
    """

    first_pool: list[str]
    second_pool: list[str]
    first: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    absent_first: list[str]
    absent_second: list[str]

    def of(self, user: int) -> tuple[str, str]:
        """First and second name of user number `user`."""
        return self.first_pool[self.first[user]], self.second_pool[self.second[user]]


@dataclass(frozen=True)
class _Pools:
    """What a row draws from. Names: the men's half, then the women's."""

    first: list[str]
    second: list[str]
    city: list[str]
    sentence: list[str]


@functools.lru_cache(maxsize=1)
def ids(spec: DatasetSpec) -> bytes:
    """The ids of all users in order of their number, 16 bytes each: uuids in PostgreSQL's binary format."""
    md5, prefix = hashlib.md5, b"%d:" % spec.seed
    return b"".join([md5(prefix + b"%d" % i, usedforsecurity=False).digest() for i in range(spec.users)])


@functools.lru_cache(maxsize=1)
def names(spec: DatasetSpec) -> Names:
    """The names of all users, without the rest of their rows."""
    pools = _pools(spec.locale, spec.seed)
    drawn = [_draw_names(_generator(spec, block)) for block in range(_blocks(spec))]
    return Names(
        first_pool=pools.first,
        second_pool=pools.second,
        first=np.concatenate([first for first, _ in drawn])[: spec.users],
        second=np.concatenate([second for _, second in drawn])[: spec.users],
        absent_first=_absent_prefixes(pools.first),
        absent_second=_absent_prefixes(pools.second),
    )


def copy_text(spec: DatasetSpec) -> Iterator[bytes]:
    """Yield all rows in the text format of COPY, BLOCK_ROWS at a time."""
    pools = _pools(spec.locale, spec.seed)
    first, second, city, sentence = (
        [word.translate(_COPY_ESCAPES) for word in pool]
        for pool in (pools.first, pools.second, pools.city, pools.sentence)
    )
    md5 = hashlib.md5
    for block in range(_blocks(spec)):
        rng = _generator(spec, block)
        firsts, seconds = (drawn.tolist() for drawn in _draw_names(rng))
        cities, openings, closings = (rng.integers(0, _POOL, BLOCK_ROWS).tolist() for _ in range(3))
        two_sentences = rng.integers(0, 2, BLOCK_ROWS).tolist()
        birthdates = rng.integers(0, len(_BIRTHDATES), BLOCK_ROWS).tolist()
        drawn = _BCRYPT_ALPHABET[rng.integers(0, 64, BLOCK_ROWS * _BCRYPT_REST, dtype=np.uint8)]
        hashes = drawn.tobytes().decode("ascii")
        start = block * BLOCK_ROWS
        rows = []
        # Indexing columns by row number is as fast as zipping seven of them, and says which is which.
        for i in range(min(BLOCK_ROWS, spec.users - start)):
            number = b"%d:%d" % (spec.seed, start + i)
            biography = sentence[openings[i]]
            if two_sentences[i]:
                biography += " " + sentence[closings[i]]
            rows.append(
                f"{md5(number, usedforsecurity=False).hexdigest()}\t{first[firsts[i]]}\t{second[seconds[i]]}"
                f"\t{_BIRTHDATES[birthdates[i]]}\t{biography}\t{city[cities[i]]}"
                f"\t{_BCRYPT_PREFIX}{hashes[i * _BCRYPT_REST : (i + 1) * _BCRYPT_REST]}\n"
            )
        yield "".join(rows).encode()


def _blocks(spec: DatasetSpec) -> int:
    return -(-spec.users // BLOCK_ROWS)


def _generator(spec: DatasetSpec, block: int) -> np.random.Generator:
    return np.random.default_rng([spec.seed, block])


def _draw_names(rng: np.random.Generator) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    woman = rng.integers(0, 2, BLOCK_ROWS, dtype=np.int32)
    first = woman * _POOL + rng.integers(0, _POOL, BLOCK_ROWS, dtype=np.int32)
    second = woman * _POOL + rng.integers(0, _POOL, BLOCK_ROWS, dtype=np.int32)
    return first, second


@functools.lru_cache(maxsize=1)
def _pools(locale: str, seed: int) -> _Pools:
    from faker import Faker  # needed once in a process, and by few: a load generator of plain look-ups knows no names

    fake = Faker(locale)
    fake.seed_instance(seed)

    def draws(of: Callable[[], str]) -> list[str]:
        return [of() for _ in range(_POOL)]

    return _Pools(
        first=draws(fake.first_name_male) + draws(fake.first_name_female),
        second=draws(fake.last_name_male) + draws(fake.last_name_female),
        city=draws(fake.city),
        sentence=[fake.sentence(_SENTENCE_WORDS) for _ in range(_POOL)],
    )


def _absent_prefixes(pool: list[str]) -> list[str]:
    """The first letters of a name of the pool, followed by a letter that continues none of them."""
    taken = {name[: _PREFIX_LETTERS + 1] for name in pool}
    letters = {letter for name in pool for letter in name[1:] if letter.isalpha()}
    # A beginning with a space or an apostrophe in it would be no prefix that anyone types.
    beginnings = {name[:_PREFIX_LETTERS] for name in pool if len(name) >= _PREFIX_LETTERS}
    return sorted({start + letter for start in beginnings if start.isalpha() for letter in letters} - taken)
