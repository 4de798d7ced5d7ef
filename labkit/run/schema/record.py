"""The record of run.json: what was asked, on what it ran, what was found."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypedDict, TypeVar, cast

from pydantic import ConfigDict, Field, field_validator, model_validator

from labkit.run.schema.base import Record, ReplicationMode, Status
from labkit.run.schema.blocks import BLOCKS, Block

Scalar = bool | int | float | str | None
B = TypeVar("B", bound=Block)


class Epoch(Record):
    """Time 0 of a run."""

    utc: str  # ISO 8601
    monotonic_ns: int  # the same moment on the monotonic clock of the machine that drives the run


class Git(Record):
    """The checkout that drove a run."""

    commit: str
    dirty: bool  # changed since that commit


class Host(Record):
    """The machine that drove a run; nothing that names it."""

    cores: int
    memory_bytes: int
    cpu: str
    os: str


class Postgresql(Record):
    """What the servers run."""

    version: str
    binaries: str | None = None


class Server(Record):
    """One server when the run began."""

    name: str
    role: str | None  # primary or replica; None if it was not known
    settings: dict[str, str]  # those that matter here, as PostgreSQL shows them


class DatasetSpec(Record):
    """Which rows the users table has."""

    users: int
    locale: str
    seed: int


class Seeding(Record):
    """The users table, and how long making it took; the parts are zero if the rows were there already."""

    spec: DatasetSpec
    already_there: bool
    table_bytes: int
    index_bytes: int
    copy_s: float = 0.0
    index_s: float = 0.0
    analyze_s: float = 0.0
    checkpoint_s: float = 0.0
    catchup_s: float = 0.0

    @property
    def rows(self) -> int:
        return self.spec.users

    @property
    def total_s(self) -> float:
        return self.copy_s + self.index_s + self.analyze_s + self.checkpoint_s + self.catchup_s


class Follower(Record):
    """A row of pg_stat_replication. What the lab's role may not see is None."""

    application_name: str
    user: str | None = None
    client_addr: str | None = None
    client_port: int | None = None
    pid: int | None = None
    state: str | None = None
    sync_state: str | None = None
    sync_priority: int | None = None
    sent_lsn: str | None = None
    write_lsn: str | None = None
    flush_lsn: str | None = None
    replay_lsn: str | None = None
    replay_lag_bytes: int | None = None
    write_lag_s: float | None = None
    flush_lag_s: float | None = None
    replay_lag_s: float | None = None
    backend_start: str | None = None  # ISO 8601


class Sampling(Record):
    """What taking the samples cost."""

    interval_s: float
    ticks: int
    missed: int  # ticks that could not be taken in time
    rows: int
    cpu_s: float
    cost_fraction: float  # of one core


class Demonstration(Record):
    """Of quorum-commit: one commit while replicas are stopped."""

    mode: ReplicationMode
    stopped: list[str]
    states: dict[str, str]  # replica -> sync_state, as the primary has it then
    commit_ms: float | None  # None: it waited beyond the deadline
    key: int
    later_on_replicas: list[str] = []  # which have the row when all run again
    cancelled: str | None = None  # what the server said when the wait was cancelled, where it was
    on_primary: bool | None = None  # whether the row was there then


class Difference(Record):
    """One thing that two arms that are compared do not have in common: `connections: 32 → 64`."""

    thing: str
    before: str  # of the arm that is compared with
    after: str  # of the other one

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, noted: Any) -> Any:
        """As labkit noted it at first: the three in one text."""
        if not isinstance(noted, str):
            return noted
        thing, colon, sides = noted.partition(": ")
        before, arrow, after = sides.partition(" → ")
        if not (colon and arrow):
            raise ValueError(f"{noted!r} is not written `thing: before → after`")
        return {"thing": thing, "before": before, "after": after}

    def __str__(self) -> str:
        return f"{self.thing}: {self.before} → {self.after}"


class Comparison(Record):
    """Two arms that are compared, and what differs between them. Of several things none is known as the cause."""

    arm: str
    against: str
    differs: list[Difference]

    @property
    def in_words(self) -> str:
        """All that differs, in one line; empty if nothing does."""
        return "; ".join(map(str, self.differs))


class Lines(Record):
    """The whole lines of a file that only grows, as far as it had grown when they were noted."""

    bytes: int
    digest: str


class RunRecord(Record, Generic[B]):
    """All of run.json. What is None or empty was not noted, or not yet."""

    model_config = ConfigDict(frozen=False, validate_assignment=True)

    schema_version: int = Field(alias="schema")
    experiment: str
    status: Status
    problem: str | None = None  # why it failed
    epoch: Epoch
    parameters: dict[str, Scalar]  # all of them, defaults included
    blocks: list[B] = []
    planned: dict[str, int] | None = None  # cell -> blocks; None where the run decides as it goes, or did not note it
    digests: dict[str, str] | None = None  # part of a table -> its digest; None: recorded before there were any
    events: Lines | None = None  # of events.jsonl; None as well
    seal: str | None = None  # the digest of all else in run.json; None as well
    versions: dict[str, str] = {}  # of what took part: package or library -> version
    git: Git | None = None  # None outside a checkout
    host: Host | None = None
    provider: str | None = None
    cluster: str | None = None
    postgresql: Postgresql | None = None
    nodes: list[Server] = []
    dataset: Seeding | None = None
    comparisons: list[Comparison] = []  # which arms are compared; a run without derives them from its blocks
    replication: list[Follower] = []  # before the load
    replication_after: list[Follower] = []
    not_measured: dict[str, dict[str, str]] = {}  # node -> metric -> why there are no samples of it
    sampler: Sampling | None = None
    found_per_s: float | None = None  # of max-throughput: the highest rate that held; None if not even the lowest did
    demonstrations: list[Demonstration] = []  # of quorum-commit

    @field_validator("blocks")
    @classmethod
    def _one_of_each_number(cls, blocks: list[B]) -> list[B]:
        twice = [str(number) for number, count in Counter(block.block for block in blocks).items() if count > 1]
        if twice:
            raise ValueError(f"there is more than one block {', '.join(twice)}")
        return blocks


class Facts(TypedDict, total=False):
    """What may be noted in run.json while a run is driven, by the names and with the types of RunRecord."""

    blocks: Sequence[Block]
    planned: Mapping[str, int]
    versions: Mapping[str, str]
    git: Git | None
    host: Host
    provider: str
    cluster: str
    postgresql: Postgresql
    nodes: Sequence[Server]
    dataset: Seeding
    comparisons: Sequence[Comparison]
    replication: Sequence[Follower]
    replication_after: Sequence[Follower]
    not_measured: Mapping[str, Mapping[str, str]]
    sampler: Sampling
    found_per_s: float | None
    demonstrations: Sequence[Demonstration]


class Summary(Record):
    """What a script wants to know of a run. `labkit report` writes it, and rewrites it."""

    id: str
    path: str
    status: Status
    valid: bool
    problems: list[str]  # why it is not
    headline: list[dict[str, Any]]  # rows of the experiment's headline; None for what is unknown
    differences: list[dict[str, Any]]  # rows of its differences
    verdicts: list[str]


@functools.cache
def record_of(experiment: str) -> type[RunRecord[Any]]:
    """The type of run.json for an experiment: its blocks are of that experiment's type."""
    return cast(type[RunRecord[Any]], RunRecord[BLOCKS.get(experiment, Block)])  # type: ignore[misc]
