"""What one step of a failover did, read from the run's events: a short table in a notebook, lines in a terminal."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labkit.experiments.failover.trial import VERBS
from labkit.lab.cluster.sql import lsn_text
from labkit.run.store import Run

Event = Mapping[Any, Any]
_KINDS = {
    "write": ("synchronous", "writing"),
    "lose_primary": ("held_back", "fault", "detected"),
    "promote": ("promote_called", "promote"),
    "repoint": ("repoint", "writing_again"),
    "stop_writing": ("written",),
    "read_back": ("read_back", "audit"),
    "rejoin": ("ghosts", "rewind_failed", "rejoined"),
}
"""Verb -> the kinds of events that tell of it; a verb that is missing here is told of by events of its own name."""


@dataclass(frozen=True)
class Line:
    """`at_s` since the run began; `took_ms` is None where the step was not timed."""

    at_s: float
    words: str
    took_ms: float | None = None


@dataclass(frozen=True)
class Step:
    """What a verb did; shows itself as a table."""

    verb: str
    lines: tuple[Line, ...]
    otherwise: str = ""
    """What is said where there is no line."""

    def __str__(self) -> str:
        rows = [f"{x.at_s:,.3f} s  {x.words}" + (f"  ({_number(x.took_ms)} ms)" if x.took_ms else "") for x in self]
        return "\n".join([self.verb, *(f"  {row}" for row in rows or [self.otherwise])])

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def _repr_html_(self) -> str:
        if not self.lines:
            return f"<p>{html.escape(self.otherwise)}</p>"
        rows = "".join(
            f"<tr><th>{x.at_s:,.3f}</th><td>{html.escape(x.words)}</td>"
            f"<td>{'' if x.took_ms is None else _number(x.took_ms)}</td></tr>"
            for x in self
        )
        head = "<tr><th>at, s</th><th>what</th><th>took, ms</th></tr>"
        return f'<table class="dataframe words"><thead>{head}</thead><tbody>{rows}</tbody></table>'

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(str(self))


def step(run: Run, verb: str) -> Step:
    """What a verb of VERBS did in a run; of one that was taken more than once, every time it was."""
    assert verb in VERBS
    kinds = (*_KINDS.get(verb, (verb,)), f"{verb}_failed")
    asked: dict[Any, Any] = {name: run.parameters[name] for name in ("mode", "level")}
    events = run.events()
    told = [asked | event for event in events[events["kind"].isin(kinds)].to_dict("records")]
    lines = tuple(line for event in told for line in _lines(event))
    return Step(verb, lines, "This step was not taken, or the run holds no note of it.")


def _lines(event: Event) -> list[Line]:
    at_s = (event["at_ns"] if event["kind"] == "fault" else event["t_ns"]) / 1e9
    took_ms = event.get("took_ms")
    if took_ms is not None and math.isnan(took_ms):
        took_ms = None
    first, *more = words(event).splitlines()
    return [Line(at_s, first, took_ms), *(Line(at_s, text) for text in more)]


def words(event: Event) -> str:
    """What an event of a failover says, its `kind` and its details; a line each for several things."""
    kind = event["kind"]
    if kind.endswith("_failed") and kind not in _WORDS:
        return f"failed: {event['problem'].splitlines()[0]}"
    said = _WORDS[kind]
    return said.format_map(event) if isinstance(said, str) else said(event)


def _synchronous(event: Event) -> str:
    states = ", ".join(f"{node} {state}" for node, state in event["states"].items())
    who = "no replica" if event["mode"] == "async" else event["mode"]
    return f"commits wait for {who}, synchronous_commit = {event['level']}: {states}"


def _detected(event: Event) -> str:
    """The reason is what became of the open connection, then of a new one, in libpq's words and lines."""
    first, _, second = event["reason"].partition("; ")
    new = second.splitlines()[0] if second else "not tried"
    return f"noticed: {event['node']} lets nobody in\nthe open connection: {first.splitlines()[0]}\na new one: {new}"


def _survey(event: Event) -> str:
    return "\n".join(
        f"{s['name']} has received {_lsn(s['received'])} and replayed {_lsn(s['replayed'])}, timeline {s['timeline']}"
        + (", its replay is paused" if s["replay_paused"] else "")
        if s["answers"]
        else f"{s['name']} does not answer"
        for s in event["survivors"]
    )


def _decide(event: Event) -> str:
    overridden = [f"overridden: {reason}" for reason in _listed(event.get("refusals"))]
    others = [f"{manager} {name or 'none'}" for manager, name in _named(event.get("choices")).items()]
    rules = f"; by each rule: {', '.join(others)}" if others else ""
    return "\n".join([f"{event['chosen']} is chosen{rules}", *overridden])


def _listed(value: Any) -> list[str]:
    """What an event carries; events of other kinds leave NaN in its place."""
    return value if isinstance(value, list) else []


def _named(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _repair(event: Event) -> str:
    changed = ", ".join(f"{name} = '{value}'" for name, value in event["settings"].items())
    return changed or "nothing to repair: commits wait for nobody"


def _repoint(event: Event) -> str:
    followers = event["followers"]
    return f"{', '.join(followers)} streams from the new primary" if followers else "no other replica is left to follow"


def _written(event: Event) -> str:
    return "transactions of the writers: " + ", ".join(f"{n:,} {name}" for name, n in event["outcomes"].items() if n)


_WORDS: dict[str, str | Callable[[Event], str]] = {
    "synchronous": _synchronous,
    "writing": "{writers:.0f} writers append rows on {node}",
    "held_back": lambda event: f"{', '.join(event['nodes'])} held back: nothing more is received there",
    "fault": "{node} is lost: {fault}",
    "detected": _detected,
    "survey": _survey,
    "decide": _decide,
    "preflight": lambda event: "; ".join(_listed(event.get("problems"))) or "nothing stands against the promotion",
    "fence": lambda event: (
        "; ".join(_listed(event.get("unfenced"))) or "the old primary is ended, and its data marked as a replica's"
    ),
    "promote_called": "{node} is asked to end its recovery",
    "promote": "{node} is the primary",
    "repair": _repair,
    "route": "the writers are sent to the new primary",
    "repoint": _repoint,
    "writing_again": "{node} has acknowledged a row",
    "written": _written,
    "read_back": "{rows:,.0f} rows read back from {node}",
    "audit": "nothing lost, nothing wrong? {verdict}: {reason}",
    "ghosts": "{node} alone has {rows:,.0f} rows, of {transactions:,.0f} transactions",
    "rewind_failed": "pg_rewind could not: {reason}",
    "rejoined": "{node} follows as a replica, by {how}",
}


def _lsn(lsn: int | None) -> str:
    return "nothing" if lsn is None else lsn_text(lsn)


def _number(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"
