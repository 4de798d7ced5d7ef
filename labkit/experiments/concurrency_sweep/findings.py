"""What a concurrency sweep found: tables, sentences, verdicts."""

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
from labkit.analysis.report.sentences import generator_busy, limits
from labkit.analysis.statistics import compare, usl
from labkit.analysis.statistics.bottleneck import bottleneck
from labkit.analysis.words import (
    UNKNOWN,
    Sentences,
    Words,
    arm_in_prose,
    arm_words,
    capital,
    count,
    not_valid,
    number,
    percent,
    span,
)
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
    """What was measured at best, and the Universal Scalability Law with 95 % intervals, where it fits."""
    rows = {}
    for row in each(scalability(run)):
        law = {
            "λ, requests/s of a lone user": f"{number(row.lam)} ({span(row.lam_low, row.lam_high)})",
            "σ, contention": _shown(row.sigma, row.sigma_low, row.sigma_high, ".4f"),
            "κ, coherency": _shown(row.kappa, row.kappa_low, row.kappa_high, ".1e"),
            "knee, users": "none" if row.knee > row.most_users else number(row.knee),
            "highest requests/s by the law": number(row.peak_per_s),
        }
        rows[arm_words(row.arm)] = {
            "highest requests/s measured": f"{number(row.highest_per_s)} at {count(row.highest_at, 'user')}",
            "the law misses most": f"by {percent(row.missed)} at {count(row.missed_at, 'user')}",
            "the law fits": "yes" if row.fits else "no",
        } | (law if row.fits else dict.fromkeys(law, UNKNOWN))
    return Words(rows)


def _shown(value: float, low: float, high: float, digits: str) -> str:
    """A cost with its interval; one that may be none says only how large it is at most."""
    return f"at most {high:{digits}}" if low <= 0 else f"{value:{digits}} ({low:{digits}} … {high:{digits}})"


def verdicts(run: Run) -> Sentences:
    """How each arm scales with users, where its knee is, and what more nodes would give."""
    found = Sentences(frames.disturbances(run))
    for row in each(scalability(run)):
        found += [_best(row), _of_law(row)]
    more = more_nodes(run, run.parameter("up_to_nodes", int))
    if isinstance(more, str):
        found.append(f"What more nodes would give is not extrapolated: {more}.")
    else:
        at = len(more.nodes) - 1
        found.append(
            f"Extrapolated, not measured: {more.nodes[at]:.0f} nodes would give {number(float(more.throughput[at]))} "
            f"requests/s at most (95 % interval {span(float(more.low[at]), float(more.high[at]))}), "
            f"{number(float(more.throughput[at] / more.throughput[0]))} times one node, "
            "if every further node shares as much with the others as these do."
        )
    most = max(round(block.vus or 0) for block in run.blocks_of(LoadBlock))
    found += limits(bottleneck(run), f" with {count(most, 'user')}")
    found += generator_busy(run)
    return Sentences([*found, *not_valid(validity(run))])


def _best(row: Any) -> str:
    """What was measured at best, and whether the law knows a number of users beyond which throughput falls."""
    rate = f"{number(row.highest_per_s)} requests/s at {count(row.highest_at, 'user')}"
    measured = f"{capital(arm_in_prose(row.arm))}: highest measured {rate}"
    if not row.fits:
        return f"{measured}; the scalability law does not fit, so no knee is told."
    if row.knee <= row.most_users:
        peak = f"peaks at {count(round(row.knee), 'user')} with {number(row.peak_per_s)} and falls beyond"
        return f"{measured}; by the fitted law throughput {peak}."
    return f"{measured}; no knee is shown within {count(row.most_users, 'user')}."


def _of_law(row: Any) -> str:
    """The law's parameters where it fits, and why not where it does not."""
    if not row.determined:
        return f"{capital(arm_in_prose(row.arm))}: what was measured does not determine the law's three parameters."
    if not row.fits:
        size, side = percent(abs(row.missed), signed=False), "above" if row.missed > 0 else "below"
        passes = percent(max(usl.FAR, min(row.scatter, usl.TOO_FAR)), signed=False)
        return (
            f"{capital(arm_in_prose(row.arm))}: with {count(row.missed_at, 'user')} the fitted law is {size} {side} "
            f"what was measured. No more than {passes} is allowed, so the law does not fit."
        )
    sigma, kappa = (
        _shown(100 * row.sigma, 100 * row.sigma_low, 100 * row.sigma_high, ".1f"),
        _shown(row.kappa, row.kappa_low, row.kappa_high, ".1e"),
    )
    return (
        f"{capital(arm_in_prose(row.arm))}, by the fitted law: {number(row.lam)} requests/s for a lone user (95 % "
        f"interval {span(row.lam_low, row.lam_high)}); contention σ, in %: {sigma}; coherency κ: {kappa}. It "
        f"misses nothing that was measured by more than {percent(abs(row.missed), signed=False)}."
    )


