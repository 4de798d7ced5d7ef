"""When requests are asked for: a closed workload (users who wait for answers) or an open one (a rate).

Pure: no clock, no server. Times are seconds since the load began. A schedule is piecewise linear, as k6's
stages are: each stage moves from the value before it to its own in the given time; 0 seconds is a step.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from labkit.errors import BadInput

ArrivalKind = Literal["poisson", "constant"]


class Stage(NamedTuple):
    """A value to reach, and the seconds to take for it; written as 100:10."""

    value: float
    seconds: float

    def __str__(self) -> str:
        return ":".join(repr(float(number)).removesuffix(".0") for number in self)


def parse_stages(text: str) -> tuple[Stage, ...]:
    """From `value:seconds,…`. Raises BadInput with everything that is wrong."""
    stages, problems = [], []
    for i, item in enumerate((item.strip() for item in text.split(",") if item.strip()), 1):
        value, _, seconds = item.partition(":")
        try:
            stage = Stage(_finite(value), _finite(seconds))
        except ValueError:
            problems.append(f"stage {i}: {item!r} is not of the form value:seconds")
        else:
            stages.append(stage)
            problems += _problems(i, stage)
    if problems:
        raise BadInput(problems, subject="stages")
    return tuple(stages)


def _finite(text: str) -> float:
    number = float(text.replace("_", ""))
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _problems(i: int, stage: Stage) -> list[str]:
    below = [] if stage.value >= 0 else [f"stage {i}: {stage.value:g} is below 0"]
    return below + ([] if stage.seconds >= 0 else [f"stage {i}: {stage.seconds:g} s goes back in time"])


class Schedule:
    """A value over time: `start` at 0, then through the stages, then the last value without end."""

    def __init__(self, start: float, stages: Sequence[Stage] = ()) -> None:
        problems = [problem for i, stage in enumerate(stages, 1) for problem in _problems(i, Stage(*stage))]
        if problems:
            raise BadInput(problems, subject="stages")
        self._times = [0.0, *itertools.accumulate(seconds for _, seconds in stages)]
        self._values = [start, *(value for value, _ in stages)]

    def at(self, t: float) -> float:
        """The value at time t; at a step, the value after it."""
        i = bisect.bisect_right(self._times, t)
        if i == len(self._times):
            return self._values[-1]
        t0, t1, v0, v1 = self._times[i - 1], self._times[i], self._values[i - 1], self._values[i]
        return v0 + (v1 - v0) * (t - t0) / (t1 - t0)

    def mean(self, begin: float, end: float) -> float:
        """The mean value from `begin` to `end`; of a value that stays, exactly that."""
        area = 0.0
        for t0, t1, _, _ in self.segments():
            a, b = max(t0, begin), min(t1, end)
            if a < b:
                area += self.at((a + b) / 2) * (b - a)  # a line's mean is its value in the middle
        return min(max(area / (end - begin), min(self._values)), max(self._values))

    def segments(self) -> Iterator[tuple[float, float, float, float]]:
        """(from, to, value at from, value at to) of each stage that takes time, then the endless rest."""
        for t0, t1, v0, v1 in zip(self._times, self._times[1:], self._values, self._values[1:], strict=False):
            if t1 > t0:
                yield t0, t1, v0, v1
        yield self._times[-1], float("inf"), self._values[-1], self._values[-1]


@dataclass(frozen=True)
class Closed:
    """`users` virtual users: each asks, waits for the answer, thinks for `think_s`, asks again.

    Throughput x mean iteration time = users (Little's law). `stages` change the number of users.
    """

    users: int
    think_s: float = 0.0
    stages: tuple[Stage, ...] = ()

    def schedule(self) -> Schedule:
        return Schedule(self.users, self.stages)

    def split(self, n: int) -> list[Closed]:
        """n groups; together they are as many users at the start and at the end of every stage."""
        return [
            Closed(
                share(self.users, i, n), self.think_s, tuple(Stage(share(round(v), i, n), s) for v, s in self.stages)
            )
            for i in range(n)
        ]


@dataclass(frozen=True)
class Open:
    """Requests that arrive at `rate` a second whether or not earlier ones were answered.

    Latency counts from the scheduled arrival, so a stall of the server is seen in full. What would exceed
    `max_in_flight` requests begun and not answered is dropped, and counted. `stages` change the rate.
    `phase` is the share of one interval by which constant arrivals come earlier.
    """

    rate: float
    kind: ArrivalKind = "poisson"
    max_in_flight: int = 10_000
    stages: tuple[Stage, ...] = ()
    phase: float = 0.0

    def schedule(self) -> Schedule:
        return Schedule(self.rate, self.stages)

    def split(self, n: int) -> list[Open]:
        """n loads that together are this one: constant arrivals take turns, Poisson processes add up to one."""
        return [
            Open(
                self.rate / n,
                self.kind,
                share(self.max_in_flight, i, n),
                tuple(Stage(value / n, seconds) for value, seconds in self.stages),
                (i + self.phase) / n,
            )
            for i in range(n)
        ]

    def times(self, rng: np.random.Generator) -> Iterator[float]:
        """Ascending arrival times in seconds; ends only if the rate falls to 0 for good.

        Arrival k comes when the integral of the rate reaches k (constant), or the k-th point of a unit Poisson
        process (time-rescaling theorem: the points of an inhomogeneous Poisson process are those of a unit one
        seen through the integrated rate).
        """
        marks = self._marks(rng)
        mark = next(marks)
        done = 0.0  # integral of the rate up to the segment's start
        for t0, t1, v0, v1 in self.schedule().segments():
            endless = t1 == float("inf")
            area = (float("inf") if v0 > 0 else 0.0) if endless else (v0 + v1) / 2 * (t1 - t0)
            slope = 0.0 if endless else (v1 - v0) / (t1 - t0)
            while mark <= done + area and area > 0:
                yield t0 + _time_to_area(mark - done, v0, slope)
                mark = next(marks)
            done += area

    def _marks(self, rng: np.random.Generator) -> Iterator[float]:
        if self.kind == "constant":
            yield from itertools.count(1.0 - self.phase)
        total = 0.0
        while True:
            for mark in total + np.cumsum(rng.exponential(size=1024)):
                total = float(mark)
                yield total


Arrivals = Closed | Open


def share(total: int, i: int, n: int) -> int:
    """What the i-th of n gets of a total, as evenly as whole numbers can be: the first get the rest.

    One for every number below the total whose remainder after a division by n is i, so the shares add up.
    """
    return (total + n - 1 - i) // n


def _time_to_area(area: float, v0: float, slope: float) -> float:
    """The t at which v0 t + slope t²/2 reaches `area`, in the form that does not cancel for a small slope."""
    return float(2 * area / (v0 + max(v0 * v0 + 2 * slope * area, 0.0) ** 0.5))
