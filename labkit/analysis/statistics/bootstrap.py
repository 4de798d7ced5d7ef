"""Intervals from few rounds by bootstrap.

With a handful of rounds the plain percentile bootstrap is too narrow. The expanded percentile interval replaces α/2 by
Φ(−√(n/(n−1)) · t(1−α/2, n−1)): T. C. Hesterberg, "What Teachers Should Know About the Bootstrap", The American
Statistician 69 (2015), section 5.3.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

CONFIDENCE = 0.95
RESAMPLES = 10_000
_AT_ONCE = 1_000  # resamples held in memory together
_NAN = float("nan")

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """`other` minus `baseline`, from n rounds. The limits are NaN where n < 2 gives no interval.

    `relative` and its limits are shares of the baseline: 0.03 is 3 % more.
    """

    baseline: float
    other: float
    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float
    n: int


def expanded_tail(n: int) -> float:
    """The tail probability to cut at each end of a bootstrap distribution of n values (Hesterberg 2015)."""
    t = special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)
    return float(special.ndtr(-np.sqrt(n / (n - 1)) * t))


def cut(values: Vector, n: int) -> tuple[float, float]:
    """The interval (low, high) of a bootstrap distribution made from n values."""
    tail = expanded_tail(n)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


@functools.lru_cache(maxsize=4)
def draws(n: int, seed: int = 0) -> list[Vector]:
    """How often each of n values is drawn in each resample: pieces of (1000, n), `RESAMPLES` rows in all.

    The counts are multinomial, so a resampled sum is a product with them and no resample is ever written out.
    """
    rng = np.random.default_rng(seed)
    pieces = range(RESAMPLES // _AT_ONCE)
    return [rng.multinomial(n, np.full(n, 1 / n), size=_AT_ONCE).astype(np.float64) for _ in pieces]


def resampled_mean(sample: Vector, seed: int = 0) -> Vector:
    """The mean of every resample of a sample."""
    return np.concatenate([counts @ sample for counts in draws(len(sample), seed)]) / len(sample)


def mean_interval(values: Iterable[float]) -> tuple[float, float]:
    """The interval of a mean by bootstrap, (low, high); (NaN, NaN) for fewer than two values."""
    sample = np.asarray(list(values), dtype=np.float64)
    if len(sample) < 2:
        return _NAN, _NAN
    return cut(resampled_mean(sample), len(sample))


def difference(before: float, after: float, resampled: tuple[Vector, Vector] | None, n: int) -> Difference:
    """Two observed figures and what resampling makes of them; None gives no interval."""
    low = high = relative_low = relative_high = _NAN
    if resampled is not None and np.isfinite(resampled).all():
        a, b = resampled
        low, high = cut(b - a, n)
        if np.all(a > 0):
            relative_low, relative_high = cut(b / a - 1, n)
    relative = after / before - 1 if before else _NAN
    return Difference(before, after, after - before, low, high, relative, relative_low, relative_high, n)
