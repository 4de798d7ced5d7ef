"""Is all of a run there, and as it was recorded? Pure, apart from reading the run."""

from __future__ import annotations

from collections import Counter

from labkit.run.store import Run
from labkit.units import count

_MOST_NAMED = 4


def problems(run: Run) -> list[str]:
    """What is missing of a run or damaged in it, one part of a sentence each; empty if it is whole."""
    found = []
    if run.state == "running":
        found.append("the run is still under way")
    elif run.state != "complete":
        found.append(f"the run did not come to its end: {why_no_end(run)}")
    missing = Counter(run.record.planned or {}) - Counter(block.cell for block in run.blocks if block.is_whole)
    if missing:
        found.append(_what_is_missing(run, missing))
    elif found and run.record.planned is None:
        found[0] += f"; it has {count(len(run.blocks), 'finished block')}"
    if run.events_are_torn:
        found.append("events.jsonl ends in the middle of a line: its last event is lost")
    return found + [error.reason for error in run.tables.damaged()]


def why_no_end(run: Run) -> str:
    """Why a run is not complete, and not running."""
    if run.state == "cut off":
        return "the process that drove it was killed"
    return run.problem or "no reason was recorded"


def carries_none(run: Run) -> bool:
    """Whether it was recorded before parts had digests: then nobody can say whether they are what was recorded."""
    return run.record.digests is None


def _what_is_missing(run: Run, missing: Counter[str]) -> str:
    planned = run.record.planned or {}
    named = [f"{cell} ({n} of {planned[cell]})" if planned[cell] > 1 else cell for cell, n in missing.items()]
    more = [f"{len(named) - _MOST_NAMED} more"] if len(named) > _MOST_NAMED else []
    blocks = count(sum(planned.values()), "planned block")
    verb = "is" if missing.total() == 1 else "are"
    return f"{missing.total()} of {blocks} {verb} missing: {'; '.join([*named[:_MOST_NAMED], *more])}"
