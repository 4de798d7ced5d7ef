"""Events: what happened once while a run was driven, a line of events.jsonl each."""

from __future__ import annotations

from labkit.replication import Level
from labkit.run.schema.base import Record, ReplicationMode, Verdict
from labkit.run.schema.blocks import Standing


class Event(Record):
    """Something that happened. Its time is set when it is noted."""

    kind: str
    t_ns: int = 0  # since the run's epoch: when it was noted


# --- sampling -----------------------------------------------------------------------------------------------------


class ProbeFailed(Event):
    """A probe could not read; it is tried again at every tick."""

    kind: str = "probe_failed"
    node: str
    probe: str
    reason: str


class ProbeRecovered(Event):
    """A probe that had failed reads again."""

    kind: str = "probe_recovered"
    node: str
    probe: str


class SamplerFailed(Event):
    """The sampler itself failed: there are no samples after this."""

    kind: str = "sampler_failed"
    reason: str


# --- a failover, and the trial around it --------------------------------------------------------------------------


# labkit.run.steps names their kinds: it says which step notes what.


class OfTrial(Event):
    """An event of a failover. `block` is its trial, where it is one of a run."""

    block: int | None = None


class Synchronous(OfTrial):
    """Commits wait for replicas as the trial asks."""

    mode: ReplicationMode | None = None  # where it is not noted, as the run's parameters have it
    level: Level | None = None  # synchronous_commit
    states: dict[str, str]  # replica -> sync_state


class Writing(OfTrial):
    """The writers have begun, and the first row is acknowledged."""

    node: str
    writers: int


class HeldBack(OfTrial):
    """Replicas receive nothing any more, before the fault."""

    nodes: list[str]


class Fault(OfTrial):
    """The primary is lost."""

    fault: str
    node: str
    at_ns: int  # since the run's epoch: just before


class Detected(OfTrial):
    """The loss is noticed."""

    node: str
    reason: str  # how the open connection ended; and why a new one failed


class StepTaken(OfTrial):
    """A step of the failover has ended."""

    took_ms: float


class Survivor(Record):
    """What a survivor had when it was surveyed. LSNs are integers, None where it has none."""

    name: str
    answers: bool
    received: int | None
    replayed: int | None
    timeline: int | None
    replay_paused: bool
    priority: int
    role: str = "replica"  # as it was taken to be where it was not yet noted


class Survey(StepTaken):
    """What every survivor has."""

    primary_lsn: int | None = None  # the last that is known of the lost primary
    survivors: list[Survivor]
    replication: str  # what commits waited for: <mode>/<level>


class Decide(StepTaken):
    """`chosen` says so where a failover before had promoted it already; there is no table then."""

    chosen: str
    table: list[Standing] = []
    choices: dict[str, str | None] = {}  # manager -> whom its rule would promote
    refusals: list[str] = []  # that accept_data_loss overrode


class Preflight(StepTaken):
    """What would make the promotion crash or be refused."""

    problems: list[str] = []
    primary: str = ""  # the candidate, where it is a primary already: there is nothing to look for


class Fence(StepTaken):
    """The old primary cannot come back as a second one."""

    unfenced: list[str] = []  # why a node is not, where that was overridden
    replica: str = ""  # the old primary, where it runs as a replica already


class PromoteCalled(OfTrial):
    """The candidate is asked to end its recovery."""

    node: str


class Promote(StepTaken):
    """It is the primary."""

    node: str
    left_behind: dict[str, str] = {}  # survivor -> why it cannot follow


class Repair(StepTaken):
    """What the new primary had inherited is undone."""

    settings: dict[str, str | None]  # those that were changed; None: reset
    found: dict[str, str] = {}  # what the server was set to before; empty in older runs, which did not note it


class Route(StepTaken):
    """The writers are sent to the new primary."""


class Repoint(StepTaken):
    """The others follow the new primary."""

    followers: list[str]
    left_behind: dict[str, str] = {}


