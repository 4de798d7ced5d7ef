"""The Universal Scalability Law: throughput against concurrency, fitted with intervals, and whether it fits at all.

X(N) = λN / (1 + σ(N−1) + κN(N−1)): λ is the throughput of one, σ the share of the work that has to queue (contention),
κ the cost of agreeing with each other (coherency). N. J. Gunther, "Guerrilla Capacity Planning" (2007), chapter 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from labkit.analysis.statistics import intervals
from labkit.analysis.statistics.intervals import CONFIDENCE, Vector

FEWEST = 4  # numbers of users that three parameters can be fitted to
PARAMETERS = ("lam", "sigma", "kappa")
FAR = 0.10
"""By this share the law may miss what was measured: it is a model, and a reader takes no more from its curve."""
TOO_FAR = 0.25
"""By this it may not, however much the rounds scatter: such scatter hides any law, also one that is wrong."""


@dataclass(frozen=True)
class Fit:
    """λ, σ, κ with their 95 % intervals (low, high), and how well they say what was measured.

    `missed`: number of users -> by how much the law misses the mean (geometric) that was measured there, as a share of
    it. `scatter`: by how much the mean of a number of users may be off by chance, as the rounds' scatter around their
    own means says (95 %, for all numbers of users at once); 0 with one round, which has no scatter.
    """

    lam: float
    sigma: float
    kappa: float
    intervals: dict[str, tuple[float, float]]
    missed: dict[float, float]
    scatter: float

    def throughput(self, users: npt.ArrayLike) -> Vector:
        return law(np.asarray(users, dtype=np.float64), self.lam, self.sigma, self.kappa)

    @property
    def determined(self) -> bool:
        """Whether the points determine all three parameters: none of the intervals is infinite."""
        return all(math.isfinite(limit) for limits in self.intervals.values() for limit in limits)

    @property
    def fits(self) -> bool:
        """Whether the law misses no number of users by more than `FAR`, or than the rounds' scatter up to `TOO_FAR`.

        The measure is what a reader takes from the law: its throughput at each number of users. A share of variance
        explained is none: it is high for a wrong curve through a steep rise, and low for a right one where all is flat.
        """
        return self.determined and abs(self.missed[self.worst]) <= max(FAR, min(self.scatter, TOO_FAR))

    @property
    def worst(self) -> float:
        """The number of users at which the law misses most."""
        return max(self.missed, key=lambda users: abs(self.missed[users]))

    @property
    def knee(self) -> float:
        """The number of users beyond which throughput falls: √((1−σ)/κ); infinite if none is shown.

        None is shown where the law does not fit, or κ may be 0 as its interval says.
        """
        if not self.fits or self.intervals["kappa"][0] <= 0:
            return math.inf
        return math.sqrt(max(1 - self.sigma, 0.0) / self.kappa)

    @property
    def half(self) -> float:
        """The number of users N at which a user gets half of what a lone one gets: 1 + σ(N−1) + κN(N−1) = 2."""
        b = self.sigma - self.kappa
        root = b + math.sqrt(b * b + 4 * self.kappa * (1 + self.sigma))  # the form that does not cancel for a small κ
        return 2 * (1 + self.sigma) / root if root > 0 else math.inf


def law(users: Vector, lam: float, sigma: float, kappa: float) -> Vector:
    """X(N) for each N."""
    return np.asarray(lam * users / (1 + sigma * (users - 1) + kappa * users * (users - 1)))


def fit(users: Sequence[float], throughput: Sequence[float]) -> Fit:
    """The law through points (N, X), relative deviations weighted alike. Raises ValueError for fewer than
    `FEWEST` numbers of users.

    A point without any throughput is left out: every curve deviates infinitely from it, and a block in which nothing
    was answered tells nothing of how users share.
    Intervals are Wald's, estimate ± t · standard error, cut off at 0: none of the three can be negative here. A
    parameter that the points do not determine has an infinite one.
    """
    n, x = np.asarray(users, dtype=np.float64), np.asarray(throughput, dtype=np.float64)
    n, x = n[x > 0], x[x > 0]
    if len(np.unique(n)) < FEWEST:
        raise ValueError(f"three parameters need at least {FEWEST} numbers of users, not {len(np.unique(n))}")
    start = (float(np.median(x[n == n.min()] / n.min())), 0.05, 1e-5)
    # Parameters differ by orders of magnitude, so each is fitted in units of its own.
    scale = np.array([start[0], 1.0, 1e-4])
    found, covariance = optimize.curve_fit(
        lambda at, *theta: law(at, *(np.asarray(theta) * scale)),
        n,
        x,
        p0=np.asarray(start) / scale,
        sigma=x,
        bounds=(0, np.inf),
        max_nfev=20_000,
    )
    values = found * scale
    margin = special.stdtrit(len(x) - 3, (1 + CONFIDENCE) / 2) * np.sqrt(np.diag(covariance)) * scale
    limits = {
        name: (max(float(value - m), 0.0), float(value + m))
        for name, value, m in zip(PARAMETERS, values, margin, strict=True)
    }
    lam, sigma, kappa = (float(value) for value in values)
    return Fit(lam, sigma, kappa, limits, *_missed(n, np.log(x), np.log(law(n, lam, sigma, kappa))))


def _missed(n: Vector, measured: Vector, fitted: Vector) -> tuple[dict[float, float], float]:
    """`missed` and `scatter` of a fit, from the logarithms of what was measured and of what the law says."""
    levels = np.unique(n)
    means = {float(level): float(measured[n == level].mean()) for level in levels}
    missed = {level: float(np.expm1(fitted[n == level].mean() - mean)) for level, mean in means.items()}
    freedom = len(n) - len(levels)
    if not freedom:
        return missed, 0.0
    within = measured - np.array([means[float(level)] for level in n])
    fewest = min(int((n == level).sum()) for level in levels)
    error = math.sqrt(float(within @ within) / freedom / fewest)
    one_of_all = 1 - (1 - CONFIDENCE) / (2 * len(levels))  # Bonferroni: none of them is off by more, but for 5 %
    return missed, float(np.expm1(special.stdtrit(freedom, one_of_all) * error))


@dataclass(frozen=True)
class Nodes:
    """Peak throughput against the number of nodes that serve: X(n) = λn / (1 + σ(n−1)), from two measured numbers.

    Vectors have one value for each number of nodes, geometric means of the rounds; low and high are 95 % intervals.
    """

    nodes: Vector
    throughput: Vector
    low: Vector
    high: Vector
    sigma: float
    measured: tuple[int, int]


def more_nodes(few: int, few_rates: Sequence[float], many: int, many_rates: Sequence[float], up_to: int) -> Nodes | str:
    """Extrapolate from the peak rates of `few` and of `many` nodes, one value per round, in the same order.

    Every round gives a curve; the result is their geometric mean with Student's t over their logarithms. Two points
    leave no κ to be found, so what agreeing costs is left out and the result is an upper limit. The reason, as text,
    where the rates follow no such curve: σ is a share, so it may not be below 0 or above 1 for sure, and every round
    needs a value for `up_to`. Raises ValueError unless 0 < few < many.
    """
    if not 0 < few < many:
        raise ValueError(f"two different numbers of nodes are needed, not {few} and {many}")
    if len(few_rates) < intervals.FEWEST:
        return f"fewer than {intervals.FEWEST} rounds give no interval"
    _, lowest, highest = intervals.ratio_of_pairs(few_rates, many_rates)
    if np.isnan(lowest):
        return "in some round nothing was answered, or every round gave the same: there is no interval"
    at = np.arange(1, up_to + 1, dtype=np.float64)[:, None]
    # From X(few) and X(many): λ n/X = 1 + σ(n−1) is a line in n.
    u, v = few / np.asarray(few_rates, dtype=np.float64), many / np.asarray(many_rates, dtype=np.float64)
    slope = (v - u) / (many - few)  # σ/λ
    base = u - slope * (few - 1)  # 1/λ
    per_throughput = base + slope * (at - 1)
    if lowest > many / few or (per_throughput <= 0).any():  # σ < 0
        return f"{many} nodes gave more than {many}/{few} of what {few} gave, which the law has no place for"
    if highest < 1:  # σ > 1
        return f"{many} nodes gave less than {few}, which contention alone cannot do"
    middle, low, high = intervals.geometric_mean(at / per_throughput)
    return Nodes(at[:, 0], middle, low, high, float(slope.mean() / base.mean()), (few, many))