def lead(run: Run) -> Sentences:
    """What casts doubt on the rest, and what was measured at best on each arm."""
    best = (_best(row) for row in each(scalability(run)))
    return Sentences([*frames.disturbances(run), *best])


def levels(run: Run) -> pd.DataFrame:
    """One row per arm and number of users, all rounds pooled: the figures of `headline`, and vus: int."""
    rows = []
    for workload, arm, measured in groups(run):
        for users in sorted({block.facts.vus for block in measured if block.facts.vus is not None}):
            mine = [block for block in measured if block.facts.vus == users]
            rows.append({"workload": workload, "arm": arm, "vus": round(users), **figures(mine)})
    return pd.DataFrame(rows)


def laws(run: Run) -> dict[str, usl.Fit]:
    """The Universal Scalability Law of each arm, fitted to all its blocks, see `labkit.analysis.statistics.usl`.

    Arms of a run that was cut off before enough numbers of users were measured on them have none.
    """
    return {
        str(arm): usl.fit(mine["vus"].tolist(), mine["requests_per_s"].tolist())
        for arm, mine in blocks(run).groupby("arm", sort=False)
        if mine.loc[mine["requests_per_s"] > 0, "vus"].nunique() >= usl.FEWEST
    }


def scalability(run: Run) -> pd.DataFrame:
    """One row per arm: what was measured at best, and the parameters of its law.

    arm: str. highest_per_s: float, the largest throughput of a number of users, all its rounds pooled; highest_at: int,
    that number; most_users: int, the largest number. determined, fits: bool, see `usl.Fit`. missed: float, by how much
    the law misses most, a share, at missed_at: int users; scatter: float, what the rounds' scatter explains of it. lam,
    sigma, kappa: float, each with _low and _high, 95 %. knee: float, users beyond which throughput falls, infinite if
    none is shown. half: float, users at which each gets half of what a lone one gets. peak_per_s: float, the largest
    throughput that the law gives within the measured numbers of users.
    """
    every = levels(run)
    rows = []
    for arm, law in laws(run).items():
        mine = every[every["arm"] == arm].set_index("vus")["requests_per_s"]
        users = mine.index.to_numpy(dtype=np.int64)
        row: dict[str, object] = {
            "arm": arm,
            "highest_per_s": float(mine.max()),
            "highest_at": int(users[mine.argmax()]),
        }
        row |= {"most_users": int(users.max()), "determined": law.determined, "fits": law.fits}
        row |= {"scatter": law.scatter}
        row |= {"missed": law.missed[law.worst], "missed_at": round(law.worst)}
        for name in usl.PARAMETERS:
            low, high = law.intervals[name]
            row |= {name: getattr(law, name), f"{name}_low": low, f"{name}_high": high}
        peak = float(law.throughput(np.arange(1, users.max() + 1)).max())
        rows.append(row | {"knee": law.knee, "half": law.half, "peak_per_s": peak})
    return pd.DataFrame(rows)


def more_nodes(run: Run, up_to: int) -> usl.Nodes | str:
    """What more nodes would give, from the best levels of the first two arms that differ in their nodes alone.

    The reason, as text, where nothing is extrapolated: there are no such arms, or the law does not fit.
    """
    pairs = [pair for pair in compare.comparisons(run) if [what.thing for what in pair.differs] == [NODES]]
    if not pairs:
        return "no two arms differ in the number of their nodes alone"
    fitted, best = laws(run), {}
    for arm in (pairs[0].against, pairs[0].arm):
        if arm not in fitted:
            return f"fewer than {usl.FEWEST} numbers of users were measured on {arm_in_prose(arm)}"
        if not fitted[arm].fits:
            return f"the law does not even fit the users of {arm_in_prose(arm)}"
        nodes, rates = _best_rates(run, arm)
        best[nodes] = rates
    if len(best) < 2:
        return "all arms have the same number of nodes"
    few, many = min(best), max(best)
    both = best[few].index.intersection(best[many].index)
    return usl.more_nodes(few, best[few][both].tolist(), many, best[many][both].tolist(), up_to)


def _best_rates(run: Run, arm: str) -> tuple[int, pd.Series[float]]:
    """How many nodes served an arm, and its requests/s by round at the number of users where they were most."""
    every = blocks(run)
    mine = every[every["arm"] == arm]
    mean = mine.groupby("vus")["requests_per_s"].mean()
    return int(mine["nodes"].iloc[0]), mine[mine["vus"] == mean.idxmax()].set_index("round")["requests_per_s"]
