"""One row per block, for experiments whose blocks differ in how much was asked of the servers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from labkit.analysis.frames.diagnosis import GENERATOR_LIMIT
from labkit.analysis.frames.per_run_cache import once_a_run
from labkit.analysis.frames.recorded import measured
from labkit.analysis.frames.requests import figures
from labkit.analysis.frames.rows import each
from labkit.run.store import Run
from labkit.units import count


@once_a_run
def blocks(run: Run) -> pd.DataFrame:
    """One row per block: the figures of `headline` for that block alone, in the order the blocks ran.

    Adds block, round: int. workload, arm: str. vus: float, users, NaN for an open load. nodes: int, that served.
    generator_cpu_percent: float, of one core. Of a search phase: str, holds: bool, reasons: str.
    """
    rows = []
    for block in measured(run):
        facts = block.facts
        rows.append(
            {"block": facts.block, "workload": facts.workload, "arm": facts.arm, "round": facts.round}
            | figures([block])
            | {"vus": np.nan if facts.vus is None else facts.vus, "nodes": len(facts.nodes)}
            | {"generator_cpu_percent": facts.generator_cpu_percent}
            | {"phase": facts.phase, "holds": facts.holds and not facts.interrupted}
            | {"reasons": "interrupted" if facts.interrupted else ", ".join(facts.reasons)}
        )
    return pd.DataFrame(rows)


def generator_busy(run: Run) -> list[str]:
    """What was asked where a load generator used more than 90 % of its core, as words; empty if it never did."""
    found = [
        f"{row.arm} at {count(round(row.vus), 'user')}"
        if not np.isnan(row.vus)
        else f"{row.arm} at {row.offered_per_s:,.0f}/s"
        for row in each(blocks(run))
        if row.generator_cpu_percent > GENERATOR_LIMIT
    ]
    return list(dict.fromkeys(found))
