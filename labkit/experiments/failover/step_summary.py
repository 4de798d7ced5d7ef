"""What one step of a failover did, read from the run's events: a short table in a notebook, lines in a terminal."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labkit.run import steps
from labkit.run.steps import Event, Step
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
        rows = [f"{x.at_s:,.3f} s  {x.words}" + (f"  ({_number(x.took_ms)} ms)" if x.took_ms else "") for x in self]
        return "\n".join([self.step.name, *(f"  {row}" for row in rows or [self.otherwise])])

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


def step_summary(run: Run, step: Step) -> StepSummary:
    """What a step did in a run; of one that was taken more than once, every time it was."""
    kinds = (*(moment.kind for moment in step.moments), step.failed)
    asked: dict[Any, Any] = {name: run.parameters[name] for name in ("mode", "level")}
    events = run.events()
    noted = [asked | event for event in events[events["kind"].isin(kinds)].to_dict("records")]
    lines = tuple(line for event in noted for line in _lines(event))
    return StepSummary(step, lines, "This step was not taken, or the run holds no note of it.")


def _lines(event: Event) -> list[Line]:
    at_s = steps.at_ns(event) / 1e9
    took_ms = event.get("took_ms")
    if took_ms is not None and math.isnan(took_ms):
        took_ms = None
    first, *more = steps.said(event).splitlines()
    return [Line(at_s, first, took_ms), *(Line(at_s, text) for text in more)]


def _number(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"
