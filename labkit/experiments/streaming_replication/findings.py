"""What a run of streaming-replication says: frames, tables, figures and conclusions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from labkit.analysis.frames.rows import each
from labkit.analysis.words import UNKNOWN, Sentences, Words, not_valid, number, percent
from labkit.errors import RunUnreadable
from labkit.run.store import Run
from labkit.units import MIB

_STATUS = {
    "reserved": "within max_wal_size",
    "extended": "beyond max_wal_size, still kept",
    "unreserved": "may go at the next checkpoint",
    "lost": "gone: the replica must be made anew",
}


def events(run: Run, kind: str) -> pd.DataFrame:
    """The events of one kind, without columns that only others have. Raises RunUnreadable if there are none."""
    found = run.events()
    mine = found[found["kind"] == kind].dropna(axis="columns", how="all")
    if not len(mine):
        raise RunUnreadable(f"{run.id} was cut off before it noted anything of {kind!r}")
    return mine.reset_index(drop=True)


def differences(run: Run) -> pd.DataFrame:
    """One row per level of synchronous_commit and replica: how long after its commit a row was visible there.

    level, node: str. synchronous: bool, whether commits may wait for this replica. commits: int. p50_ms, p95_ms,
    p99_ms, max_ms: float, from the moment when the client knew of its commit to the first answer of the replica that
    had the row; negative if that came before. visible_share: float, rows that no question asked after that moment
    missed: a client that reads its own write would have found them. resolution_ms: float, between two questions.
    """
    synchronous = dict(events(run, "commits")[["level", "synchronous"]].itertuples(index=False, name=None))
    rows = []
    for seen in each(events(run, "visibility")):
        values = np.asarray(seen.stale_ms, dtype=float)
        p50, p95, p99 = (float(value) for value in np.percentile(values, [50, 95, 99]))
        rows.append(
            {"level": seen.level, "node": seen.node, "synchronous": synchronous[seen.level] == seen.node}
            | {"commits": len(values), "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "max_ms": float(values.max())}
            | {"visible_share": float((np.asarray(seen.missed_ms) <= 0).mean()), "resolution_ms": seen.resolution_ms}
        )
    return pd.DataFrame(rows)


def headline(run: Run) -> pd.DataFrame:
    """One row a level: what a commit costs. workload: `commit`. arm: the level. requests_per_s, p50_ms, p99_ms."""
    rows = []
    for row in each(events(run, "commits")):
        p50, p99 = (float(value) for value in np.percentile(row.latency_ms, [50, 99]))
        rows.append(
            {"workload": "commit", "arm": row.level, "requests": len(row.latency_ms)}
            | {"requests_per_s": len(row.latency_ms) / row.seconds, "p50_ms": p50, "p99_ms": p99, "errors": 0}
        )
    return pd.DataFrame(rows)


def table(run: Run) -> pd.DataFrame:
    """`staleness` to read, beside what the commit itself took."""
    cost = {row.arm: row.p50_ms for row in each(headline(run))}
    rows = {
        (row.level, f"{row.node}{' (synchronous)' if row.synchronous else ''}"): {
            "commit, p50 ms": number(cost[row.level]),
            "visible after, p50 ms": number(row.p50_ms),
            "p95 ms": number(row.p95_ms),
            "p99 ms": number(row.p99_ms),
            "max ms": number(row.max_ms),
            "visible at commit": percent(row.visible_share, signed=False),
        }
        for row in each(differences(run))
    }
    found = pd.DataFrame.from_dict(rows, orient="index")
    found.index = pd.MultiIndex.from_tuples(found.index)
    return found


def topology(run: Run, when: str = "before") -> pd.DataFrame:
    """Roles and positions, and what the primary says of each replica. when: `before` or `after` the lesson."""
    frames = {kind: events(run, kind) for kind in ("node", "replication", "slot")}
    nodes, others, slots = (frame[frame["when"] == when] for frame in frames.values())
    nodes = nodes.set_index("node")[["role", "position"]]
    others = others.set_index("application_name")[["state", "sync_state"]]
    slots = slots.set_index("slot")[["active", "wal_status"]]
    return Words(nodes.join(others).join(slots.add_prefix("slot ")).fillna(UNKNOWN))


def slot_steps(run: Run) -> pd.DataFrame:
    """What the slot of a replica that is down keeps, step by step."""
    steps = events(run, "slot_step")
    rows = [
        {
            "kept by the slot, MiB": number(row.retained_bytes / MIB),
            "left until it is lost, MiB": number(row.safe_wal_bytes / MIB),
            "wal_status": row.wal_status,
            "meaning": _STATUS.get(row.wal_status, ""),
        }
        for row in each(
            steps.assign(**{name: steps.get(name, np.nan) for name in ("retained_bytes", "safe_wal_bytes")})
        )
    ]
    return Words(rows)


def broken(run: Run) -> pd.DataFrame:
    """What the replica without its slot wrote, and how long making it anew took."""
    said, rebuilt = events(run, "broken").iloc[0], events(run, "rebuilt").iloc[0]
    facts = {"node": said["node"], "its log": said["line"].strip(), "role meanwhile": said["role"]}
    return Words({"": facts | {"made anew in": f"{rebuilt['seconds']:.1f} s"}})


def conflict(run: Run) -> pd.DataFrame:
    """The read that replay cancelled."""
    names = ["node", "sqlstate", "message", "detail", "after_s", "hot_standby_feedback", "max_standby_streaming_delay"]
    return Words({"": events(run, "conflict").iloc[0].reindex(names)})


def verdicts(run: Run) -> Sentences:
    """What the lesson showed, computed from the run."""
    found = Sentences()
    cost = {row.arm: row.p50_ms for row in each(headline(run))}
    for row in each(differences(run)):
        kind = "synchronous" if row.synchronous else "asynchronous"
        found.append(
            f"synchronous_commit = {row.level} ({number(cost[row.level])} ms a commit): on {row.node} ({kind}) half of "
            f"the rows were visible {number(row.p50_ms)} ms after the commit, 99 % after {number(row.p99_ms)} ms; "
            f"reading its own write, a client would have found {percent(row.visible_share, signed=False)} at once."
        )
    cancelled = events(run, "conflict").iloc[0]
    found.append(
        f"A read on {cancelled['node']} was cancelled {cancelled['after_s']:.1f} s after the rows it might need were "
        f"deleted and vacuumed (SQLSTATE {cancelled['sqlstate']})."
    )
    steps, rebuilt = events(run, "slot_step"), events(run, "rebuilt").iloc[0]
    most = float(steps["retained_bytes"].max()) / MIB
    found.append(
        f"The slot of {rebuilt['node']} kept {number(most)} MiB of WAL while it was down and then was "
        f"{steps['wal_status'].iloc[-1]}; making the replica anew took {rebuilt['seconds']:.1f} s."
    )
    return Sentences([*found, *not_valid(validity(run))])


def validity(run: Run) -> list[str]:
    """What makes the run worthless: that it did not come to its end, or a slot that was never lost."""
    if run.status == "failed":
        return [f"the run did not come to its end: {run.meta.get('problem') or 'no reason was recorded'}"]
    last = events(run, "slot_step")["wal_status"].iloc[-1]
    return [] if last == "lost" else [f"the slot was never lost, its status stayed {last}"]


lead = verdicts
