"""95 % intervals of few values: a share of trials, a count of coincidences, a mean, ratios of figures.

What was measured in rounds is judged by Student's t over one figure of each round: Student, "The probable error of a
mean", Biometrika 6 (1908). Ratios are taken as logarithms, so that twice and half are equally far from no difference,
and their middle is a geometric mean. Fewer than `FEWEST` values give no interval, and so no conclusion;
nor do values that are all alike, as copies of one value are: what does not scatter does not show how sure it is.
docs/statistics.md tells how often these intervals hold the truth. All functions take one row of values, or an array of
rows along the last axis.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

CONFIDENCE = 0.95
FEWEST = 3
"""Values, of rounds or of runs: below it t is so wide, and so sure of the shape of noise, that it says nothing."""

_UPPER = (1 + CONFIDENCE) / 2
_UPPER_OF_MEAN = 0.98
"""Of one mean: Student's 96 %, as few values may hold none of a skewed tail. So 93 to 96 of 100 intervals hold."""
_NOTHING = 1e-9
"""Of a logarithm: narrower is an interval only by rounding."""

Vector = npt.NDArray[np.float64]
Limits = tuple[Vector, Vector, Vector]
"""Middle, low, high: one of each for every row of values; numbers where there was one row."""


def share_at_most(found: int, trials: int) -> float:
    """The upper bound of a share of trials, one-sided and exact; 1 if nothing was tried.

    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934). For found = 0 it is 1 − 0.05^(1/n) at 95 %, near 3/n (the rule of three).
    """
    if found >= trials:
        return 1.0
    return float(special.betaincinv(found + 1, trials - found, CONFIDENCE))


def most_by_chance(trials: int, share: float = 1 - CONFIDENCE, surprise: float = 0.01) -> int:
    """The count that a binomial (`trials` tries, each with the chance `share`) exceeds with a chance of `surprise`
    at most."""
    upto = special.bdtr(np.arange(trials + 1), trials, share)  # the chance of so many at most
    return int(np.searchsorted(upto, 1 - surprise))


def mean(values: npt.ArrayLike) -> Limits:
    """Means of figures along the last axis with their intervals; limits are NaN for fewer than `FEWEST` values, or
    values that are all alike.

    Student's t for the logarithm of the mean, mean · exp(± t · standard error / mean), as rates and times cannot fall
    below zero and their noise is mostly skewed: W. Q. Meeker, L. A. Escobar, "Statistical Methods for Reliability
    Data" (1998), chapter 7, on intervals of positive quantities. t is that of 96 %: where some rounds are much slower
    than the others, that of 95 % holds in 92 of 100 with few of them, see docs/statistics.md. NaN limits also where the
    mean is not above zero.
    """
    sample = np.asarray(values, dtype=np.float64)
    middle = _mean(sample)
    positive = np.where(middle > 0, middle, np.nan)
    factor = np.exp(_scattered(_half(sample, _UPPER_OF_MEAN) / positive))
    return middle, positive / factor, positive * factor


def ratio_of_pairs(before: npt.ArrayLike, after: npt.ArrayLike) -> Limits:
    """after ÷ before along the last axis, values at the same place measured in the same round.

    Geometric means with their intervals: Student's t over the logarithms of the ratios, so that what both sides of a
    round have in common cancels. NaN where a value is not above zero; limits also for fewer than `FEWEST` pairs, or
    ratios that are all alike.
    """
    return geometric_mean(np.exp(_logarithm(after) - _logarithm(before)))


