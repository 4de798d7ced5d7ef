"""What a run of `quorum-commit` says: the price of every mode and level, and what waits when replicas stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from labkit.analysis import frames
from labkit.analysis.frames.rows import each
from labkit.analysis.report.sentences import no_interval
from labkit.analysis.statistics import compare, intervals
from labkit.analysis.words import Sentences, Words, count, not_valid, number, span
from labkit.errors import RunUnreadable
from labkit.names import APPEND_ROWS
from labkit.replication import ASYNC, Level
from labkit.run.schema import CostBlock
from labkit.run.store import Run

_SAFETY: dict[Level, tuple[str, str, str, str]] = {
    # synchronous_commit -> what may be lost after each failure; a synchronous replica is promoted, no wait cancelled.
    # Source: PostgreSQL's documentation of synchronous_commit, and its description of recovery.
    "off": ("may lose", "may lose", "may lose", "may lose"),
    "local": ("safe", "may lose", "may lose", "may lose"),
    "remote_write": ("safe", "safe", "safe", "may lose"),
    "on": ("safe", "safe", "safe", "safe"),
    "remote_apply": ("safe", "safe", "safe", "safe"),
}
_FAILURES = (
    "primary crashes and restarts",
    "failover",
    "failover, and the replica's server crashes",
    "failover, and the replica's machine crashes",
)


def rounds(run: Run) -> pd.DataFrame:
    """One row per block: label (mode/level), mode, level, round, commit_p50_ms, commit_p99_ms, rate_per_s.

    Raises RunUnreadable if there is none.
    """
    if not run.blocks:
        raise RunUnreadable(f"{run.id} has no finished block: it was cut off before anything was measured")
    names = ("mode", "level", "round", "commit_p50_ms", "commit_p99_ms", "rate_per_s")
    return pd.DataFrame(
        [
            {"label": f"{b.mode}/{b.level}"} | {name: getattr(b, name) for name in names}
            for b in run.blocks_of(CostBlock)
        ]
    )


def costs(run: Run) -> pd.DataFrame:
    """One row per mode and level: means over rounds with their 95 % intervals (low, high; NaN for fewer than
    three rounds).

    label: str, mode/level.
    commit_p99_ms is the median of the rounds' p99s: one slow moment must not stand for all of them.
    """
    rows = []
    for (label, mode, level), group in rounds(run).groupby(["label", "mode", "level"], sort=False):
        row = {"label": label, "mode": mode, "level": level, "rounds": len(group)}
        row |= {"commit_p99_ms": float(group["commit_p99_ms"].median())}
        for name in ("commit_p50_ms", "rate_per_s"):
            middle, low, high = map(float, intervals.mean(group[name]))
            row |= {name: middle, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def steps(run: Run) -> pd.DataFrame:
    """What each step of safety costs: before, after (labels), ratio of the commits' medians, low, high (95 %).

    From async/off to async/local, from there to each mode's first level, and from level to level: one thing changes in
    each step, as where no replica is waited for the levels that name one mean `local`. Geometric mean over paired
    rounds, with its interval; all NaN for fewer than three rounds. See `labkit.analysis.statistics.intervals`. Of a run
    that was cut off there are the steps that were measured.
    """
    measured = set(rounds(run)["label"])
    taken = [(step.against, step.arm) for step in compare.comparisons(run)]
    return _ratios(run, [(before, after) for before, after in taken if {before, after} <= measured])


def _ratios(run: Run, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    wide, rows = _paired(run), []
    for before, after in pairs:
        ratio, low, high = map(float, intervals.ratio_of_pairs(wide[before], wide[after]))
        rows.append({"before": before, "after": after, "ratio": ratio if low > 0 else np.nan, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["before", "after", "ratio", "low", "high"])


def _paired(run: Run) -> pd.DataFrame:
    """The rounds that measured every mode and level: their median commits, ms, a column for each."""
    return rounds(run).pivot_table(index="round", columns="label", values="commit_p50_ms", sort=False).dropna()


def step_table(run: Run) -> pd.DataFrame:
    """`steps` to read."""
    rows = {
        (row.before, row.after): {
            "a commit takes, times": number(row.ratio),
            "95 % interval": span(row.low, row.high),
            "slower": _slower(row.low, row.high),
        }
        for row in each(steps(run))
    }
    index = pd.MultiIndex.from_tuples(rows, names=["from", "to"])
    return Words(pd.DataFrame(rows.values(), index=index))


_TOLD = ("yes", "cannot be told apart", "no, faster")


def _slower(low: float, high: float) -> str:
    if np.isnan(low):
        return "too few rounds to tell"
    slower, alike, faster = _TOLD
    return slower if low > 1 else faster if high < 1 else alike


def table(run: Run) -> pd.DataFrame:
    """`costs` to read."""
    rows = {
        row.label: {
            "commit p50, ms": number(row.commit_p50_ms),
            "95 % interval": span(row.commit_p50_ms_low, row.commit_p50_ms_high),
            "commit p99, ms (median of rounds)": number(row.commit_p99_ms),
            "rows/s": number(row.rate_per_s),
            "95 % interval ": span(row.rate_per_s_low, row.rate_per_s_high),
            "rounds": str(row.rounds),
        }
        for row in each(costs(run))
    }
    return Words(pd.DataFrame.from_dict(rows, orient="index"))


def stopped(run: Run) -> pd.DataFrame:
    """One row per mode and number of stopped replicas: what the primary's view says, and how a commit fares."""
    rows = []
    for shown in run.record.demonstrations:
        rows.append(
            {
                "mode": shown.mode,
                "stopped": ", ".join(shown.stopped) or "none",
                "sync_state": ", ".join(f"{node} {state}" for node, state in shown.states.items()) or "no replica",
                "a commit": f"{number(shown.commit_ms)} ms"
                if shown.commit_ms is not None
                else f"waits beyond {number(run.parameter('deadline_s', float))} s",
                "row is later on": ", ".join(shown.later_on_replicas) or "no replica",
            }
        )
    return Words(pd.DataFrame(rows).set_index(["mode", "stopped"]))


