"""The steps of a failover, and of a trial around one: what each is called, what it needs, what it shows.

One table for everyone who deals with steps. The lab takes them and records what they did; findings, figures and the
command line read that. The two sides do not see each other, so the table stands where they meet. A new step is one
entry here, at its place in FAILOVER or TRIAL, and the method of that name that takes it, of FailoverSteps or of
TrialSteps. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.lsn import lsn_text
from labkit.replication import ASYNC, Replication
from labkit.run.schema import VERDICT_WORDS, Event, events
from labkit.units import count

Text = str | Callable[[Any], str]
"""A format of what an event carries, or a function of the event, which has the type that its moment names."""


@dataclass(frozen=True)
class Moment:
    """One thing that a step notes.

    Attributes:
        kind: of the event that a run records of it.
        says: what the event says; a line for each of several things.
        label: how it stands among the times of a failover; empty where it does not.
        mark: its name in the figure of the outage; empty where it is not marked.
        fact: the entry of the trial's facts that says when it was, for what only the ledger shows; it has no event.
        event: the type of that event.
    """

    kind: str
    says: Text = ""
    label: Text = ""
    mark: str = ""
    fact: str = ""
    event: type[Event] = Event


@dataclass(frozen=True)
class Step:
    """One step. One of a failover records an event of its own name when it ends, and any step its `failed` if it fails.

    Attributes:
        name: of the method that takes it, and of the drill's verb.
        does: what it does, as a sentence that asks for it.
        moments: what it notes, in order.
        needs: the steps that a failover must have taken before it.
    """

    name: str
    does: str
    moments: tuple[Moment, ...]
    needs: tuple[Step, ...] = ()

    @property
    def failed(self) -> str:
        """The kind of event that is recorded when it could not be taken."""
        return f"{self.name}_failed"

    def missing(self, taken: Container[str]) -> list[str]:
        """The names of the steps that it needs and that are not among those `taken`."""
        return [step.name for step in self.needs if step.name not in taken]

    def __str__(self) -> str:
        return self.name


def said(event: Event) -> str:
    """What an event of a failover or a trial says; a line for each of several things."""
    if isinstance(event, events.StepFailed):
        return f"failed: {event.problem.splitlines()[0]}"
    (moment,) = (moment for moment in moments() if moment.kind == event.kind)
    return _text(moment.says, event)


def label(moment: Moment, event: Event) -> str:
    """How a moment stands among the times of a failover, as its event has it; empty where it does not."""
    return _text(moment.label, event)


def at_ns(event: Event) -> int:
    """When it was, on the run's clock: when it was recorded, unless it says itself."""
    return event.at_ns if isinstance(event, events.Fault) else event.t_ns


def _text(text: Text, event: Event) -> str:
    return text.format_map(event.model_dump()) if isinstance(text, str) else text(event)


# --- what events say ----------------------------------------------------------------------------------------------


def _synchronous(event: events.Synchronous) -> str:
    states = ", ".join(f"{node} {state}" for node, state in event.states.items())
    who = "no replica" if event.mode == ASYNC else event.mode
    return f"commits wait for {who}, synchronous_commit = {event.level}: {states}"


def _writing(event: events.Writing) -> str:
    return f"{count(event.writers, 'writer appends rows', 'writers append rows')} on {event.node}"


def _rows_read(event: events.ReadBack) -> str:
    return f"{count(event.rows, 'row')} read back from {event.node}"


def _ghosts(event: events.GhostsFound) -> str:
    return f"{event.node} alone has {count(event.rows, 'row')}, of {count(event.transactions, 'transaction')}"


def _held_back(event: events.HeldBack) -> str:
    return f"{', '.join(event.nodes)} held back: nothing more is received there"


