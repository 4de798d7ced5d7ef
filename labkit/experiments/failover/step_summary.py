"""What one step of a failover did, read from the run's events: a short table in a notebook, lines in a terminal."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labkit.analysis.words import number
from labkit.run import steps
from labkit.run.schema import Event
from labkit.run.schema.events import Synchronous
from labkit.run.steps import Step
from labkit.run.store import Run


@dataclass(frozen=True)
class Line:
    """`at_s` since the run began; `took_ms` is None where the step was not timed."""

    at_s: float
    words: str
    took_ms: float | None = None


@dataclass(frozen=True)
class StepSummary:
    """What a step did; shows itself as a table."""

    step: Step
    lines: tuple[Line, ...]
    otherwise: str = ""
    """What is said where there is no line."""

    def __str__(self) -> str:
        rows = [f"{x.at_s:,.3f} s  {x.words}" + (f"  ({number(x.took_ms)} ms)" if x.took_ms else "") for x in self]
        return "\n".join([self.step.name, *(f"  {row}" for row in rows or [self.otherwise])])

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    def _repr_html_(self) -> str:
        if not self.lines:
            return f"<p>{html.escape(self.otherwise)}</p>"
        rows = "".join(
            f"<tr><th>{x.at_s:,.3f}</th><td>{html.escape(x.words)}</td>"
            f"<td>{'' if x.took_ms is None else number(x.took_ms)}</td></tr>"
            for x in self
        )
        head = "<tr><th>at, s</th><th>what</th><th>took, ms</th></tr>"
        return f'<table class="dataframe words"><thead>{head}</thead><tbody>{rows}</tbody></table>'

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(str(self))


def step_summary(run: Run, step: Step) -> StepSummary:
    """What a step did in a run; of one that was taken more than once, every time it was."""
    kinds = (*(moment.kind for moment in step.moments), step.failed)
    lines = tuple(line for event in run.events_of(Event) if event.kind in kinds for line in _lines(_whole(event, run)))
    return StepSummary(step, lines, "This step was not taken, or the run holds no note of it.")


def _whole(event: Event, run: Run) -> Event:
    """The event, with what the run's parameters say where an older labkit did not note it."""
    if isinstance(event, Synchronous) and event.mode is None:
        return event.model_copy(update={name: run.parameter(name, str) for name in ("mode", "level")})
    return event


def _lines(event: Event) -> list[Line]:
    at_s, took_ms = steps.at_ns(event) / 1e9, getattr(event, "took_ms", None)
    first, *more = steps.said(event).splitlines()
    return [Line(at_s, first, took_ms), *(Line(at_s, text) for text in more)]
