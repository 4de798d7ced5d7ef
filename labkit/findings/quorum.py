"""What a run of `quorum-commit` says: the price of every mode and level, and what waits when replicas stop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from labkit.findings.conclusions import Sentences
from labkit.findings.tables import Words, number
from labkit.frames.rows import each
from labkit.store import Run

_SAFETY = {
    # synchronous_commit -> what may be lost after each failure; a synchronous replica is promoted, no wait cancelled.
    # Source: PostgreSQL's documentation of synchronous_commit, and its description of recovery.
    "off": ("may lose", "may lose", "may lose", "may lose"),
    "local": ("safe", "may lose", "may lose", "may lose"),
    "remote_write": ("safe", "safe", "safe", "may lose"),
    "on": ("safe", "safe", "safe", "safe"),
    "remote_apply": ("safe, and visible on the replica", "safe", "safe", "safe"),
}
_FAILURES = (
    "primary crashes and restarts",
    "failover",
    "failover, and the replica's server crashes",
    "failover, and the replica's machine crashes",
)


def rounds(run: Run) -> pd.DataFrame:
    """One row a block: label (mode/level), mode, level, round, commit_p50_ms, commit_p99_ms, rate_per_s."""
    names = ("mode", "level", "round", "commit_p50_ms", "commit_p99_ms", "rate_per_s")
    return pd.DataFrame(
        [{"label": f"{b['mode']}/{b['level']}"} | {name: b[name] for name in names} for b in run.blocks]
    )


def costs(run: Run) -> pd.DataFrame:
    """One row a mode and level: means over rounds with their 95 % intervals (low, high; NaN with one round)."""
    rows = []
    for label, group in rounds(run).groupby("label", sort=False):
        row = {"label": label, "rounds": len(group), "commit_p99_ms": float(group["commit_p99_ms"].mean())}
        for name in ("commit_p50_ms", "rate_per_s"):
            low, high = _mean_interval(group[name].to_numpy(dtype=float))
            row |= {name: float(group[name].mean()), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _mean_interval(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """95 % interval of the mean (Student's t); NaN for a single value."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    return float(values.mean()) - half, float(values.mean()) + half


def ratios(run: Run, against: str) -> pd.DataFrame:
    """How many times as long a commit takes as with `against`: label, ratio, low, high.

    Geometric mean over paired rounds of the medians' ratios, with its 95 % interval (Student's t on logarithms).
    """
    wide = rounds(run).pivot_table(index="round", columns="label", values="commit_p50_ms", sort=False).dropna()
    rows = []
    for label in wide.columns:
        if label != against:
            logs = np.log(wide[label].to_numpy(dtype=float) / wide[against].to_numpy(dtype=float))
            low, high = _mean_interval(logs)
            ends = {"ratio": logs.mean(), "low": low, "high": high}
            rows.append({"label": label} | {name: float(np.exp(value)) for name, value in ends.items()})
    return pd.DataFrame(rows)


def table(run: Run) -> pd.DataFrame:
    """`costs` to read."""
    rows = {
        row.label: {
            "commit p50, ms": number(row.commit_p50_ms),
            "95 % interval": _interval(row.commit_p50_ms_low, row.commit_p50_ms_high),
            "commit p99, ms": number(row.commit_p99_ms),
            "rows/s": number(row.rate_per_s),
            "95 % interval ": _interval(row.rate_per_s_low, row.rate_per_s_high),
            "rounds": str(row.rounds),
        }
        for row in each(costs(run))
    }
    return Words(pd.DataFrame.from_dict(rows, orient="index"))


def _interval(low: float, high: float) -> str:
    return "–" if np.isnan(low) else f"{number(low)} … {number(high)}"


def stopped(run: Run) -> pd.DataFrame:
    """One row a mode and number of stopped replicas: what the primary's view says, and how a commit fares."""
    rows = []
    for shown in run.meta["demonstrations"]:
        answered = shown["commit_ms"] is not None
        rows.append(
            {
                "mode": shown["mode"],
                "stopped": ", ".join(shown["stopped"]) or "none",
                "sync_state": ", ".join(f"{node} {state}" for node, state in shown["states"].items()) or "no replica",
                "a commit": f"{number(shown['commit_ms'])} ms" if answered else "waits beyond the client's deadline",
                "later on": ", ".join(shown["later_on_replicas"]) or "no replica",
            }
        )
    return Words(pd.DataFrame(rows).set_index(["mode", "stopped"]))


def cancelled(run: Run) -> pd.DataFrame:
    """What the server says when the wait of a lone primary is cancelled, and where the row is then."""
    rows = [
        {
            "the client sees": shown["cancelled"].replace("\n", " ⏎ "),
            "row on the primary": "yes" if shown["on_primary"] else "no",
        }
        for shown in run.meta["demonstrations"]
        if "cancelled" in shown
    ]
    return Words(pd.DataFrame(rows, index=[f"{s['mode']}" for s in run.meta["demonstrations"] if "cancelled" in s]))


def safety() -> pd.DataFrame:
    """What each level of synchronous_commit can lose, by failure; a synchronous replica is promoted."""
    return Words(pd.DataFrame.from_dict(_SAFETY, orient="index", columns=list(_FAILURES)))


def headline(run: Run) -> pd.DataFrame:
    """`costs` with the columns that every experiment's headline has."""
    found = costs(run)
    found.insert(0, "workload", "append-rows")
    return found.assign(arm=found["label"], requests_per_s=found["rate_per_s"], p99_ms=found["commit_p99_ms"])


def verdicts(run: Run) -> Sentences:
    """What the run shows, in sentences."""
    found = lead(run)
    cheapest = min(each(costs(run)), key=_latency)
    for row in each(ratios(run, cheapest.label)):
        sure = f" (95 % interval {number(row.low)} … {number(row.high)})" if not np.isnan(row.low) else ""
        found.append(
            f"{row.label}: a commit takes {number(row.ratio)} times as long as {cheapest.label}, round for round{sure}."
        )
    for shown in run.meta.get("demonstrations", []):
        if shown["commit_ms"] is None:
            found.append(
                f"{shown['mode']} with {', '.join(shown['stopped'])} stopped: a commit waits, for as long as it takes."
            )
    if any("cancelled" in shown for shown in run.meta.get("demonstrations", [])):
        found.append(
            "Cancelling that wait does not undo the commit: the server warns and acknowledges a row that is local."
        )
    return found


def _latency(row: object) -> float:
    return float(row.commit_p50_ms)  # type: ignore[attr-defined]


def lead(run: Run) -> Sentences:
    """The range of prices."""
    every = sorted(each(costs(run)), key=_latency)
    low, high = every[0], every[-1]
    return Sentences(
        [
            f"A commit takes from {number(low.commit_p50_ms)} ms ({low.label}) to {number(high.commit_p50_ms)} ms "
            f"({high.label}): means of the medians of {low.rounds} rounds."
        ]
    )


def validity(run: Run) -> list[str]:
    """A block in which a commit was not plainly acknowledged."""
    return [
        f"block {b['block']} ({b['mode']}/{b['level']}): {n} transactions ended as {how}"
        for b in run.blocks
        for how, n in b["transactions"].items()
        if how != "ok" and n
    ]
