"""Events: what happened once while a run was driven, a line of events.jsonl each."""

from __future__ import annotations

from typing import Any

from labkit.run.schema.base import Record, Verdict
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


class OfTrial(Event):
    """An event of a failover. `block` is its trial, where it is one of a run."""

    block: int | None = None


class Synchronous(OfTrial):
    """Commits wait for replicas as the trial asks."""

    kind: str = "synchronous"
    states: dict[str, str]  # replica -> sync_state


class Writing(OfTrial):
    """The writers have begun, and the first row is acknowledged."""

    kind: str = "writing"
    node: str
    writers: int


class HeldBack(OfTrial):
    """Replicas receive nothing any more, before the fault."""

    kind: str = "held_back"
    nodes: list[str]


class Fault(OfTrial):
    """The primary is lost."""

    kind: str = "fault"
    fault: str
    node: str
    at_ns: int  # since the run's epoch: just before


class Detected(OfTrial):
    """The loss is noticed."""

    kind: str = "detected"
    node: str
    reason: str  # what became of the open connection; and of a new one


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
    role: str


class Survey(StepTaken):
    kind: str = "survey"
    primary_lsn: int | None  # the last that is known of the lost primary
    survivors: list[Survivor]
    replication: str  # what commits waited for: <mode>/<level>


class Decide(StepTaken):
    """`chosen` says so where a failover before had promoted it already; there is no table then."""

    kind: str = "decide"
    chosen: str
    table: list[Standing] = []
    choices: dict[str, str | None] = {}  # manager -> whom its rule would promote
    refusals: list[str] = []  # that accept_data_loss overrode


class Preflight(StepTaken):
    kind: str = "preflight"
    problems: list[str] = []


class Fence(StepTaken):
    kind: str = "fence"
    unfenced: list[str] = []  # why a node is not, where that was overridden


class PromoteCalled(OfTrial):
    kind: str = "promote_called"
    node: str


class Promote(StepTaken):
    kind: str = "promote"
    node: str
    left_behind: dict[str, str] = {}  # survivor -> why it cannot follow


class Repair(StepTaken):
    kind: str = "repair"
    settings: dict[str, str | None]  # those that were changed; None: reset


class Route(StepTaken):
    kind: str = "route"


class Repoint(StepTaken):
    kind: str = "repoint"
    followers: list[str]
    left_behind: dict[str, str] = {}


class StepFailed(OfTrial):
    """A step of a failover was refused or failed; with what was known by then, as the step's own event has it."""

    problem: str
    table: list[Standing] = []


class WritingAgain(OfTrial):
    """The new primary has acknowledged a row."""

    kind: str = "writing_again"
    node: str


class Written(OfTrial):
    """The writers have ended."""

    kind: str = "written"
    outcomes: dict[str, int]  # outcome -> transactions


class ReadBack(OfTrial):
    kind: str = "read_back"
    node: str
    rows: int


class Audited(OfTrial):
    """The verdict, and the rows of every class; None where nothing was read back."""

    kind: str = "audit"
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

    kind: str = "ghosts"
    node: str
    rows: int
    transactions: int


class RewindFailed(OfTrial):
    kind: str = "rewind_failed"
    reason: str


class Rejoined(OfTrial):
    """The old primary follows as a replica."""

    kind: str = "rejoined"
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
    level: str
    synchronous: str  # the replica that they may wait for
    latency_ms: list[float]
    seconds: float  # all of them, with the pauses in between


class Visibility(Event):
    """When the rows of these commits were visible on a replica, in ms after each commit was known to its client."""

    kind: str = "visibility"
    level: str
    node: str
    stale_ms: list[float]  # the first answer that had the row
    missed_ms: list[float]  # when the last question was asked whose answer had not
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


def _kinds(base: type[Event]) -> dict[str, type[Event]]:
    found: dict[str, type[Event]] = {}
    for each in base.__subclasses__():
        kind = each.model_fields["kind"]
        found |= {} if kind.is_required() else {str(kind.default): each}
        found |= _kinds(each)
    return found


EVENTS = _kinds(Event)
"""Kind -> its type. A kind that ends in _failed and is not here is a StepFailed; any other keeps what it carries."""


def event_of(kind: str) -> type[Event]:
    """The type of the events of a kind."""
    return EVENTS.get(kind) or (StepFailed if kind.endswith("_failed") else Event)


def event(kind: str, **details: Any) -> Event:
    """An event of a kind that is known only when it happens.

    Raises pydantic.ValidationError, and TypeError for a kind or a detail that is not documented here.
    """
    made = event_of(kind).model_validate({"kind": kind, **details})
    if made.model_extra and not isinstance(made, StepFailed):
        raise TypeError(f"an event of kind {kind} has no {', '.join(made.model_extra)}; give it a type in {__name__}")
    return made