def ratios_to_first(values: npt.ArrayLike) -> Limits:
    """Every other condition ÷ the first, measured once in each round: (…, rounds, conditions); NaN: not measured.

    Geometric means with intervals, (…, conditions − 1) of each, which hold all at once in 95 % of the cases. A
    logarithm is taken to be its round's level, its condition's, and noise of one size in all conditions (randomised
    blocks: R. A. Fisher, "The Design of Experiments", 1935), fitted by least squares. All blocks together tell the size
    of the noise, so that few rounds give (rounds − 1) · (conditions − 1) degrees of freedom for Student's t, whose 5 %
    the ratios share: O. J. Dunn, "Multiple comparisons among means", Journal of the American Statistical Association
    56 (1961). NaN where a value is not above zero; limits also for a condition that fewer than `FEWEST` rounds measured
    beside the first, or where nothing scatters. What was not measured must be the same along the leading axes.
    """
    table = np.asarray(values, dtype=np.float64)
    measured = np.asarray(~np.isnan(table).all(axis=tuple(range(table.ndim - 2))))
    logarithms, (rounds, conditions) = _logarithm(table)[..., measured], np.nonzero(measured)
    by_round, by_condition = (
        rounds[:, None] == np.arange(len(measured)),
        conditions[:, None] == np.arange(measured.shape[1]),
    )
    design = np.hstack([by_round, by_condition[:, 1:]]).astype(np.float64)
    solved = np.linalg.pinv(design)
    levels = logarithms @ solved.T
    noise = logarithms - levels @ design.T
    freedom = len(design) - int(np.linalg.matrix_rank(design))
    enough = (measured[:, 1:] & measured[:, :1]).sum(axis=0) >= FEWEST
    middle = np.where(enough, levels[..., len(measured) :], np.nan)
    error = np.sqrt((noise**2).sum(axis=-1, keepdims=True) / max(freedom, 1) * (solved**2).sum(axis=1)[len(measured) :])
    half = _scattered(special.stdtrit(max(freedom, 1), 1 - (1 - _UPPER) / len(enough)) * error)
    return np.exp(middle), np.exp(middle - half), np.exp(middle + half)


def geometric_mean(values: npt.ArrayLike) -> Limits:
    """Geometric means along the last axis with their intervals: Student's t over the logarithms.

    NaN where a value is not above zero; limits also for fewer than `FEWEST` values, or values that are all alike.
    """
    logarithms = _logarithm(values)
    middle, half = _mean(logarithms), _scattered(_half(logarithms))
    return np.exp(middle), np.exp(middle - half), np.exp(middle + half)


def ratio(before: npt.ArrayLike, after: npt.ArrayLike) -> Limits:
    """after ÷ before along the last axis, the two sides measured apart, each of any number of values.

    The ratio of geometric means with its interval, by the t test that lets the sides differ in their scatter: B. L.
    Welch, "The generalization of 'Student's' problem when several different population variances are involved",
    Biometrika 34 (1947). NaN where a value is not above zero; limits also for fewer than `FEWEST` values of a side, or
    where the values of neither side scatter.
    """
    a, b = _logarithm(before), _logarithm(after)
    middle = np.asarray(b.mean(axis=-1) - a.mean(axis=-1))
    if min(a.shape[-1], b.shape[-1]) < FEWEST:
        return np.exp(middle), np.full_like(middle, np.nan), np.full_like(middle, np.nan)
    squared = [_squared_error(side) for side in (a, b)]
    parts = sum(error**2 / (side.shape[-1] - 1) for error, side in zip(squared, (a, b), strict=True))
    error = squared[0] + squared[1]
    freedom = np.divide(error**2, parts, out=np.ones_like(error), where=error > 0)
    half = _scattered(special.stdtrit(freedom, _UPPER) * np.sqrt(error))
    return np.exp(middle), np.exp(middle - half), np.exp(middle + half)


def _logarithm(values: npt.ArrayLike) -> Vector:
    known = np.asarray(values, dtype=np.float64)
    return np.log(np.where(known > 0, known, np.nan))


def _mean(sample: Vector) -> Vector:
    return np.asarray(sample.mean(axis=-1)) if sample.shape[-1] else np.full(sample.shape[:-1], np.nan)


def _squared_error(sample: Vector) -> Vector:
    """The squared standard error of means along the last axis."""
    return np.asarray(sample.var(axis=-1, ddof=1) / sample.shape[-1])


def _half(sample: Vector, upper: float = _UPPER) -> Vector:
    """Half of the width of Student's interval of means along the last axis; NaN for fewer than `FEWEST` values."""
    n = sample.shape[-1]
    if n < FEWEST:
        return np.full(sample.shape[:-1], np.nan)
    return np.asarray(special.stdtrit(n - 1, upper) * np.sqrt(_squared_error(sample)))


def _scattered(half: Vector) -> Vector:
    """Half of an interval's width on the scale of logarithms; NaN where it is nothing: an estimate is never exact."""
    return np.where(half > _NOTHING, half, np.nan)
