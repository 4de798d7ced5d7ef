"""One row a block, for experiments whose blocks differ in how much was asked of the servers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from labkit.analysis.frames.per_run_cache import once_a_run
from labkit.analysis.frames.requests import figures, groups, measured
from labkit.analysis.frames.rows import each
from labkit.analysis.statistics import usl
from labkit.run.store import Run

GENERATOR_LIMIT = 90.0  # percent of a core


@once_a_run
def trials(run: Run) -> pd.DataFrame:
    """One row per block: the figures of `headline` for that block alone, in the order the blocks ran.

    Adds block, round: int. workload, arm: str. vus: float, users, NaN for an open load. nodes: int, that served.
    generator_cpu_percent: float, of one core. Of a search phase: str, holds: bool, reasons: str.
    """
    rows = []
    for block in measured(run):
        facts = block.facts
        rows.append(
            {"block": facts["block"], "workload": facts["workload"], "arm": facts["arm"], "round": facts["round"]}
            | figures([block])
            | {"vus": np.nan if facts.get("vus") is None else facts["vus"], "nodes": len(facts["nodes"])}
            | {"generator_cpu_percent": facts["generator_cpu_percent"]}
            | {"phase": facts.get("phase", ""), "holds": facts.get("holds", True)}
            | {"reasons": ", ".join(facts.get("reasons", []))}
        )
    return pd.DataFrame(rows)


def found(run: Run) -> pd.DataFrame:
    """The result of a search in the shape of `headline`: the trials at the rate that was found, pooled.

    Empty if no rate held. Adds nothing to the columns of `headline`.
    """
    rate = run.meta.get("found_per_s")
    rows = []
    for workload, arm, blocks in groups(run):
        held = [b for b in blocks if rate is not None and b.facts["offered_per_s"] == rate]
        if held:
            rows.append({"workload": workload, "arm": arm, **figures(held)})
    return pd.DataFrame(rows)


def levels(run: Run) -> pd.DataFrame:
    """One row per arm and number of users, all rounds pooled: the figures of `headline`, and vus: int."""
    rows = []
    for workload, arm, blocks in groups(run):
        for users in sorted({block.facts["vus"] for block in blocks}):
            mine = [block for block in blocks if block.facts["vus"] == users]
            rows.append({"workload": workload, "arm": arm, "vus": round(users), **figures(mine)})
    return pd.DataFrame(rows)


def laws(run: Run) -> dict[str, usl.Fit]:
    """The Universal Scalability Law of each arm, fitted to all its blocks, see `labkit.analysis.statistics.usl`."""
    return {
        str(arm): usl.fit(mine["vus"].tolist(), mine["requests_per_s"].tolist())
        for arm, mine in trials(run).groupby("arm", sort=False)
    }


def scalability(run: Run) -> pd.DataFrame:
    """One row per arm: the parameters of its law.

    arm: str. lam, sigma, kappa: float, each with _low and _high, 95 %. knee: float, users beyond which throughput
    falls, infinite if it never does. most_users: int, measured. half: float, users at which each gets half of what a
    lone one gets. peak_per_s: float, the largest throughput that the law gives within the measured numbers of users.
    r_squared: float.
    """
    every = trials(run)
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
    """What more nodes would give, from the best level of the arms with the fewest and the most nodes.

    None if all arms have as many nodes, or only one was measured.
    """
    every = trials(run)
    best: dict[int, list[float]] = {}
    for _, mine in every.groupby("arm", sort=False):
        mean = mine.groupby("vus")["requests_per_s"].mean()
        rates = mine.loc[mine["vus"] == mean.idxmax(), "requests_per_s"]
        best[int(mine["nodes"].iloc[0])] = rates.tolist()
    few, many = min(best), max(best)
    if few == many:
        return None
    return usl.more_nodes(few, best[few], many, best[many], up_to)


def generator_limited(run: Run) -> list[str]:
    """Which of the blocks the load generator could not have done better, as words; empty if none."""
    return [
        f"{row.arm} at {row.vus:.0f} users" if not np.isnan(row.vus) else f"{row.arm} at {row.offered_per_s:,.0f}/s"
        for row in each(trials(run))
        if row.generator_cpu_percent > GENERATOR_LIMIT
    ]
