"""Blocks: what run.json holds of each part of a run. Which type a run's blocks have follows from its experiment."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from labkit.replication import Level, Replication
from labkit.run.layout import View
from labkit.run.schema.base import Record, ReplicationMode, Verdict

SHARE_THAT_MATTERS = 0.1
"""Of the cores: others that use more disturb a measurement; a machine with less left is used up."""


class HostCpu(Record):
    """Who used the CPU of the machine that drove a run, in cores; together they are all its cores. None: not known."""

    cores: int
    servers: dict[str, float] | None  # those on this machine, by node; None: there are some that were not measured
    generator: float
    lab: float | None  # the process that drove, and its children; None: they are among the others
    others: float | None  # other programs, and interrupts that the kernel charges to none
    idle: float
    stolen: float | None  # what a virtual machine was not given; None: it is among the others
    kernel: float | None = None  # its own threads, of disks and network; None: they are among the others

    @property
    def disturbed(self) -> bool | None:
        """Whether others and the hypervisor took more than 10 % of the cores; None: not known."""
        return None if self.others is None else self.taken > SHARE_THAT_MATTERS * self.cores

    @property
    def taken(self) -> float:
        """Cores that others used or the hypervisor took, as far as it is known."""
        return (self.others or 0.0) + (self.stolen or 0.0)

    @property
    def used_up(self) -> bool:
        """Whether less than 10 % of the cores were left."""
        return self.idle < SHARE_THAT_MATTERS * self.cores


class Block(Record):
    """A part of a run that was driven as a whole. Its rows in the run's tables carry its number."""

    block: int  # counts from 0
    host_cpu: HostCpu | None = None  # while its times and rates were measured; None: not accounted for
    disturbed: bool | None = None  # by other programs, see HostCpu; None: not known

    @property
    def measured_ns(self) -> tuple[int, int] | None:
        """From when to when its times and rates were measured, since the run's epoch; None if there are none."""
        return None

    @property
    def measured_s(self) -> float:
        """For how many seconds its times and rates were measured."""
        from_ns, to_ns = self.measured_ns or (0, 0)
        return (to_ns - from_ns) / 1e9

    @property
    def cell(self) -> str:
        """Which part of the plan it belongs to, as `planned` in run.json names it: its rounds or trials share one."""
        return ""

    @property
    def is_whole(self) -> bool:
        """Whether it was driven as it was meant to be, and counts."""
        return True

    @property
    def has_figures(self) -> bool:
        """Whether it is part of the run's figures, as one that was cut short is too once it has measured."""
        return self.is_whole


Intervention = Literal["nothing", "connections doubled", "users halved", "one load generator more", "CPU limit doubled"]
"""The one thing that is changed in a short round; `nothing` in those that the others are compared with."""


class Cell(Record):
    """Where a block stands in the plan of its experiment: its workload, its arm, its round."""

    workload: str
    arm: str  # who is asked
    round: int  # counts from 0; blocks of one round are compared with each other
    budget: str = ""  # of cpu-budget: shared or limited
    node_cpus: float | None = None  # of cpu-budget: CPUs that each node may use; None: no limit
    phase: str = ""  # of max-throughput: doubling, bisection or confirmation; of a short round: intervention
    intervention: Intervention | None = None  # of a short round: what was changed in it

    @property
    def name(self) -> str:
        """What its rounds have in common."""
        return f"{self.workload}, {self.arm}"


