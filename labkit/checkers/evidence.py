"""Is all of a run there, and as it was recorded? Pure, apart from reading the run."""

from __future__ import annotations

from collections import Counter

from labkit.errors import RunUnreadable
from labkit.run import layout
from labkit.run.schema import Block, LoadBlock
from labkit.run.store import Run
from labkit.units import count, number

_MOST_NAMED = 4


def problems(run: Run) -> list[str]:
    """What is missing of a run or damaged in it, one part of a sentence each; empty if it is whole."""
    found = []
    if run.state == "running":
        found.append("the run is still under way")
    elif run.state != "complete":
        found.append("; ".join([f"the run did not come to its end: {why_no_end(run)}", *_cut_short(run)]))
    missing = Counter(run.record.planned or {}) - Counter(block.cell for block in run.blocks if block.has_figures)
    if missing:
        found.append(_what_is_missing(run, missing))
    elif found and run.record.planned is None:
        found[0] += f"; it has {count(sum(_finished(block) for block in run.blocks), 'finished block')}"
    if run.state != "running" and (open_ended := run.tables.unfinished()):
        names = ", ".join(part.relative_to(run.path).as_posix() for part in open_ended)
        found.append(f"what was written of a block that did not end is not noted, and is not read: {names}")
    damaged = [error.reason for error in run.damaged()]
    if run.events_are_torn and not any(layout.EVENTS in reason for reason in damaged):
        found.append("events.jsonl ends in the middle of a line: its last event is lost")
    return found + damaged


def nothing_finished(run: Run) -> RunUnreadable | None:
    """Not raised: that a run holds no block with figures, so that there is nothing to draw. None if it does."""
    if any(block.has_figures for block in run.blocks):
        return None
    reason = "it is running" if run.state == "running" else why_no_end(run)
    return RunUnreadable(f"{run.id} holds no finished block ({reason}); there is nothing to report")


def why_no_end(run: Run) -> str:
    """Why a run is not complete, and not running."""
    if run.state == "cut off":
        return "the process that drove it was killed"
    return run.problem or "no reason was recorded"


def carries_none(run: Run) -> bool:
    """Whether it was recorded before parts had digests: then nobody can say whether they are what was recorded."""
    return run.record.digests is None


def _finished(block: Block) -> bool:
    """Whether it came to its end, be it a part of the figures or not."""
    return not (isinstance(block, LoadBlock) and block.interrupted)


def _cut_short(run: Run) -> list[str]:
    """Blocks that did not come to their end and have figures all the same."""
    short = [block for block in run.blocks if isinstance(block, LoadBlock) and block.has_figures and block.interrupted]
    return [
        f"a block of {block.cell} was cut short after {number(block.measured_s)} s, and its figures are of these"
        for block in short
    ]


def _what_is_missing(run: Run, missing: Counter[str]) -> str:
    planned = run.record.planned or {}
    named = [f"{cell} ({n} of {planned[cell]})" if planned[cell] > 1 else cell for cell, n in missing.items()]
    more = [f"{len(named) - _MOST_NAMED} more"] if len(named) > _MOST_NAMED else []
    blocks = count(sum(planned.values()), "planned block")
    verb = "is" if missing.total() == 1 else "are"
    return f"{missing.total()} of {blocks} {verb} missing: {'; '.join([*named[:_MOST_NAMED], *more])}"