def _detected(event: events.Detected) -> str:
    """The reason is how the open connection ended, then why a new one failed, in libpq's words and lines."""
    first, _, second = event.reason.partition("; ")
    new = second.splitlines()[0] if second else "not tried"
    known = ["the open connection: " + first.splitlines()[0], f"a new one: {new}"]
    return "\n".join([f"noticed: {event.node} accepts no connections", *known])


def _survey(event: events.Survey) -> str:
    return "\n".join(
        f"{s.name} has received {_lsn(s.received)} and replayed {_lsn(s.replayed)}, timeline {s.timeline}"
        + (", its replay is paused" if s.replay_paused else "")
        if s.answers
        else f"{s.name} does not answer"
        for s in event.survivors
    )


def _decide(event: events.Decide) -> str:
    overridden = [f"overridden: {reason}" for reason in event.refusals]
    others = [f"{manager} {name or 'none'}" for manager, name in event.choices.items()]
    rules = f"; by each rule: {', '.join(others)}" if others else ""
    return "\n".join([f"{event.chosen} is chosen{rules}", *overridden])


def _preflight(event: events.Preflight) -> str:
    if event.primary:
        return f"nothing to look for: {event.primary} is a primary already"
    return "; ".join(event.problems) or "no problem found"


def _preflight_label(event: events.Preflight) -> str:
    return f"preflight: {_preflight(event)}" if event.primary else "preflight: no problem found"


def _fence(event: events.Fence) -> str:
    fenced = f"{event.replica} was fenced before, and runs as a replica" if event.replica else ""
    done = fenced or "the old primary is ended, and its data marked as a replica's"
    return "; ".join(event.unfenced) or done


def _repair(event: events.Repair) -> str:
    changed = ", ".join(f"{name} = '{value}'" for name, value in event.settings.items())
    return changed or f"nothing to repair{_waiting(event.found)}"


def _waiting(settings: Mapping[str, str]) -> str:
    """What commits wait for by these settings; nothing where they are not known."""
    if not settings:
        return ""
    names, level = settings["synchronous_standby_names"], settings["synchronous_commit"]
    waits = Replication.from_setting(names, level).promises
    return f": commits wait for {names}, synchronous_commit = {level}" if waits else ": commits wait for no replica"


def _repair_label(event: events.Repair) -> str:
    return "inherited settings repaired" if event.settings else "inherited settings looked at: nothing to repair"


def _repoint(event: events.Repoint) -> str:
    followers = event.followers
    return f"{', '.join(followers)} streams from the new primary" if followers else "no other replica is left to follow"


def _repoint_label(event: events.Repoint) -> str:
    return "other replicas stream from it" if event.followers else ""


def _written(event: events.Written) -> str:
    return "transactions of the writers: " + ", ".join(f"{n:,} {name}" for name, n in event.outcomes.items() if n)


def _audit(event: events.Audited) -> str:
    return f"audit {VERDICT_WORDS[event.verdict]}: {event.reason}"


def _lsn(lsn: int | None) -> str:
    return "nothing" if lsn is None else lsn_text(lsn)


# --- the table ----------------------------------------------------------------------------------------------------

SYNCHRONOUS = Moment("synchronous", _synchronous, event=events.Synchronous)
WRITING = Moment("writing", _writing, event=events.Writing)
HELD_BACK = Moment("held_back", _held_back, event=events.HeldBack)
FAULT = Moment("fault", "{node} is lost: {fault}", "the primary is lost", "lost", event=events.Fault)
DETECTED = Moment("detected", _detected, "noticed: it accepts no connections", "noticed", event=events.Detected)
PROMOTE_CALLED = Moment(
    "promote_called", "{node} is asked to end its recovery", "promotion asked for", event=events.PromoteCalled
)
FIRST_WRITE = Moment(
    "first_write", label="first row acknowledged by the new primary", mark="first row", fact="first_after_ns"
)
WRITING_AGAIN = Moment("writing_again", "{node} has acknowledged a row", event=events.WritingAgain)
WRITTEN = Moment("written", _written, event=events.Written)
ROWS_READ = Moment("read_back", _rows_read, event=events.ReadBack)
AUDIT = Moment("audit", _audit, event=events.Audited)
GHOSTS = Moment("ghosts", _ghosts, event=events.GhostsFound)
REWIND_FAILED = Moment("rewind_failed", "pg_rewind could not: {reason}", event=events.RewindFailed)
REJOINED = Moment(
    "rejoined", "{node} follows as a replica, by {how}", "old primary back as a replica", event=events.Rejoined
)

