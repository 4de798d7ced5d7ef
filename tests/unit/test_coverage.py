"""How often the intervals hold the truth: 95 of 100, within 2, from three rounds to twenty, whatever the noise.

docs/statistics.md shows these figures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fix_records import a_load

from labkit.analysis.frames.recorded import Block
from labkit.analysis.statistics import compare, intervals
from labkit.percentiles import percentiles
from labkit.run.parts import Place

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISE: dict[str, Draw] = {
    "normal": lambda rng, shape: 1 + 0.1 * rng.normal(size=shape),
    "lognormal": lambda rng, shape: np.exp(0.1 * rng.normal(size=shape)),
    "skewed": lambda rng, shape: rng.gamma(2, 0.5, size=shape),  # skewness 1.4, scatter 71 %
    "slow rounds": lambda rng, shape: 1 / (1 + 0.3 * rng.exponential(size=shape)),  # skewness −1.2
}
MEAN = {"normal": 1.0, "lognormal": np.exp(0.1**2 / 2), "skewed": 1.0, "slow rounds": 0.80119}
ROUNDS = (3, 4, 5, 6, 8, 12, 20)
REPETITIONS = 10_000  # the standard deviation of a coverage of 95 % is 0.22 %


def held(limits: intervals.Limits, truth: float) -> float:
    _, low, high = limits
    return float(((low <= truth) & (truth <= high)).mean())


def in_rounds(rng: np.random.Generator, noise: str, n: int, repetitions: int = REPETITIONS) -> list[np.ndarray]:
    """Rates of two arms: what a round does to both, and what it does to each, which are in truth as 1 to 1.1."""
    mood = np.exp(0.2 * rng.normal(size=(repetitions, n)))
    return [rate * mood * NOISE[noise](rng, (repetitions, n)) for rate in (1000.0, 1100.0)]


@pytest.mark.parametrize("noise", NOISE)
def test_ratios_of_arms_hold_the_truth(noise: str) -> None:
    rng = np.random.default_rng(11)
    found = {n: held(intervals.ratio_of_pairs(*in_rounds(rng, noise, n)), 1.1) for n in ROUNDS}
    assert all(0.93 <= coverage <= 0.97 for coverage in found.values()), found


@pytest.mark.parametrize("noise", NOISE)
def test_means_hold_the_truth(noise: str) -> None:
    rng = np.random.default_rng(12)
    found = {n: held(intervals.mean(NOISE[noise](rng, (4 * REPETITIONS, n))), MEAN[noise]) for n in ROUNDS}
    assert all(0.93 <= coverage <= 0.97 for coverage in found.values()), found


@pytest.mark.parametrize("noise", NOISE)
def test_ratios_of_p99_hold_the_truth(noise: str) -> None:
    """Of 60 requests a round: the p99 lies between the slowest two, and has noise of its own."""
    rng = np.random.default_rng(13)
    found = {}
    for n in (3, 6, 20):
        arms = []
        for scale in in_rounds(rng, noise, n, 2000):
            latency = rng.standard_gamma(4, size=(2000, n, 60), dtype=np.float32)
            arms.append(percentiles(latency, 99)[..., 0] * scale)
        found[n] = held(intervals.ratio_of_pairs(*arms), 1.1)
    assert all(0.93 <= coverage <= 0.97 for coverage in found.values()), found


@pytest.mark.parametrize("noise", NOISE)
def test_ratios_of_sides_measured_apart_hold_the_truth(noise: str) -> None:
    """Welch's t is on the safe side with few values: up to 97.5 of 100. A side may have more runs than the other."""
    rng = np.random.default_rng(14)
    found = {}
    for a, b in ((3, 3), (3, 6), (5, 5), (10, 10), (20, 20)):
        sides = [rate * NOISE[noise](rng, (REPETITIONS, n)) for rate, n in ((1000.0, a), (1100.0, b))]
        found[a, b] = held(intervals.ratio(*sides), 1.1)
    assert all(0.93 <= coverage <= 0.975 for coverage in found.values()), found


def blocks(rng: np.random.Generator, slower: float, moods: np.ndarray) -> list[Block]:
    """Rounds of one second each in which latency is exponential around 20 ms times what slows the round."""
    found = []
    for place, mood in enumerate(moods):
        mean_ms = 20 * slower * mood * np.exp(0.1 * rng.normal())
        count = round(8000 / mean_ms)  # eight users
        block = Block(a_load(block=place, round=place), 0.0)
        latency_ns = (1e6 * rng.exponential(mean_ms, count)).astype(np.int64).clip(1)
        rows = {"block": place, "start_ns": 500_000_000 - latency_ns, "wait_ns": 0, "latency_ns": latency_ns}
        batch = pd.DataFrame(rows | {"outcome": "ok", "sqlstate": ""})
        block._take(batch, Place(Path(), 0), keep=True)
        found.append(block)
    return found


def test_comparisons_of_blocks_hold_the_truth() -> None:
    """The way of a run: requests of blocks, their figures, the comparison of arms. 300 times: within 3.5 of 95."""
    rng = np.random.default_rng(15)
    truth = {"requests_per_s": 1 / 1.05, "mean_ms": 1.05, "p99_ms": 1.05}
    inside = dict.fromkeys(truth, 0)
    for _ in range(300):
        moods = np.exp(0.2 * rng.normal(size=3))
        for row in compare.paired(blocks(rng, 1.0, moods), blocks(rng, 1.05, moods), list(truth)):
            inside[row["metric"]] += row["relative_low"] <= truth[row["metric"]] - 1 <= row["relative_high"]
    assert all(0.915 <= count / 300 <= 0.985 for count in inside.values()), inside


def test_fewer_than_three_have_no_interval() -> None:
    for n in (1, 2):
        sample = np.full((5, n), 2.0)
        for limits in (
            intervals.mean(sample),
            intervals.ratio_of_pairs(sample, sample),
            intervals.ratio(sample, sample),
        ):
            assert np.isnan(limits[1]).all()
            assert np.isnan(limits[2]).all()
            assert limits[0].shape == (5,)
