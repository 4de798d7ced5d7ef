"""Conclusions as sentences, computed from a run with their uncertainty."""

from __future__ import annotations

from typing import Any

from labkit.analysis import frames
from labkit.analysis.frames.rows import each, matching
from labkit.analysis.report import tables
from labkit.analysis.report.sentences import difference
from labkit.analysis.report.tables import original_differences
from labkit.analysis.statistics import compare
from labkit.analysis.words import Sentences, arm_in_prose, not_valid, number, percent
from labkit.run.store import Run

headline = frames.headline
table = tables.headline
differences = compare.arms
validity = frames.validity


def verdicts(run: Run) -> Sentences:
    """What a read-scaling run shows: differences, the original's beside them, what limited it, what spoils it."""
    found = Sentences()
    original = original_differences()
    for row in each(compare.arms(run, _telling(run, "requests_per_s", "p99_ms"))):
        found.append(difference(row))
        same = matching(original, workload=row.workload, arm=row.arm, metric=row.metric)
        found += [_beside(row, value) for value in same["relative"].dropna()]
    if not found:
        found.append("Only one arm was measured, so there is nothing to compare: name two in `arms`.")
    for row in each(frames.bottleneck(run)):
        found.append(f"What limited {row.workload} on {arm_in_prose(row.arm)}: {row.limit} ({row.reason}).")
    for row in each(frames.littles_law(run)):
        if not row.ok:
            found.append(
                f"Little's law is off by {percent(row.deviation_percent / 100)} for {row.workload} on "
                f"{arm_in_prose(row.arm)}: {number(row.vus)} users, but {number(row.in_flight)} requests under way."
            )
    found += not_valid(frames.validity(run))
    return found


def lead(run: Run) -> Sentences:
    """The answer in short: who answered more, and what makes the run worthless, if anything."""
    rates = each(compare.arms(run, _telling(run, "requests_per_s")))
    return Sentences([*map(difference, rates), *not_valid(frames.validity(run))])


def _telling(run: Run, *metrics: str) -> list[str]:
    """The metrics that tell something: the throughput of an open workload is what was asked for."""
    return ["p99_ms"] if frames.is_open(run) else list(metrics)


def _beside(row: Any, original: float) -> str:
    saw = f"The original report saw {percent(original)} there, from one run of each"
    if row.n < 2:
        return f"{saw}."
    inside = row.relative_low <= original <= row.relative_high
    return f"{saw}; that lies {'inside' if inside else 'outside'} this run's interval."
