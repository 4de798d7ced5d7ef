"""One row per trial of a lost primary."""

from __future__ import annotations

import numpy as np
import pandas as pd

from labkit.errors import RunUnreadable
from labkit.run.schema import TrialBlock
from labkit.run.store import Run


def trials(run: Run) -> pd.DataFrame:
    """One row per trial: block, mode, level, fault, seed, verdict, rows by class (kept, lost, recovered, gone, wrong),
    other_lost (had the other replica been promoted), rto_ms, rate_per_s, commit_p50_ms, commit_p99_ms,
    took_s (the whole trial, from its new cluster to its verdict; NaN in runs that did not note it).

    Raises RunUnreadable if there is none.
    """
    if not run.blocks:
        raise RunUnreadable(f"{run.id} has no finished trial: it was cut off before anything was measured")
    rows = [
        {name: getattr(trial, name) for name in ("block", "mode", "level", "fault", "seed", "verdict")}
        | {name: getattr(trial.counts, name) for name in ("kept", "lost", "recovered", "gone")}
        | {"other_lost": trial.other_lost, "wrong": trial.counts.wrong}
        | {name: getattr(trial, name) for name in ("rto_ms", "rate_per_s", "commit_p50_ms", "commit_p99_ms")}
        | {"took_s": np.nan if trial.took_s is None else trial.took_s}
        for trial in run.blocks_of(TrialBlock)
    ]
    return pd.DataFrame(rows)