WRITE = Step("write", "Have the writers begin, and let `before_s` pass.", (SYNCHRONOUS, WRITING))
LOSE_PRIMARY = Step(
    "lose_primary",
    "Hold replicas back where the fault says so, inject it, and notice that the primary is gone.",
    (HELD_BACK, FAULT, DETECTED),
)
SURVEY = Step(
    "survey",
    "Ask every survivor for its LSNs, once nothing more can arrive there.",
    (Moment("survey", _survey, "LSNs of the survivors read, their WAL receivers stopped", event=events.Survey),),
)
DECIDE = Step(
    "decide",
    "Choose the candidate, or refuse where rows could be lost.",
    (Moment("decide", _decide, "candidate chosen", event=events.Decide),),
    needs=(SURVEY,),
)
PREFLIGHT = Step(
    "preflight",
    "Look for what would make the promotion crash or be refused. Raises Refused if there is anything.",
    (Moment("preflight", _preflight, _preflight_label, event=events.Preflight),),
    needs=(SURVEY, DECIDE),
)
FENCE = Step(
    "fence",
    "See to it that the old primary cannot come back as a second one.",
    (Moment("fence", _fence, "old primary fenced", event=events.Fence),),
    needs=(SURVEY, DECIDE),
)
PROMOTE = Step(
    "promote",
    "Make the candidate a primary.",
    (PROMOTE_CALLED, Moment("promote", "{node} is the primary", "promotion done", "promoted", event=events.Promote)),
    needs=(SURVEY, DECIDE, PREFLIGHT, FENCE),
)
REPAIR = Step(
    "repair",
    "Undo what the new primary has inherited and would hang on.",
    (Moment("repair", _repair, _repair_label, event=events.Repair),),
    needs=(PROMOTE,),
)
ROUTE = Step(
    "route",
    "Send the writers to the new primary. With `hold_writes` it answers them after `repoint`.",
    (
        Moment(
            "route", "the writers are sent to the new primary", "writers sent to the new primary", event=events.Route
        ),
    ),
    needs=(PROMOTE,),
)
REPOINT = Step(
    "repoint",
    "Have the other replicas follow the new primary, and wait for a row that it acknowledges.",
    (FIRST_WRITE, Moment("repoint", _repoint, _repoint_label, "replica follows", event=events.Repoint), WRITING_AGAIN),
    needs=(PROMOTE,),
)
STOP_WRITING = Step("stop_writing", "Let `after_s` pass, and end the writers.", (WRITTEN,))
READ_BACK = Step(
    "read_back",
    "Read the rows of the new primary, and judge every row that was written.",
    (ROWS_READ, AUDIT),
)
REJOIN = Step(
    "rejoin",
    "Read what the old primary alone has, and make it a replica; nothing without the parameter `rejoin`.",
    (GHOSTS, REWIND_FAILED, REJOINED),
)

FAILOVER = (SURVEY, DECIDE, PREFLIGHT, FENCE, PROMOTE, REPAIR, ROUTE, REPOINT)
"""The steps of a failover, in their order."""
TRIAL = (WRITE, LOSE_PRIMARY, *FAILOVER, STOP_WRITING, READ_BACK, REJOIN)
"""The steps of a trial: a failover with what is done before and after it."""


def moments() -> list[Moment]:
    """Everything that the steps of a trial note, in their order."""
    return [moment for step in TRIAL for moment in step.moments]