class LoadFigures(Record):
    """What a load generator reports, or several of them together. The measured part is [warm_until_ns, to_ns)."""

    from_ns: int  # since the run's epoch: the load began
    warm_until_ns: int
    to_ns: int  # the load ended
    requests: int  # all of them, warm-up and tail included
    measured: int = 0  # those answered in the measured part
    dropped: int = 0  # of an open load: requests that were never sent
    generator_cpu_percent: float  # of one core, in the measured part; of several generators that of the busiest
    pool_busy_fraction: float  # share of the connections' time in which a request was under way, in the measured part
    late_ns: int = 0  # of an open load: the most that an arrival was noticed after it was due
    interrupted: bool = False
    sqlstates: dict[str, int] = {}  # requests that did not succeed, by SQLSTATE
    problems: dict[str, str] = {}  # the first message that came with each of these
    host: str = ""  # of a generator on another machine: which
    clock_offset_ns: int = 0  # by which that machine's clock is ahead; recorded times have been corrected by it
    clock_bound_ns: int = 0  # how far the offset may be wrong

    @property
    def measured_s(self) -> float:
        """Seconds of the measured part."""
        return (self.to_ns - self.warm_until_ns) / 1e9


class Asked(Record):
    """What was asked of the servers: users, or requests per second; means over the measured part, the other is None."""

    vus: float | None = None  # virtual users
    think_s: float = 0.0  # that a user thinks before the next request
    offered_per_s: float | None = None
    arrival: str | None = None  # of requests per second: constant or poisson


class LoadBlock(Block, Cell, Asked, LoadFigures):
    """One load: a workload on one arm in one round."""

    nodes: list[str]  # who served
    connections: dict[str, int]  # to each of them, as they were opened
    shards: list[LoadFigures] = []  # of a load in several processes: what each did
    replaced: bool = False  # it was disturbed, or compared with one that was: no part of any figure
    holds: bool = True  # of max-throughput: whether the rate held
    reasons: list[str] = []  # of max-throughput: why it did not

    @property
    def measured_ns(self) -> tuple[int, int]:
        return self.warm_until_ns, self.to_ns

    @property
    def counts(self) -> bool:
        """Whether it is part of the run's figures."""
        return not (self.intervention or self.replaced)

    @property
    def cell(self) -> str:
        return self.name

    @property
    def is_whole(self) -> bool:
        return self.counts and not self.interrupted

    @property
    def has_figures(self) -> bool:
        return self.counts and self.measured_s > 0


class LessonBlock(Block):
    """Of streaming-replication: the commits of one level of synchronous_commit. What was seen stands in the events."""

    workload: str
    arm: Level
    round: int
    from_ns: int
    warm_until_ns: int
    to_ns: int
    nodes: list[str]

    @property
    def measured_ns(self) -> tuple[int, int]:
        return self.warm_until_ns, self.to_ns

    @property
    def cell(self) -> str:
        return self.arm


class WriteFigures(Record):
    """What writers saw of the node that served first, in quorum-commit without the warm-up, else before the fault."""

    transactions: dict[str, int]  # outcome -> how many; of the whole load
    rate_per_s: float  # acknowledged rows
    commit_p50_ms: float | None  # from sending a transaction to its acknowledgement; None if there was none
    commit_p99_ms: float | None


class Outage(WriteFigures):
    """How long no write was acknowledged, as the writers saw it. Times are ns since the run's epoch."""

    last_before_ns: int | None  # the last acknowledgement by the node that served first
    first_after_ns: int | None  # the first one by any other
    rto_ms: float | None  # their distance; None if there was none


class Replicated(Record):
    """What the commits of a block waited for."""

    mode: ReplicationMode
    level: Level  # synchronous_commit

    @property
    def replication(self) -> Replication:
        return Replication.parse(self.mode, self.level)


class CostBlock(Block, Replicated, WriteFigures):
    """Of quorum-commit: writers under one mode and level."""

    round: int
    sync_states: dict[str, str]  # replica -> sync_state, as the primary had it before the load
    from_ns: int
    warm_until_ns: int | None = None  # None in runs that did not note it
    to_ns: int

    @property
    def measured_ns(self) -> tuple[int, int]:
        return self.from_ns if self.warm_until_ns is None else self.warm_until_ns, self.to_ns

    @property
    def cell(self) -> str:
        return f"{self.mode}/{self.level}"


