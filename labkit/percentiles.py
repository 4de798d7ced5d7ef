"""The one definition of a percentile, for tables, figures, verdicts and searches on both sides. Pure.

Linear between the neighbours of rank q·(n−1)/100, as numpy and k6 have it: definition 7 of R. J. Hyndman, Y. Fan,
"Sample Quantiles in Statistical Packages", The American Statistician 50 (1996).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def neighbours(count: int, percents: Sequence[float]) -> tuple[Places, Values]:
    """Where percentiles (0 to 100) of so many ascending values lie: the places of the neighbours below, then of those
    above, counted from 0; and how far between the two, 0 to 1. `count` is at least 1."""
    at = np.asarray(percents, dtype=np.float64) / 100 * (count - 1)
    below = np.floor(at).astype(np.int64)
    return np.concatenate([below, np.minimum(below + 1, count - 1)]), at - below


def between(found: npt.NDArray[np.floating], share: Values) -> Values:
    """The percentiles along the last axis, from the values at the places that `neighbours` named, and its share."""
    low, high = np.split(found.astype(np.float64), 2, axis=-1)
    return np.asarray(low + (high - low) * share)


def percentiles(values: npt.ArrayLike, *percents: float) -> Values:
    """The percentiles (0 to 100) of values along their last axis, one for each of `percents`; NaN if there are none."""
    known = np.asarray(values)
    if not known.shape[-1]:
        return np.full((*known.shape[:-1], len(percents)), np.nan)
    places, share = neighbours(known.shape[-1], percents)
    return between(np.partition(known, places, axis=-1)[..., places], share)


def percentile(values: npt.ArrayLike, percent: float) -> float:
    """One percentile of a row of values; NaN if there are none."""
    return float(percentiles(values, percent)[0])
