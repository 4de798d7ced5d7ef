"""Which type the events of a kind have: those that steps note by the table of steps, the others by their own name."""

from __future__ import annotations

from typing import Any

from labkit.run import steps
from labkit.run.schema import Event, events

_NAMED = {
    str(each.model_fields["kind"].default): each
    for each in vars(events).values()
    if isinstance(each, type) and issubclass(each, Event) and not each.model_fields["kind"].is_required()
}
"""Kind -> type, of the types that name their kind."""


def known() -> dict[str, type[Event]]:
    """Kind -> the type of its events."""
    noted: dict[str, type[Event]] = {step.failed: events.StepFailed for step in steps.TRIAL}
    return _NAMED | noted | {moment.kind: moment.event for moment in steps.moments() if not moment.fact}


def event_of(kind: str) -> type[Event]:
    """The type of the events of a kind. Those of a kind that is not known keep what they carry."""
    return known().get(kind, Event)


def event(kind: str, **details: Any) -> Event:
    """An event of a kind that is known only when it happens.

    Raises pydantic.ValidationError, and TypeError for a detail that its type does not document.
    """
    of = event_of(kind)
    made = of.model_validate({"kind": kind, **details})
    if made.model_extra and of not in (Event, events.StepFailed):
        raise TypeError(f"an event of kind {kind} has no {', '.join(made.model_extra)}; see {of.__name__}")
    return made
