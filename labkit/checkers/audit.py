"""Was anything lost? Set arithmetic on the keys that were written and those that were read back. Pure.

Every row of the ledger falls into one class, by how its transaction ended for the writer and whether it is there:

    acknowledged, there       kept
    acknowledged, not there   LOST
    unknown, there            recovered: the connection died before the answer, the commit had succeeded
    unknown, not there        gone; it was not acknowledged
    failed, there             CONTRADICTED: the server had refused it
    failed, not there         refused

An acknowledgement that came with the server's warning "canceling wait for synchronous replication" is unknown, not
acknowledged. Besides: DUPLICATED rows are there more than once, UNEXPECTED ones were never attempted.

A verdict is `true` (the audit passed), `false` (it failed), or `unknown`: nothing was read back, the rows were read
before the last of them was acknowledged, nothing was ever acknowledged, or the ledger itself is wrong: it holds a key
twice, and writers never use one twice. Nothing read back is never "0 lost".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from labkit.replication import Replication
from labkit.run import ledger
from labkit.run.layout import View
from labkit.run.schema import LAB_KILLED, TrialBlock, Verdict
from labkit.run.store import Run
from labkit.units import count

Keys = np.ndarray[Any, np.dtype[np.int64]]
WRONG = ("lost", "contradicted", "duplicated", "unexpected")


@dataclass(frozen=True)
class Audit:
    """The classes, as sorted arrays of keys, and the verdict with its reason."""

    verdict: Verdict
    reason: str
    kept: Keys
    lost: Keys
    recovered: Keys
    gone: Keys
    contradicted: Keys
    refused: Keys
    duplicated: Keys
    unexpected: Keys
    was_read: bool = True
    """Without that the class of a row is unknown: all of them are empty."""

    @property
    def counts(self) -> dict[str, int | None]:
        """Class -> rows; None where nothing was read back."""
        return {name: len(getattr(self, name)) if self.was_read else None for name in CLASSES}

    @property
    def acknowledged(self) -> int | None:
        """Rows; None where nothing was read back, as of every class."""
        return len(self.kept) + len(self.lost) if self.was_read else None


CLASSES = ("kept", "lost", "recovered", "gone", "contradicted", "refused", "duplicated", "unexpected")


def judge(writes: pd.DataFrame, present: Keys | None, read_ns: int | None = None) -> Audit:
    """Judge a ledger (key, rows, outcome, done_ns) against the keys that were read back, None if none could be.

    `read_ns` is when they were read, on the ledger's clock; a row acknowledged later makes the verdict unknown.
    """
    ok = writes["outcome"] == "ok"
    acknowledged = keys_of(writes[ok])
    failed = keys_of(writes[writes["outcome"] == "fail"])
    unknown = keys_of(writes[~ok & (writes["outcome"] != "fail")])
    there, copies = np.unique(present if present is not None else _none(), return_counts=True)
    attempted, entries = np.unique(_spread(writes), return_counts=True)
    classes: dict[str, Any] = {
        "kept": np.intersect1d(acknowledged, there),
        "lost": np.setdiff1d(acknowledged, there),
        "recovered": np.intersect1d(unknown, there),
        "gone": np.setdiff1d(unknown, there),
        "contradicted": np.intersect1d(failed, there),
        "refused": np.setdiff1d(failed, there),
        "duplicated": there[copies > 1],
        "unexpected": np.setdiff1d(there, attempted),
    }
    late = int((writes.loc[ok, "done_ns"] > read_ns).sum()) if read_ns is not None else 0
    if present is None:
        return unread(f"nothing was read back, of {count(int(writes.loc[ok, 'rows'].sum()), 'acknowledged row')}")
    if len(twice := attempted[entries > 1]):
        held = count(len(twice), "key")
        return Audit("unknown", f"the ledger is wrong: it holds {held} more than once, as {twice[0]}", **classes)
    if late:
        return Audit(
            "unknown", f"{count(late, 'row was', 'rows were')} acknowledged after the rows were read back", **classes
        )
    if wrong := [f"{len(classes[name]):,} {name}" for name in WRONG if len(classes[name])]:
        return Audit("false", ", ".join(wrong), **classes)
    if not len(acknowledged):
        return Audit("unknown", "no row was acknowledged, so none could be lost", **classes)
    reason = "the one acknowledged row is there"
    if len(acknowledged) > 1:
        reason = f"all {count(len(acknowledged), 'acknowledged row')} are there"
    return Audit("true", reason, **classes)


def unread(reason: str) -> Audit:
    """The audit of rows that were not looked up, and why."""
    nothing: dict[str, Any] = dict.fromkeys(CLASSES, _none())
    return Audit("unknown", reason, **nothing, was_read=False)


def of_run(run: Run, block: int | None = None) -> Audit:
    """Judge again what the new primary of a recorded run had, or of one block of it.

    Raises RunUnreadable if it holds no ledger, RunDamaged if that or what was read back is not what was recorded.
    """
    trials, writes = _trials(run, block), ledger.written(run, block)
    present = present_keys(run, "promoted", block)
    if present is None and any("promoted" in trial.views for trial in trials):
        return unread("the rows that were read back are not kept")
    return judge(writes, present, min((trial.read_ns for trial in trials), default=None))


def _trials(run: Run, block: int | None) -> list[TrialBlock]:
    return [b for b in run.blocks if isinstance(b, TrialBlock) and block in (None, b.block)]


def left_open(run: Run) -> int:
    """Transactions whose outcome was not noted: the lab was killed while they were under way."""
    writes = ledger.written(run)
    return int((writes["sqlstate"] == LAB_KILLED).sum())


def present_keys(run: Run, view: View, block: int | None = None) -> Keys | None:
    """The keys that were read back in a view; None if they were not read."""
    if not run.has("survivors", block, view):
        return None
    survivors = run.table("survivors", ["view", "key"], block, view)
    mine = survivors[survivors["view"] == view]
    # An empty table that was read has no rows either: run.json says that it was read.
    was_read = any(view in trial.views for trial in _trials(run, block))
    return mine["key"].to_numpy(dtype=np.int64) if was_read or len(mine) else None


def lost_rows(run: Run, found: Audit, block: int | None = None) -> pd.DataFrame:
    """One row per lost key: key, node, intent_ms and acknowledged_ms since the run began, and where the dead primary's
    own rows were read: xid, commit_lsn, commit_utc."""
    writes = ledger.written(run, block)
    writes = writes[writes["outcome"] == "ok"]
    keys = _spread(writes)
    rows = pd.DataFrame(
        {
            "key": keys,
            "node": np.repeat(writes["node"].astype(str).to_numpy(), writes["rows"]),
            "intent_ms": np.repeat(writes["intent_ns"].to_numpy() / 1e6, writes["rows"]),
            "acknowledged_ms": np.repeat(writes["done_ns"].to_numpy() / 1e6, writes["rows"]),
        }
    )
    lost = rows[rows["key"].isin(found.lost)].drop_duplicates("key")
    if run.has("ghosts", block):
        ghosts = run.table("ghosts", block=block)
        lost = lost.merge(ghosts.drop(columns="block"), on="key", how="left")
    return lost.sort_values("key", ignore_index=True)


def allowed(judged: Audit, replication: Replication) -> bool:
    """Whether all that is wrong is lost rows, and the replication did not promise them: a finding, no failure."""
    wrong = [name for name in WRONG if len(getattr(judged, name))]
    return judged.verdict == "false" and wrong == ["lost"] and not replication.promises


def keys_of(writes: pd.DataFrame) -> Keys:
    """The keys of a ledger's transactions, ascending, each once."""
    return np.unique(_spread(writes))


def _spread(writes: pd.DataFrame) -> Keys:
    """Every key of every transaction: the first key and those that follow it."""
    first, rows = writes["key"].to_numpy(dtype=np.int64), writes["rows"].to_numpy(dtype=np.int64)
    if not len(first):
        return _none()
    offsets = np.arange(int(rows.sum())) - np.repeat(np.cumsum(rows) - rows, rows)
    spread: Keys = np.repeat(first, rows) + offsets
    return spread


def _none() -> Keys:
    return np.empty(0, dtype=np.int64)
