"""What a concurrency sweep found: tables, sentences, verdicts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from labkit.analysis import frames
from labkit.analysis.frames.recorded import groups
from labkit.analysis.frames.requests import figures
from labkit.analysis.frames.rows import each
from labkit.analysis.frames.single_blocks import blocks
from labkit.analysis.report import tables
from labkit.analysis.report.sentences import generator_busy, limit
from labkit.analysis.statistics import compare, usl
from labkit.analysis.statistics.bottleneck import bottleneck
from labkit.analysis.words import Sentences, Words, arm_words, not_valid, number, percent
from labkit.checkers.comparisons import NODES
from labkit.run.schema import LoadBlock
from labkit.run.store import Run

headline = frames.headline
validity = frames.validity


def table(run: Run) -> pd.DataFrame:
    """Every number of users on every arm."""
    found = levels(run)
    return pd.DataFrame(
        {
            "arm": found["arm"].map(arm_words),
            "users": found["vus"].map(number),
            **tables.figures(found, "requests_per_s", "p50_ms", "p99_ms", "errors"),
        }
    ).set_index(["arm", "users"])


def scalability_table(run: Run) -> pd.DataFrame:
    """The parameters of the Universal Scalability Law, with 95 % intervals."""
    rows = {}
    for row in each(scalability(run)):
        rows[arm_words(row.arm)] = {
            "λ, requests/s of a lone user": f"{row.lam:,.0f} ({row.lam_low:,.0f} … {row.lam_high:,.0f})",
            "σ, contention": f"{row.sigma:.4f} ({row.sigma_low:.4f} … {row.sigma_high:.4f})",
            "κ, coherency": f"{row.kappa:.2e} ({row.kappa_low:.2e} … {row.kappa_high:.2e})",
            "knee, users": "none" if row.knee > row.most_users else number(row.knee),
            "highest requests/s": number(row.peak_per_s),
            "variance explained": percent(row.r_squared, signed=False),
        }
    return Words(rows)


WELL_FITTED = 0.8  # share of the variance


def verdicts(run: Run) -> Sentences:
    """How each arm scales with users, where its knee is, and what more nodes would give."""
    found = Sentences(frames.disturbances(run))
    for row in each(scalability(run)):
        found.append(
            f"{arm_words(row.arm)}: {row.lam:,.0f} requests/s for a lone user, contention σ {100 * row.sigma:.1f} % "
            f"(95 % interval {100 * row.sigma_low:.1f} … {100 * row.sigma_high:.1f} %), coherency κ {row.kappa:.2g} "
            f"({row.kappa_low:.2g} … {row.kappa_high:.2g}); the law explains {percent(row.r_squared, signed=False)} "
            "of the variance."
        )
        if row.r_squared < WELL_FITTED:
            found.append(f"The law does not describe {arm_words(row.arm)} well here, so its parameters say little.")
        found.append(_knee(row))
    more = more_nodes(run, run.parameter("up_to_nodes", int))
    if more is not None:
        at = len(more.nodes) - 1
        interval = "" if math.isnan(more.low[at]) else f" (95 % interval {more.low[at]:,.0f} … {more.high[at]:,.0f})"
        found.append(
            f"Extrapolated, not measured: {more.nodes[at]:.0f} nodes would give {number(float(more.throughput[at]))} "
            f"requests/s{interval}, {more.throughput[at] / more.throughput[0]:.2f} times one node, "
            "if every further node shares as much with the others as these do."
        )
    most = max(round(block.vus or 0) for block in run.blocks_of(LoadBlock))
    found += [limit(row, f" with {most:,} users") for row in each(bottleneck(run))]
    found += generator_busy(run)
    return Sentences([*found, *not_valid(frames.validity_problems(run))])


def _knee(row: Any) -> str:
    """Where throughput falls again on an arm."""
    if row.knee <= row.most_users:
        return f"{arm_words(row.arm)}: throughput falls beyond {row.knee:,.0f} users."
    return f"{arm_words(row.arm)}: no knee within {row.most_users:,} users; more users only wait longer."


def lead(run: Run) -> Sentences:
    """Where each arm has its knee."""
    return Sentences([*frames.disturbances(run), *(_knee(row) for row in each(scalability(run)))])


def levels(run: Run) -> pd.DataFrame:
    """One row per arm and number of users, all rounds pooled: the figures of `headline`, and vus: int."""
    rows = []
    for workload, arm, measured in groups(run):
        for users in sorted({block.facts.vus for block in measured if block.facts.vus is not None}):
            mine = [block for block in measured if block.facts.vus == users]
            rows.append({"workload": workload, "arm": arm, "vus": round(users), **figures(mine)})
    return pd.DataFrame(rows)


def laws(run: Run) -> dict[str, usl.Fit]:
    """The Universal Scalability Law of each arm, fitted to all its blocks, see `labkit.analysis.statistics.usl`."""
    return {
        str(arm): usl.fit(mine["vus"].tolist(), mine["requests_per_s"].tolist())
        for arm, mine in blocks(run).groupby("arm", sort=False)
    }


def scalability(run: Run) -> pd.DataFrame:
    """One row per arm: the parameters of its law.

    arm: str. lam, sigma, kappa: float, each with _low and _high, 95 %. knee: float, users beyond which throughput
    falls, infinite if it never does. most_users: int, measured. half: float, users at which each gets half of what a
    lone one gets. peak_per_s: float, the largest throughput that the law gives within the measured numbers of users.
    r_squared: float.
    """
    every = blocks(run)
    rows = []
    for arm, law in laws(run).items():
        most = int(every.loc[every["arm"] == arm, "vus"].max())
        row: dict[str, object] = {"arm": arm}
        for name in usl.PARAMETERS:
            low, high = law.intervals[name]
            row |= {name: getattr(law, name), f"{name}_low": low, f"{name}_high": high}
        within = np.arange(1, most + 1)
        row |= {"knee": law.knee, "half": law.half, "peak_per_s": float(law.throughput(within).max())}
        rows.append(row | {"r_squared": law.r_squared, "most_users": most})
    return pd.DataFrame(rows)


def more_nodes(run: Run, up_to: int) -> usl.Nodes | None:
    """What more nodes would give, from the best levels of the first two arms that differ in their nodes alone.

    None if there are no such arms, or they have as many nodes.
    """
    every = blocks(run)
    pairs = [pair for pair in compare.comparisons(run) if [what.split(":")[0] for what in pair.differs] == [NODES]]
    best: dict[int, list[float]] = {}
    for arm in (pairs[0].against, pairs[0].arm) if pairs else ():
        mine = every[every["arm"] == arm]
        mean = mine.groupby("vus")["requests_per_s"].mean()
        rates = mine.loc[mine["vus"] == mean.idxmax(), "requests_per_s"]
        best[int(mine["nodes"].iloc[0])] = rates.tolist()
    if len(best) < 2:
        return None
    few, many = min(best), max(best)
    return usl.more_nodes(few, best[few], many, best[many], up_to)