class Standing(Record):
    """One survivor in the table that a failover decides by. LSNs are integers, None where it has none."""

    node: str
    answers: bool
    received: int | None
    replayed: int | None
    behind_best_bytes: int | None
    behind_primary_bytes: int | None  # behind the last answer of the lost primary
    timeline: int | None
    replay_paused: bool
    priority: int
    chosen_by: str  # the managers whose rule would promote it, with commas


class RowCounts(Record):
    """Rows of every class, see labkit.checkers.audit."""

    kept: int
    lost: int
    recovered: int
    gone: int
    contradicted: int
    refused: int
    duplicated: int
    unexpected: int

    @property
    def wrong(self) -> int:
        """Rows that are there and should not be, or more than once."""
        return self.contradicted + self.duplicated + self.unexpected


class TrialBlock(Block, Replicated, Outage):
    """One lost primary, of failover or durability-matrix. Times are ns since the run's epoch."""

    fault: str
    seed: int
    old: str  # the primary that was lost
    new: str  # the one that was promoted
    decision: list[Standing]
    choices: dict[str, str | None]  # manager -> whom its rule would promote, None if it would refuse
    overridden: list[str]  # reasons to refuse that accept_data_loss overrode
    times: dict[str, int]  # <step>_ns -> when it ended
    fault_ns: int
    promoted_ns: int
    from_ns: int  # the writers began
    to_ns: int  # the writers ended
    cut_off: int  # transactions without an outcome, because their generator was killed
    sqlstates: dict[str, int]
    problems: dict[str, str]
    read_ns: int  # when the rows were read back
    views: list[View]  # which were read back
    verdict: Verdict
    reason: str
    counts: RowCounts
    other_lost: int | None = None  # rows lost had the other replica been promoted
    ghosts: int | None = None  # rows that only the old primary had, if it was looked at
    rejoined: str | None = None  # how the old primary came back: pg_rewind or pg_basebackup
    back_ns: int | None = None  # when it had
    took_s: float | None = None  # the whole trial, from its new cluster to its verdict

    @property
    def measured_ns(self) -> tuple[int, int]:
        """Until the fault: what killed processes had used cannot be known afterwards."""
        return self.from_ns, self.fault_ns

    @property
    def cell(self) -> str:
        return f"{self.mode}/{self.level} {self.fault}"


class Attempt(Record):
    """What came of one pg_promote()."""

    preflight: list[str] = []  # what it warned of
    promoted: bool = False
    survived: bool = False  # the server ran afterwards
    client: str = ""  # what psql shows
    log: list[str] = []  # what the server wrote


Cause = Literal["deleted", "mounted", "immutable", "sticky", "unwritable", "foreign"]
"""What was done to standby.signal, or to the folder that it is in."""


class AttemptBlock(Block, Attempt):
    """Of promotion-crash: one pg_promote() with a standby.signal that was tampered with, if that could be tried."""

    cause: Cause
    tried: bool
    reason: str | None = None  # why it was not tried
    repaired: str | None = None  # the role after the repair, if it was not promoted at once

    @model_validator(mode="after")
    def _whole(self) -> Self:
        missing = Attempt.model_fields.keys() - self.model_fields_set
        if self.tried and missing:
            raise ValueError(f"it was tried, but {', '.join(sorted(missing))} is missing")
        if not self.tried and self.reason is None:
            raise ValueError("it was not tried, but reason is missing")
        return self

    @property
    def cell(self) -> str:
        return self.cause

    @property
    def crashed(self) -> bool:
        return self.tried and not self.promoted and not self.survived


BLOCKS: dict[str, type[Block]] = {
    "read-scaling": LoadBlock,
    "cpu-budget": LoadBlock,
    "max-throughput": LoadBlock,
    "concurrency-sweep": LoadBlock,
    "measuring-honestly": LoadBlock,
    "streaming-replication": LessonBlock,
    "quorum-commit": CostBlock,
    "failover": TrialBlock,
    "durability-matrix": TrialBlock,
    "promotion-crash": AttemptBlock,
}
"""Experiment -> the type of its blocks. Blocks of any other have a number, and keep what else they hold."""
