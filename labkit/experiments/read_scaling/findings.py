"""Conclusions as sentences, computed from a run with their uncertainty."""

from __future__ import annotations

import math
from typing import Any

from labkit.analysis import frames
from labkit.analysis.frames.rows import each, matching
from labkit.analysis.report import tables
from labkit.analysis.report.sentences import confounded, limits, of_arms
from labkit.analysis.report.tables import original_differences
from labkit.analysis.statistics import compare
from labkit.analysis.statistics.bottleneck import bottleneck
from labkit.analysis.words import Sentences, arm_in_prose, not_valid, number, percent
from labkit.run.store import Run
from labkit.units import count

headline = frames.headline
table = tables.headline
differences = compare.arms
validity = frames.validity


def verdicts(run: Run) -> Sentences:
    """What a read-scaling run shows: differences, the original's beside them, what limited it, what spoils it."""
    found = Sentences(frames.disturbances(run))
    original = original_differences(run)
    several = {(each.arm, each.against) for each in compare.comparisons(run) if len(each.differs) > 1}
    for row in each(compare.arms(run, _telling(run, "requests_per_s", "p99_ms"))):
        found.append(of_arms(run, row))
        same = matching(original, workload=row.workload, arm=row.arm, metric=row.metric)
        found += [_beside(row, value, alike=(row.arm, row.against) in several) for value in same["relative"].dropna()]
    if len(found) == len(frames.disturbances(run)):
        found.append(_nothing_to_compare(run))
    found += confounded(run)
    found += limits(bottleneck(run))
    for row in each(frames.littles_law(run)):
        if not row.ok:
            found.append(
                f"Little's law is off by {percent(row.deviation_percent / 100)} for {row.workload} on "
                f"{arm_in_prose(row.arm)}: {count(round(row.vus), 'user')}, but {number(row.in_flight)} requests under "
                "way."
            )
    found += not_valid(validity(run))
    return found


def _nothing_to_compare(run: Run) -> str:
    if len(frames.headline(run)["arm"].unique()) == 1:
        return "Only one arm was measured, so there is nothing to compare: name two in `arms`."
    return "No round was measured on two arms, so there is nothing to compare."


def lead(run: Run) -> Sentences:
    """What casts doubt on the answer, and the answer in short: of each load what replicas changed and what connections
    did."""
    rates = compare.arms(run, _telling(run, "requests_per_s"))
    found = Sentences([*frames.disturbances(run), *confounded(run)])
    rates = rates[rates["against"] == (rates["against"].iloc[0] if len(rates) else "")]
    for _, rows in rates.groupby("workload", sort=False):
        first, *others = (of_arms(run, row).removesuffix(".") for row in each(rows))
        found.append("; ".join([first, *(other[0].lower() + other[1:] for other in others)]) + ".")
    return found


def _telling(run: Run, *metrics: str) -> list[str]:
    """The metrics that tell something: the throughput of an open workload is what was asked for."""
    return ["p99_ms"] if frames.is_open(run) else list(metrics)


def _beside(row: Any, original: float, *, alike: bool) -> str:
    """The original's figure; `alike`: here too the arms differ in their nodes and in their connections."""
    saw = f"The original report saw {percent(original)} there, from one run of each"
    if not alike:
        return f"{saw}; it opened a pool to each node, so its replicas had more connections as well."
    if math.isnan(row.relative_low):
        return f"{saw}."
    inside = row.relative_low <= original <= row.relative_high
    return f"{saw}; that lies {'inside' if inside else 'outside'} this run's interval."