def cancelled(run: Run) -> pd.DataFrame:
    """What the server says when the wait of a lone primary is cancelled, and where the row is then."""
    rows = [
        {
            "the client sees": shown.cancelled.replace("\n", " ⏎ "),
            "row on the primary": "yes" if shown.on_primary else "no",
        }
        for shown in run.record.demonstrations
        if shown.cancelled is not None
    ]
    return Words(pd.DataFrame(rows, index=[s.mode for s in run.record.demonstrations if s.cancelled is not None]))


def safety() -> pd.DataFrame:
    """What each level of synchronous_commit can lose, by failure; a synchronous replica is promoted."""
    return Words(pd.DataFrame.from_dict(_SAFETY, orient="index", columns=list(_FAILURES)))


def headline(run: Run) -> pd.DataFrame:
    """`costs` with the columns that every experiment's headline has."""
    found = costs(run)
    found.insert(0, "workload", APPEND_ROWS)
    return found.assign(arm=found["label"], requests_per_s=found["rate_per_s"], p99_ms=found["commit_p99_ms"])


def verdicts(run: Run) -> Sentences:
    """What the run shows, in sentences."""
    found = lead(run)
    disturbed = bool(frames.disturbed_blocks(run))
    every = [row for row in each(steps(run)) if not (disturbed or np.isnan(row.low))]  # too few rounds cannot tell
    slower, same, faster = (
        "; ".join(_step(row) for row in every if _slower(row.low, row.high) == told) for told in _TOLD
    )
    if every:
        pairs = count(len(_paired(run)), "paired round")
        found.append(f"Steps shown to cost latency, times (95 % interval), in {pairs}: {slower or 'none'}.")
    if same:
        found.append(f"Steps that cannot be told apart, as their interval holds 1: {same}.")
    if faster:
        found.append(f"Steps shown to save latency: {faster}.")
    for shown in run.record.demonstrations:
        if shown.commit_ms is None:
            found.append(
                f"{shown.mode} with {', '.join(shown.stopped)} stopped: a commit waited beyond the client's "
                f"deadline of {number(run.parameter('deadline_s', float))} s."
            )
    if any(shown.cancelled is not None for shown in run.record.demonstrations):
        found.append(
            "Cancelling that wait does not undo the commit: the server warns and acknowledges a row that is local."
        )
    return Sentences([*found, *not_valid(validity(run))])


def _step(row: Any) -> str:
    return f"{row.before} → {row.after} × {number(row.ratio)} ({span(row.low, row.high)})"


def _latency(row: object) -> float:
    return float(row.commit_p50_ms)  # type: ignore[attr-defined]


def lead(run: Run) -> Sentences:
    """What waiting costs, beside a commit that is on the primary's disk only; unknown where other programs disturbed
    that."""
    if disturbed := frames.disturbances(run):
        return Sentences(
            [*disturbed, "What a commit costs at each level, and what waiting for a replica costs: unknown."]
        )
    every = sorted(each(costs(run)), key=_latency)
    if few := [row for row in every if np.isnan(row.commit_p50_ms_low)]:
        return Sentences([f"What a commit costs at each level: {no_interval(min(row.rounds for row in few))}."])
    took = (
        f"{number(row.commit_p50_ms)} ms ({row.label}; 95 % interval "
        f"{span(row.commit_p50_ms_low, row.commit_p50_ms_high)})"
        for row in (every[0], every[-1])
    )
    rounds_of = count(min(row.rounds for row in every), "round")
    found = Sentences([f"A commit takes from {' to '.join(took)}: means of the medians of {rounds_of}."])
    waiting = [row.label for row in every if row.mode != ASYNC]
    alone = [row.label for row in every if (row.mode, row.level) == (ASYNC, "local")]
    if waiting and alone:
        ends = dict.fromkeys((waiting[0], waiting[-1]))
        found.append(_waiting([*each(_ratios(run, [(alone[0], label) for label in ends]))], len(_paired(run))))
    return found


def _waiting(ratios: Sequence[Any], pairs: int) -> str:
    """What waiting for a replica costs where it costs least and where most, as far as that is shown."""
    if any(np.isnan(row.low) for row in ratios):
        return f"What waiting for a replica costs: {no_interval(pairs)}."
    said = [
        f"{number(row.ratio)} times ({row.after}; 95 % interval {span(row.low, row.high)})"
        + " – which cannot be told apart –" * bool(row.low <= 1 <= row.high)
        for row in ratios
    ]
    return f"Waiting for a replica makes it {' to '.join(said)} as long as on the primary's disk alone (async/local)."


def validity(run: Run) -> list[str]:
    """A block in which a commit was not plainly acknowledged."""
    return [
        f"block {b.block} ({b.mode}/{b.level}): {count(n, 'transaction')} ended as {how}"
        for b in run.blocks_of(CostBlock)
        for how, n in b.transactions.items()
        if how != "ok" and n
    ]
