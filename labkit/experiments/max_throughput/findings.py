"""Conclusions of the experiments about load itself, computed from a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from labkit.analysis import frames
from labkit.analysis.frames.recorded import groups
from labkit.analysis.frames.requests import figures
from labkit.analysis.frames.rows import each
from labkit.analysis.frames.single_blocks import blocks
from labkit.analysis.report import tables
from labkit.analysis.report.sentences import generator_busy
from labkit.analysis.words import Sentences, Table, arm_in_prose, not_valid, number
from labkit.run.store import Run
from labkit.units import count


def verdicts(run: Run) -> Sentences:
    """What a search for the highest rate found, and what it hit."""
    found = [*frames.disturbances(run), _found(run), *_beyond(run), *generator_busy(run)]
    return Sentences([*found, *not_valid(validity(run))])


def lead(run: Run) -> Sentences:
    """What was found, after what casts doubt on it."""
    return Sentences([*frames.disturbances(run), _found(run)])


def _found(run: Run) -> str:
    """The rate, and in how many of its trials it held."""
    rate, every = run.record.found_per_s, blocks(run)
    where = f"{run.parameter('workload', str)} on {arm_in_prose(run.parameter('arm', str))}"
    limit = f"a p99 latency of at most {run.parameter('p99_limit_ms', float):g} ms"
    if rate is None and run.status not in ("measured", "complete"):
        held = every.loc[every["holds"], "offered_per_s"]
        highest = f"{number(held.max())} requests per second; nothing confirmed it" if len(held) else ""
        so_far = f"the highest rate that held {limit} was {highest}" if highest else f"none held {limit}"
        return f"The search for {where} was cut off: of the {count(len(every), 'trial')} until then, {so_far}."
    if rate is None:
        lowest = run.parameter("rate_low", float)
        if not every.loc[_at(every["offered_per_s"], lowest), "holds"].any():
            return f"Not even {number(lowest)} requests per second held {limit} for {where}."
        return f"No rate from {number(lowest)} requests per second on held {limit} for {where} in most of its trials."
    same = every[_at(every["offered_per_s"], rate)]
    return (
        f"{where} held {limit} at {number(rate)} requests per second in {int(same['holds'].sum())} of "
        f"{count(len(same), 'trial')} of {_seconds(run)} s."
    )


def _at(offered_per_s: Any, rate: float) -> Any:
    """Which trials asked for a rate: in older runs a trial noted the mean of its schedule, with the error of a sum."""
    return np.isclose(offered_per_s, rate, rtol=1e-9, atol=0.0)


def _seconds(run: Run) -> str:
    return number(run.parameter("trial_s", float))


def _beyond(run: Run) -> list[str]:
    """What was tried above the rate that was found; empty if none was."""
    rate, every = run.record.found_per_s, blocks(run)
    if rate is None:
        return []
    higher = every[(every["offered_per_s"] > rate) & ~_at(every["offered_per_s"], rate)]
    if not len(higher):
        return ["No higher rate was tried: raise `rate_high`."]
    next_one = higher[_at(higher["offered_per_s"], higher["offered_per_s"].min())]
    failed = next_one[~next_one["holds"]]
    if not len(failed):
        return []
    first = next(each(failed))
    return [
        f"The next higher rate that was tried, {number(first.offered_per_s)}/s, failed in {len(failed)} of "
        f"{count(len(next_one), 'trial')}: {first.reasons}."
    ]


def validity(run: Run) -> list[str]:
    """What makes a search worthless, one sentence each."""
    found = frames.validity_problems(run)
    if run.record.found_per_s is None and run.state == "complete":
        found.append("no rate held, so there is no result: raise p99_limit_ms or lower rate_low")
    return found


def headline(run: Run) -> pd.DataFrame:
    """The result of a search in the shape of `headline`: the trials at the rate that was found, pooled.

    Empty if no rate held. Adds nothing to the columns of `headline`.
    """
    rate = run.record.found_per_s
    rows = []
    for workload, arm, measured in groups(run):
        held = [b for b in measured if rate is not None and _at(b.facts.offered_per_s, rate)]
        if held:
            rows.append({"workload": workload, "arm": arm, **figures(held)})
    return pd.DataFrame(rows)


def table(run: Run) -> pd.DataFrame:
    """Every trial of a search, in order."""
    every = blocks(run)
    return Table(
        {
            "trial": range(1, len(every) + 1),
            "phase": every["phase"],
            **tables.figures(every, "offered_per_s"),
            "answered/s": every["requests_per_s"].map(number),
            **tables.figures(every, "p50_ms", "p99_ms", "service_p99_ms"),
            "generator, % of a core": every["generator_cpu_percent"].map(number),
            "holds": every["holds"].map({True: "yes", False: "no"}),
            "because of": every["reasons"],
        }
    ).set_index("trial")
