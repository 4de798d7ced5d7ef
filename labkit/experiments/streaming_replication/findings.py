"""What a run of streaming-replication says: frames, tables, figures and conclusions."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit.analysis import frames
from labkit.analysis.frames.rows import each
from labkit.analysis.words import UNKNOWN, Sentences, Words, not_valid, number
from labkit.checkers import evidence
from labkit.errors import RunDamaged, RunUnreadable
from labkit.percentiles import percentile, percentiles
from labkit.run.schema import Event
from labkit.run.schema.events import (
    Broken,
    Commits,
    Conflict,
    FollowerSeen,
    NodeSeen,
    Rebuilt,
    SlotSeen,
    SlotStep,
    Visibility,
)
from labkit.run.store import Run
from labkit.units import MIB

_HUNDRED = 100
_UNKNOWN = (
    "What a commit costs at each level, and how many rows a client that reads its own write finds at once: unknown."
)
E = TypeVar("E", bound=Event)
_STATUS = {
    "reserved": "within max_wal_size",
    "extended": "beyond max_wal_size, still kept",
    "unreserved": "may go at the next checkpoint",
    "lost": "gone: the replica must be rebuilt",
}


def noted(run: Run, kind: type[E]) -> list[E]:
    """The events of one kind, in order. Raises RunUnreadable if there are none, RunDamaged if there must have been."""
    found, name = run.events_of(kind), kind.model_fields["kind"].default
    if not found and run.status == "complete":
        raise RunDamaged(f"{run.id} is complete, and its events.jsonl holds nothing of {name!r}: events are missing")
    if not found:
        raise RunUnreadable(f"{run.id} was cut off before it noted anything of {name!r}")
    return found


def differences(run: Run) -> pd.DataFrame:
    """One row per level of synchronous_commit and replica: for how long after its commit a row was missed there.

    level, node: str. synchronous: bool, whether commits may wait for this replica. commits: int. visible_share: float,
    rows that no read missed that was sent after the client knew of the commit: a client that reads its own write found
    them at once. p50_ms, p95_ms, p99_ms, max_ms: float, over all rows, the time from that moment to the last read that
    was sent and missed the row; 0 if none did. resolution_ms: float, between two reads: a row may have been missed for
    so much longer. answered_p50_ms: float, to the first answer that had the row, its way and the pause before it
    included: no row was there later.
    """
    synchronous = {commits.level: commits.synchronous for commits in noted(run, Commits)}
    rows = []
    for seen in noted(run, Visibility):
        missed = missed_for_ms(seen)
        p50, p95, p99, slowest = percentiles(missed, 50, 95, 99, 100).tolist()
        rows.append(
            {"level": seen.level, "node": seen.node, "synchronous": synchronous[seen.level] == seen.node}
            | {"commits": len(missed), "visible_share": float((missed == 0).mean())}
            | {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": slowest}
            | {"resolution_ms": seen.resolution_ms, "answered_p50_ms": percentile(seen.stale_ms, 50)}
        )
    return pd.DataFrame(rows)


def missed_for_ms(seen: Visibility) -> npt.NDArray[np.float64]:
    """How long after its commit each row was still missed by a read; 0 where every read sent after it found the row.

    Not `stale_ms`, the first answer that had the row: every read takes its time and comes a while after the one before,
    so the first answer comes after the commit also where no read can miss the row.
    """
    return np.asarray(seen.missed_ms, dtype=np.float64).clip(0)


def headline(run: Run) -> pd.DataFrame:
    """One row per level: what a commit costs. workload: `commit`. arm: the level. requests_per_s, p50_ms, p99_ms."""
    rows = []
    for commits in noted(run, Commits):
        count = len(commits.latency_ms)
        p50, p99 = percentiles(commits.latency_ms, 50, 99).tolist()
        rows.append(
            {"workload": "commit", "arm": commits.level, "requests": count}
            | {"requests_per_s": count / commits.seconds, "p50_ms": p50, "p99_ms": p99, "errors": 0}
        )
    return pd.DataFrame(rows)


def table(run: Run) -> pd.DataFrame:
    """`differences` to read, beside what the commit itself took."""
    cost = {row.arm: row.p50_ms for row in each(headline(run))}
    rows = {
        (row.level, f"{row.node}{' (synchronous)' if row.synchronous else ''}"): {
            "commit, p50 ms": number(cost[row.level]),
            "own write found at once": _at_once(row),
            "still missed after, p50 ms": number(row.p50_ms),
            "p95 ms": number(row.p95_ms),
            "p99 ms": number(row.p99_ms),
            "max ms": number(row.max_ms),
            "a read every, ms": number(row.resolution_ms),
        }
        for row in each(differences(run))
    }
    found = pd.DataFrame.from_dict(rows, orient="index")
    found.index = pd.MultiIndex.from_tuples(found.index)
    return found


def topology(run: Run, when: str = "before") -> pd.DataFrame:
    """Roles and positions, and what the primary says of each replica. when: `before` or `after` the lesson."""
    rows: dict[str, dict[str, object]] = {}
    for node in noted(run, NodeSeen):
        if node.when == when:
            rows[node.node] = {"role": node.role, "position": node.position}
    for other in noted(run, FollowerSeen):
        if other.when == when and other.application_name in rows:
            rows[other.application_name] |= {"state": other.state, "sync_state": other.sync_state}
    for slot in noted(run, SlotSeen):
        if slot.when == when and slot.slot in rows:
            rows[slot.slot] |= {"slot active": slot.active, "slot wal_status": slot.wal_status}
    columns = ["role", "position", "state", "sync_state", "slot active", "slot wal_status"]
    found = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=object)
    return Words(found.rename_axis("node").fillna(UNKNOWN))


def slot_steps(run: Run) -> pd.DataFrame:
    """What the slot of a replica that is down keeps, step by step."""
    rows = [
        {
            "kept by the slot, MiB": _mib(step.retained_bytes),
            "left until it is lost, MiB": _mib(step.safe_wal_bytes),
            "wal_status": step.wal_status,
            "meaning": _STATUS.get(step.wal_status or "", ""),
        }
        for step in noted(run, SlotStep)
    ]
    return Words(rows)


def _mib(size_bytes: int | None) -> str:
    return UNKNOWN if size_bytes is None else number(size_bytes / MIB)


def broken(run: Run) -> pd.DataFrame:
    """What the replica without its slot wrote, and how long rebuilding it took."""
    said, rebuilt = noted(run, Broken)[0], noted(run, Rebuilt)[0]
    facts = {"node": said.node, "its log": said.line.strip(), "role meanwhile": said.role}
    return Words({"": facts | {"rebuilt in": f"{number(rebuilt.seconds)} s"}})


def conflict(run: Run) -> pd.DataFrame:
    """The read that replay cancelled."""
    cancelled = noted(run, Conflict)[0]
    said = {name: getattr(cancelled, name) for name in ("node", "sqlstate", "message", "detail")}
    settings = {name: getattr(cancelled, name) for name in ("hot_standby_feedback", "max_standby_streaming_delay")}
    return Words({"": said | {"after": f"{number(cancelled.after_s)} s"} | settings})


def verdicts(run: Run) -> Sentences:
    """What the lesson showed, computed from the run."""
    if disturbed := frames.disturbances(run):
        return Sentences([*disturbed, _UNKNOWN, *_conflict_and_slot(run), *not_valid(validity(run))])
    found = Sentences()
    cost = {row.arm: row.p50_ms for row in each(headline(run))}
    for row in each(differences(run)):
        kind = "synchronous" if row.synchronous else "asynchronous"
        found.append(
            f"synchronous_commit = {row.level} ({number(cost[row.level])} ms a commit), on {row.node} ({kind}): "
            f"reading its own write, a client would have found {_at_once(row)} rows at once; {_missed(row)}."
        )
    return Sentences([*found, *_conflict_and_slot(run), *not_valid(validity(run))])


def _at_once(row: Any) -> str:
    """How many of its own writes a client found: counted, as a share would round 1,999 of 2,000 to all of them."""
    return f"{round(row.visible_share * row.commits):,} of {row.commits:,}"


def _missed(row: Any) -> str:
    """How long reads missed rows, in words; of fewer than a hundred rows the longest, in place of one in a hundred."""
    if not row.max_ms:
        return "no read that was sent after a commit missed its row"
    longest = f"the row that was missed longest was missed for {number(row.max_ms)} ms"
    tail = f"one row in a hundred was missed for {number(row.p99_ms)} ms or longer"
    last = tail if row.p99_ms and row.commits >= _HUNDRED else longest
    return f"half of all rows were missed for {number(row.p50_ms)} ms or longer, {last}" if row.p50_ms else last


def _conflict_and_slot(run: Run) -> list[str]:
    found = []
    cancelled = noted(run, Conflict)[0]
    found.append(
        f"A read on {cancelled.node} was cancelled {number(cancelled.after_s)} s after the rows it might need were "
        f"deleted and vacuumed (SQLSTATE {cancelled.sqlstate})."
    )
    steps, rebuilt = noted(run, SlotStep), noted(run, Rebuilt)[0]
    most = max((step.retained_bytes for step in steps if step.retained_bytes is not None), default=None)
    found.append(
        f"The slot of {rebuilt.node} kept {_mib(most)} MiB of WAL while it was down and then was "
        f"{steps[-1].wal_status}; rebuilding the replica took {number(rebuilt.seconds)} s."
    )
    return found


def validity(run: Run) -> list[str]:
    """What makes the run worthless: that it did not come to its end, or a slot that was never lost."""
    if found := evidence.problems(run):
        return found
    last = noted(run, SlotStep)[-1].wal_status
    return [] if last == "lost" else [f"the slot was never lost, its status stayed {last}"]


def lead(run: Run) -> Sentences:
    """Own writes where fewest and where most of them are found, the read that was cancelled, and the lost slot."""
    if disturbed := frames.disturbances(run):
        return Sentences([*disturbed, _UNKNOWN, *_conflict_and_slot(run)])
    rows = sorted(each(differences(run)), key=lambda row: (row.visible_share, row.synchronous))
    fewest, most = (f"{_at_once(row)} (synchronous_commit = {row.level}, on {row.node})" for row in (rows[0], rows[-1]))
    found = f"A client that reads its own write on a replica found at once from {fewest} to {most} rows."
    return Sentences([found, *_conflict_and_slot(run)])
