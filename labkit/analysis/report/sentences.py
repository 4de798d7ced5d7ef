"""Sentences about differences: who did more, by how much, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from labkit.analysis.frames import single_blocks
from labkit.analysis.frames.diagnosis import GENERATOR_LIMIT
from labkit.analysis.frames.rows import each
from labkit.analysis.statistics import compare
from labkit.analysis.statistics.bottleneck import WORDS
from labkit.analysis.statistics.compare import Side
from labkit.analysis.words import Sentences, arm_in_prose, capital, count, interval, percent
from labkit.checkers.comparisons import CONNECTIONS
from labkit.run.store import Run

_FEW = 4  # comparisons that a head lists
_METRICS = {
    "mean_ms": "mean latency",
    "p50_ms": "median latency",
    "p90_ms": "p90 latency",
    "p95_ms": "p95 latency",
    "p99_ms": "p99 latency",
    "max_ms": "longest latency",
    "errors": "number of errors",
}


def of_arms(run: Run, row: Any) -> str:
    """`difference` for a row of `compare.arms`; where nothing but connections differs, how many they are."""
    for pair in compare.comparisons(run):
        things = [what.thing for what in pair.differs]
        if (pair.arm, pair.against) == (row.arm, row.against) and things == [CONNECTIONS]:
            (found,) = pair.differs
            return difference(row, other=f"{arm_in_prose(row.arm)} ({found.after} instead of {found.before})")
    return difference(row)


def compared(run: Run) -> Sentences:
    """What is compared with what, and what differs between the two; many comparisons of one thing each in short."""
    found = compare.comparisons(run)
    if len(found) > _FEW and all(len(pair.differs) == 1 for pair in found):
        return Sentences([f"{len(found)} comparisons, in each of which one thing differs: they are listed below."])
    return Sentences(
        f"Compared: {arm_in_prose(pair.against)} → {arm_in_prose(pair.arm)} ({pair.in_words or 'nothing differs'})."
        for pair in found
    )


def confounded(run: Run) -> list[str]:
    """One sentence for each comparison in which several things differ: runs before connections were shared out."""
    return [
        f"{len(pair.differs)} things differ between {arm_in_prose(pair.arm)} and {arm_in_prose(pair.against)} "
        f"({pair.in_words}), so no difference between them can be laid to one of these."
        for pair in compare.comparisons(run)
        if len(pair.differs) > 1
    ]


def difference(row: Any, other: str = "") -> str:
    """One sentence for one row of `compare.arms`: who did more, by how much, how sure that is."""
    return _said(row, other or arm_in_prose(row.arm), arm_in_prose(row.against), what_of(row), "round")


def what_of(row: Any) -> str:
    """What a row of `compare.arms` or `compare.runs` compares."""
    if row.metric == "requests_per_s":
        return f"{row.workload} requests per second"
    return f"the {_METRICS[row.metric]} of {row.workload}"


def no_interval(n: int, unit: str = "round") -> str:
    """Why a comparison of n rounds says nothing."""
    if n >= compare.FEWEST:
        return f"in some {unit} there was nothing to compare, or every {unit} gave the same"
    gives = "gives" if n == 1 else "give"
    return f"{count(n, unit)} {gives} no interval, so nothing can be concluded: at least {compare.FEWEST} are needed"


def _said(row: Any, other: str, against: str, what: str, unit: str) -> str:
    if math.isnan(row.relative_low):
        return capital(f"{what}, {other} against {against}: {no_interval(row.n, unit)}.")
    n = f"{count(row.n, unit)}{' a side' * (unit == 'run')}"
    limits = f"95 % interval {interval(row.relative_low, row.relative_high)}, {n}"
    if row.relative_low <= 0 <= row.relative_high:
        return f"In {what}, {other} and {against} cannot be told apart ({percent(row.relative)}, {limits})."
    size = percent(abs(row.relative), signed=False)
    if row.metric == "requests_per_s":
        more = "more" if row.relative > 0 else "fewer"
        return capital(f"{other} answered {size} {more} {what} than {against} ({limits}).")
    higher = "higher" if row.relative > 0 else "lower"
    return capital(f"{what} was {size} {higher} on {other} than on {against} ({limits}).")


def limits(found: pd.DataFrame, where: str = "") -> list[str]:
    """What limited throughput, and how that is known, for the rows of `bottleneck`: one sentence for all of which the
    same is said."""
    alike: dict[tuple[str, str], list[str]] = {}
    for row in each(found):
        alike.setdefault((row.limit, row.reason), []).append(f"{row.workload} on {arm_in_prose(row.arm)}")
    return [
        f"What limited {', '.join(cells)}{where}: {WORDS[limit]}; {reason}." for (limit, reason), cells in alike.items()
    ]


def generator_busy(run: Run) -> list[str]:
    """Where the load generator had hardly any time left, which is no proof that it was the limit; empty if nowhere."""
    where = single_blocks.generator_busy(run)
    if not where:
        return []
    named = f"{', '.join(where[:4])} and {len(where) - 4} more" if len(where) > 4 else ", ".join(where)
    return [
        f"The load generator used more than {GENERATOR_LIMIT:.0f} % of its core ({named}): it may have measured "
        "itself; raise `processes` to see."
    ]


def two_runs(a: Side, b: Side, metrics: Sequence[str] = ("requests_per_s", "p99_ms")) -> Sentences:
    """What the runs of side B did differently from those of side A, for each workload and arm that all have; unknown
    where other programs disturbed one of the runs, or it is unknown whether they did."""
    disturbed = compare.disturbances(a, b)
    found, n = Sentences(disturbed), min(len(a), len(b))
    if disturbed:
        found.append("Whether A and B differ is unknown: what differs may be what other programs used.")
    elif n < compare.FEWEST:
        found.append(
            f"Whether A and B differ cannot be known from {count(n, 'run')} a side: runs of equal parameters differ "
            f"too, and by how much shows only from {compare.FEWEST} runs of each on."
        )
    else:
        found += [
            _said(row, "side B", "side A", f"{what_of(row)} on {arm_in_prose(row.arm)}", "run")
            for row in each(compare.runs(a, b, metrics))
        ]
    if mixed := compare.mixed(a, b):
        found.append(
            f"Runs of one side differ in {', '.join(mixed)}: that side is not one thing measured several times."
        )
    differing = [name for name in compare.parameters(a, b)["parameter"] if name != "seed"]
    if len(differing) > 1:
        found.append(f"{len(differing)} parameters differ, so no difference can be laid to one of them.")
    if not differing and n >= compare.FEWEST and not disturbed:
        found.append(
            "No parameter differs: what differs is what changed between the runs, such as the machine or labkit."
        )
    return found
