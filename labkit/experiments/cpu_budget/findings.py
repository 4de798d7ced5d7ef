"""What a run of cpu-budget says: throughput against the primary alone, for each budget and number of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from labkit import names
from labkit.analysis import frames
from labkit.analysis.frames.recorded import counted
from labkit.analysis.frames.rows import each
from labkit.analysis.report.sentences import limits, no_interval
from labkit.analysis.report.tables import original_differences
from labkit.analysis.statistics import compare
from labkit.analysis.statistics.bottleneck import bottleneck
from labkit.analysis.words import Sentences, arm_in_prose, arm_words, count, not_valid, number, percent, span
from labkit.run.store import Run

headline = frames.headline
differences = compare.arms
validity = frames.validity

_COLUMNS = ["workload", "node_cpus", "arm", "nodes", "requests_per_s", "ratio", "low", "high", "rounds"]


def speedup(run: Run) -> pd.DataFrame:
    """One row per workload with its budget and arm, the arms with few nodes first.

    workload, arm: str. node_cpus: float, CPUs a node may use, NaN if shared. nodes: int, that serve reads.
    requests_per_s: float, all rounds pooled. ratio, low, high: float, requests/s as a multiple of the primary alone in
    the same round, the mean of the rounds with its 95 % interval (see `compare.arms`); NaN for fewer than three
    rounds, and 1 without an interval for the primary itself. rounds: int.
    """
    facts = {(block.workload, block.arm): block for block in counted(run)}
    compared = {(row.workload, row.arm): row for row in each(compare.arms(run, ["requests_per_s"]))}
    rows = []
    for row in each(frames.headline(run)):
        block, found = facts[row.workload, row.arm], compared.get((row.workload, row.arm))
        cpus = block.node_cpus
        rows.append(
            {
                "workload": row.workload,
                "node_cpus": np.nan if cpus is None else cpus,
                "arm": row.arm,
                "nodes": len(block.nodes),
                "requests_per_s": row.requests_per_s,
                "ratio": 1.0 + found.relative if found else 1.0,
                "low": 1.0 + found.relative_low if found else np.nan,
                "high": 1.0 + found.relative_high if found else np.nan,
                "rounds": found.n if found else 0,
            }
        )
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    # Budgets in the order they ran, arms by their number of nodes, the primary before a single replica.
    order = {workload: i for i, workload in enumerate(dict.fromkeys(frame["workload"]))}
    keys = pd.DataFrame(
        {"w": frame["workload"].map(order), "n": frame["nodes"], "p": frame["arm"] != names.PRIMARY_ONLY},
        index=frame.index,
    )
    return frame.loc[keys.sort_values(["w", "n", "p"]).index].reset_index(drop=True)


def table(run: Run) -> pd.DataFrame:
    """`speedup` to read: a row for each budget and arm."""
    rows = {
        (row.workload, arm_words(row.arm)): {
            "nodes": str(row.nodes),
            "requests/s": number(row.requests_per_s),
            "× primary alone": number(row.ratio),
            "95 % interval": span(row.low, row.high),
        }
        for row in each(speedup(run))
    }
    found = pd.DataFrame.from_dict(rows, orient="index")
    found.index = pd.MultiIndex.from_tuples(found.index)
    return found


def verdicts(run: Run) -> Sentences:
    """What replicas did under each budget, with intervals, and what spoils the measurement."""
    found = Sentences(frames.disturbances(run))
    for row in each(speedup(run)):
        if row.arm != names.PRIMARY_ONLY:
            found.append(_answered(row))
    found += _original(run)
    found += limits(bottleneck(run))
    return Sentences([*found, *not_valid(validity(run))])


def _answered(row: Any) -> str:
    """A row of `speedup` as a sentence."""
    who = f"{row.workload}: {arm_in_prose(row.arm)}"
    if np.isnan(row.low):
        return f"{who} against the primary alone: {no_interval(row.rounds)}."
    limits = f"95 % interval {span(row.low, row.high)}, {count(row.rounds, 'round')}"
    if row.low <= 1 <= row.high:
        return (
            f"{who} and the primary alone cannot be told apart ({number(row.ratio)} times as many answers; {limits})."
        )
    return f"{who} answered {number(row.ratio)} times what the primary alone did ({limits})."


def _original(run: Run) -> list[str]:
    """What this run says about the original report, if it measured several replicas with CPU shared."""
    frame = speedup(run)
    shared = frame[frame["node_cpus"].isna() & (frame["nodes"] > 1) & frame["low"].notna()]
    saw = " and ".join(percent(value) for value in original_rates(run))
    if not len(shared) or not saw:
        return []
    original = f"The original report, on one machine too but with a pool of its own for every node, saw {saw}."
    if more := [arm_in_prose(row.arm) for row in each(shared[shared["low"] > 1])]:
        return [f"With CPU shared {' and '.join(more)} answered more than the primary alone here. {original}"]
    return [f"With CPU shared several nodes could not be shown to answer more than the primary alone. {original}"]


def original_rates(run: Run | None = None) -> list[float]:
    """What replicas changed in requests/s in the original report, a share for each of its loads."""
    found = original_differences(run)
    return [float(value) for value in found.loc[found["metric"] == "requests_per_s", "relative"]]


def lead(run: Run) -> Sentences:
    """What casts doubt on the answer, and the answer in short: the arm with most nodes of every budget."""
    widest = speedup(run).groupby("workload", sort=False).tail(1)
    said = (_answered(row) for row in each(widest) if row.nodes > 1)
    return Sentences([*frames.disturbances(run), *said])
