"""Limits that a distribution gives, without resampling: a share of trials, a count of coincidences, a mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from labkit.analysis.statistics.bootstrap import CONFIDENCE


def share_at_most(found: int, trials: int) -> float:
    """The upper bound of a share of trials, one-sided and exact; 1 if nothing was tried.

    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934). For found = 0 it is 1 − 0.05^(1/n) at 95 %, near 3/n (the rule of three).
    """
    if not trials:
        return 1.0
    return float(stats.binomtest(found, trials, alternative="less").proportion_ci(CONFIDENCE, "exact").high)


def most_by_chance(trials: int, share: float = 1 - CONFIDENCE, surprise: float = 0.01) -> int:
    """The count that a binomial (`trials` tries, each with the chance `share`) exceeds with a chance of `surprise`
    at most."""
    return int(stats.binom.isf(surprise, trials, share))


def mean_interval(values: npt.ArrayLike) -> tuple[float, float]:
    """The interval of a mean, (low, high), by Student's t; (NaN, NaN) for fewer than two values.

    Student, "The probable error of a mean", Biometrika 6 (1908).
    """
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return float("nan"), float("nan")
    # Not t.interval(): it knows no interval of values that are all the same.
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(sample) - 1) * stats.sem(sample))
    return float(sample.mean()) - half, float(sample.mean()) + half
