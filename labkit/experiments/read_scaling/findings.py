"""Conclusions as sentences, computed from a run with their uncertainty."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from labkit.analysis import frames
from labkit.analysis.frames.rows import each, matching
from labkit.analysis.report.tables import interval, number, original_differences, percent
from labkit.analysis.statistics import compare
from labkit.run.store import Run

_ARMS = {"primary-only": "the primary alone", "replicas-round-robin": "the replicas"}


_METRICS = {
    "mean_ms": "mean latency",
    "p50_ms": "median latency",
    "p90_ms": "p90 latency",
    "p95_ms": "p95 latency",
    "p99_ms": "p99 latency",
    "max_ms": "longest latency",
    "errors": "number of errors",
}


class Sentences(list[str]):
    """Sentences that show themselves as a list, in a notebook and in a terminal."""

    def __str__(self) -> str:
        return "\n".join(f"- {sentence}" for sentence in self)

    def _repr_html_(self) -> str:
        return "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self) + "</ul>"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(str(self))


def difference(row: Any, other: str = "", where: str = "") -> str:
    """One sentence for one row of `compare.arms` or `compare.runs`: who did more, by how much, how sure that is."""
    other, against = other or _named(row.arm), _named(row.against)
    rate = row.metric == "requests_per_s"
    what = f"{row.workload} requests per second" if rate else f"the {_METRICS[row.metric]} of {row.workload}"
    what += where
    if row.n < 2:
        return _capital(
            f"{other} against {against}: {percent(row.relative)} {what} in one round; one round gives no interval, "
            "so nothing can be concluded: raise `rounds`."
        )
    limits = f"95 % interval {interval(row.relative_low, row.relative_high)}, {row.n} rounds"
    if row.relative_low <= 0 <= row.relative_high:
        return _capital(
            f"no difference in {what} could be shown between {other} and {against} ({percent(row.relative)}, {limits})."
        )
    size = percent(abs(row.relative), signed=False)
    if rate:
        more = "more" if row.relative > 0 else "fewer"
        return _capital(f"{other} answered {size} {more} {what} than {against} ({limits}).")
    higher = "higher" if row.relative > 0 else "lower"
    return _capital(f"{what} was {size} {higher} on {other} than on {against} ({limits}).")


def _named(arm: str) -> str:
    return _ARMS.get(arm, arm)


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


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
        found.append(f"What limited {row.workload} on {_named(row.arm)}: {row.limit} ({row.reason}).")
    for row in each(frames.littles_law(run)):
        if not row.ok:
            found.append(
                f"Little's law is off by {percent(row.deviation_percent / 100)} for {row.workload} on "
                f"{_named(row.arm)}: {number(row.vus)} users, but {number(row.in_flight)} requests under way."
            )
    found += [f"Not valid: {problem}." for problem in frames.validity(run)]
    return found


def lead(run: Run) -> Sentences:
    """The answer in short: who answered more, and what makes the run worthless, if anything."""
    rates = each(compare.arms(run, _telling(run, "requests_per_s")))
    return Sentences([*map(difference, rates), *(f"Not valid: {problem}." for problem in frames.validity(run))])


def _telling(run: Run, *metrics: str) -> list[str]:
    """The metrics that tell something: the throughput of an open workload is what was asked for."""
    return ["p99_ms"] if frames.is_open(run) else list(metrics)


def two_runs(a: Run, b: Run, metrics: Sequence[str] = ("requests_per_s", "p99_ms")) -> Sentences:
    """What run b did differently from run a, for each workload and arm that both have."""
    found = Sentences()
    for row in each(compare.runs(a, b, metrics)):
        found.append(difference(row, other="run B", where=f" on {_named(row.arm)}"))
    differing = compare.parameters(a, b)
    if len(differing) > 1:
        found.append(f"{len(differing)} parameters differ, so no difference can be laid to one of them.")
    return found


def _beside(row: Any, original: float) -> str:
    saw = f"The original report saw {percent(original)} there, from one run of each"
    if row.n < 2:
        return f"{saw}."
    inside = row.relative_low <= original <= row.relative_high
    return f"{saw}; that lies {'inside' if inside else 'outside'} this run's interval."
