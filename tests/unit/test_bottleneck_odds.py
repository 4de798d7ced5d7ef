"""How often short rounds name a wrong limit, and how often a right one: what the module bottleneck says of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from labkit.analysis.statistics import intervals
from labkit.analysis.statistics.bottleneck import shows

DRAWN = 4000
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISE: dict[str, Noise] = {
    "lognormal": lambda rng, shape: np.exp(0.06 * rng.normal(size=shape)),
    "heavy tails": lambda rng, shape: np.exp(0.06 / np.sqrt(3) * rng.standard_t(3, size=shape)),
    "slow blocks": lambda rng, shape: 1 / (1 + 0.3 * rng.exponential(size=shape) * (rng.random(shape) < 0.25)),
    "one change with twice the noise": lambda rng, shape: np.exp(
        0.06 * rng.normal(size=shape) * np.append(np.ones(shape[-1] - 1), 2.0)
    ),
}


def odds(noise: Noise, gains: list[float], rounds: int = 4) -> Counter[str]:
    """Verdicts in percent: `right` or `wrong` of the surest change that is named, `nothing helps`, `unknown`.

    `gains`: of each change, in truth. Rounds differ by 20 %, which they do to all of their blocks.
    """
    rng = np.random.default_rng(21)
    mood = np.exp(0.2 * rng.normal(size=(DRAWN, rounds, 1)))
    truth = 1 + np.array([0.0, *gains])
    _, low, high = intervals.ratios_to_first(1000 * mood * truth * noise(rng, (DRAWN, rounds, len(truth))))
    found: Counter[str] = Counter()
    for lows, highs in zip(low - 1, high - 1, strict=True):
        shown = list(map(shows, lows, highs))
        if "gain" in shown:
            found["right" if gains[int(np.argmax(lows))] > 0 else "wrong"] += 1
        else:
            found["unknown" if "nothing" in shown else "nothing helps"] += 1
    return Counter({verdict: 100 * times / DRAWN for verdict, times in found.items()})  # type: ignore[misc]


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("rounds", [3, 4])
@pytest.mark.parametrize("changes", [1, 2, 3, 4])
def test_where_nothing_helps_a_limit_is_hardly_ever_named(noise: str, rounds: int, changes: int) -> None:
    found = odds(NOISE[noise], [0.0] * changes, rounds)
    assert found["wrong"] <= 3.5, found


def test_intervals_that_hold_one_by_one_would_name_a_limit_three_times_as_often() -> None:
    blocks = NOISE["lognormal"](np.random.default_rng(22), (DRAWN, 4, 4))
    alone = [intervals.ratio_of_pairs(blocks[..., 0], blocks[..., change])[1] > 1 for change in (1, 2, 3)]
    assert 100 * np.any(alone, axis=0).mean() == pytest.approx(7, abs=1)


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("rounds", [3, 4])
def test_that_nothing_helps_is_hardly_ever_said_of_what_gives_a_fifth(noise: str, rounds: int) -> None:
    found = odds(NOISE[noise], [0.0, 0.0, 0.2], rounds)
    assert found["nothing helps"] <= 0.5, found
    assert found["wrong"] <= 1.5, found


@pytest.mark.parametrize(("scatter", "named", "excluded"), [(0.03, 99, 81), (0.06, 88, 13), (0.1, 41, 3)])
def test_what_four_rounds_can_tell(scatter: float, named: int, excluded: int) -> None:
    def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return np.exp(scatter * rng.normal(size=shape))

    assert odds(noise, [0.0, 0.0, 0.2])["right"] == pytest.approx(named, abs=2.5)
    assert odds(noise, [0.0, 0.0, 0.0])["nothing helps"] == pytest.approx(excluded, abs=2.5)


def test_a_gain_of_ten_percent_is_not_said_to_be_none() -> None:
    assert odds(NOISE["lognormal"], [0.0, 0.0, 0.1])["nothing helps"] <= 1.0


def test_an_arm_with_more_connections_adds_its_own_error_and_takes_one_of_the_changes_away() -> None:
    """Six measured rounds of an arm that changes nothing: it gains by chance in 2.5 of 100 cases."""
    rng = np.random.default_rng(23)
    short = np.exp(0.06 * rng.normal(size=(DRAWN, 4, 4)))
    rounds = np.exp(0.06 * rng.normal(size=(2, DRAWN, 6)))
    gained = np.any(intervals.ratios_to_first(short)[1][:, 1:] > 1, axis=1)
    assert 100 * (gained | (intervals.ratio_of_pairs(*rounds)[1] > 1)).mean() == pytest.approx(3.8, abs=0.8)
