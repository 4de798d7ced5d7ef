"""The Universal Scalability Law: throughput against concurrency, fitted with intervals.

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

from labkit.analysis.statistics import bootstrap
from labkit.analysis.statistics.bootstrap import Vector

PARAMETERS = ("lam", "sigma", "kappa")


@dataclass(frozen=True)
class Fit:
    """λ, σ, κ with their 95 % intervals (low, high), and the share of the variance that the law explains."""

    lam: float
    sigma: float
    kappa: float
    intervals: dict[str, tuple[float, float]]
    r_squared: float

    def throughput(self, users: npt.ArrayLike) -> Vector:
        return law(np.asarray(users, dtype=np.float64), self.lam, self.sigma, self.kappa)

    @property
    def knee(self) -> float:
        """The number of users beyond which throughput falls: √((1−σ)/κ); infinite if it never does."""
        return math.sqrt(max(1 - self.sigma, 0.0) / self.kappa) if self.kappa > 0 else math.inf

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
    """The law through points (N, X), relative deviations weighted alike. Raises ValueError for fewer than 4 points.

    Intervals are Wald's, estimate ± t · standard error, cut off at 0: none of the three can be negative here.
    """
    n, x = np.asarray(users, dtype=np.float64), np.asarray(throughput, dtype=np.float64)
    if len(np.unique(n)) < 4:
        raise ValueError(f"three parameters need at least four numbers of users, not {len(np.unique(n))}")
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
    margin = special.stdtrit(len(x) - 3, 0.975) * np.sqrt(np.diag(covariance)) * scale
    intervals = {
        name: (max(float(value - m), 0.0), float(value + m))
        for name, value, m in zip(PARAMETERS, values, margin, strict=True)
    }
    missed = x - law(n, *values)
    r_squared = 1 - float(missed @ missed) / float(((x - x.mean()) ** 2).sum())
    lam, sigma, kappa = (float(value) for value in values)
    return Fit(lam, sigma, kappa, intervals, r_squared)


@dataclass(frozen=True)
class Nodes:
    """Peak throughput against the number of nodes that serve: X(n) = λn / (1 + σ(n−1)), from two measured numbers.

    Vectors have one value for each number of nodes; low and high are 95 % intervals over rounds.
    """

    nodes: Vector
    throughput: Vector
    low: Vector
    high: Vector
    sigma: float
    measured: tuple[int, int]


def more_nodes(few: int, few_rates: Sequence[float], many: int, many_rates: Sequence[float], up_to: int) -> Nodes:
    """Extrapolate from the peak rates of `few` and of `many` nodes, one value per round.

    σ follows from the two means; two points leave no κ to be found, so what agreeing costs is left out and the
    result is an upper limit. Raises ValueError unless 0 < few < many.
    """
    if not 0 < few < many:
        raise ValueError(f"two different numbers of nodes are needed, not {few} and {many}")
    at = np.arange(1, up_to + 1, dtype=np.float64)

    def curve(a: Vector, b: Vector) -> tuple[Vector, Vector]:
        # From X(few) = a and X(many) = b: λ n/X = 1 + σ(n−1) is a line in n.
        u, v = few / a, many / b  # = (1 + σ(n−1)) / λ
        slope = (v - u) / (many - few)  # σ/λ
        base = u - slope * (few - 1)  # 1/λ
        return at / (base[:, None] + slope[:, None] * (at - 1)), slope / base

    a, b = np.asarray(few_rates, dtype=np.float64), np.asarray(many_rates, dtype=np.float64)
    middle, sigma = curve(np.array([a.mean()]), np.array([b.mean()]))
    tail = bootstrap.expanded_tail(min(len(a), len(b))) if min(len(a), len(b)) > 1 else float("nan")
    curves, _ = curve(bootstrap.resampled_mean(a), bootstrap.resampled_mean(b, seed=1))
    low, high = (np.full(len(at), np.nan),) * 2 if math.isnan(tail) else np.quantile(curves, [tail, 1 - tail], axis=0)
    return Nodes(at, middle[0], low, high, float(sigma[0]), (few, many))