class StepFailed(OfTrial):
    """A step of a failover was refused or failed; with what was known by then, as the step's own event has it."""

    problem: str
    table: list[Standing] = []


class WritingAgain(OfTrial):
    """The new primary has acknowledged a row."""

    node: str


class Written(OfTrial):
    """The writers have ended."""

    outcomes: dict[str, int]  # outcome -> transactions


class ReadBack(OfTrial):
    """The rows of the new primary are read back."""

    node: str
    rows: int


class Audited(OfTrial):
    """The verdict, and the rows of every class; None where nothing was read back."""

    verdict: Verdict
    reason: str
    kept: int | None
    lost: int | None
    recovered: int | None
    gone: int | None
    contradicted: int | None
    refused: int | None
    duplicated: int | None
    unexpected: int | None


class GhostsFound(OfTrial):
    """What the old primary alone has."""

    node: str
    rows: int
    transactions: int


class RewindFailed(OfTrial):
    """pg_rewind could not; a base backup is taken instead."""

    reason: str


class Rejoined(OfTrial):
    """The old primary follows as a replica."""

    node: str
    how: str


class ClosingFailed(Event):
    """What a drill held could not be taken down."""

    kind: str = "closing_failed"
    reason: str


# --- measuring-honestly -------------------------------------------------------------------------------------------


class Stall(Event):
    """A server stood still."""

    kind: str = "stall"
    node: str
    from_ns: int  # since the run's epoch
    to_ns: int


# --- streaming-replication ----------------------------------------------------------------------------------------


class NodeSeen(Event):
    """A server before or after the lesson."""

    kind: str = "node"
    when: str  # before or after
    node: str
    role: str
    position: str


class FollowerSeen(Event):
    """A row of pg_stat_replication before or after the lesson."""

    kind: str = "replication"
    when: str
    application_name: str
    state: str | None
    sync_state: str | None


class SlotSeen(Event):
    """A replication slot before or after the lesson."""

    kind: str = "slot"
    when: str
    slot: str
    active: bool
    wal_status: str | None


class Position(Event):
    """How far a replica is behind the end of the primary's WAL; None where the primary does not say."""

    kind: str = "position"
    second: float  # since the watching began
    node: str
    wal_bytes: int  # the end of the primary's WAL
    loaded: bool  # while it is being written to
    sent_behind_bytes: int | None = None
    write_behind_bytes: int | None = None
    flush_behind_bytes: int | None = None
    replay_behind_bytes: int | None = None
    write_lag_s: float | None = None
    flush_lag_s: float | None = None
    replay_lag_s: float | None = None


class Commits(Event):
    """The commits of one level, in order."""

    kind: str = "commits"
    level: Level
    synchronous: str  # the replica that they may wait for
    latency_ms: list[float]
    seconds: float  # all of them, with the pauses in between


class Visibility(Event):
    """When the rows of these commits were visible on a replica, in ms after each commit was known to its client."""

    kind: str = "visibility"
    level: Level
    node: str
    stale_ms: list[float]  # the first answer that had the row, its way included: it was there by then
    missed_ms: list[float]  # when the last question was asked whose answer had not: it was not there yet
    resolution_ms: float  # between two questions


class Conflict(Event):
    """A read on a replica that replay cancelled, and the settings under which it was."""

    kind: str = "conflict"
    node: str
    after_s: float
    sqlstate: str | None
    message: str
    detail: str
    hot_standby_feedback: str
    max_standby_streaming_delay: str


class SlotStep(Event):
    """The slot of a replica that is down, while WAL is written."""

    kind: str = "slot_step"
    node: str
    wal_status: str | None  # None: there is no such slot
    safe_wal_bytes: int | None  # that may still be written before it is lost
    retained_bytes: int | None


class Broken(Event):
    """What the replica whose slot was lost writes into its log."""

    kind: str = "broken"
    node: str
    line: str
    role: str


class Rebuilt(Event):
    """It was recreated from the primary."""

    kind: str = "rebuilt"
    node: str
    seconds: float
