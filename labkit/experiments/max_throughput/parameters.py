"""Parameters of the experiments about load itself."""

from __future__ import annotations

from labkit.experiments.parameters import param
from labkit.experiments.shared import OneWorkload, ReadArm, too_many_processes
from labkit.lab.load.arrivals import ArrivalKind
from labkit.lab.routing.arms import PRIMARY_ONLY, Arm


class MaxThroughput(OneWorkload):
    """The highest rate that keeps the p99 latency under a limit, found by bisection."""

    experiment = "max-throughput"

    arm: ReadArm = param(str(PRIMARY_ONLY), "where reads go")
    p99_limit_ms: float = param(20.0, "a rate holds if the p99 latency is at most this", low=0.1, high=60_000)
    rate_low: float = param(500.0, "requests per second to begin with", low=1, high=1e6)
    rate_high: float = param(200_000.0, "requests per second that are not exceeded", low=1, high=1e6)
    precision: float = param(0.05, "the search ends when the limits are this share apart", low=0.005, high=0.5)
    confirm: int = param(3, "repetitions of the rate that was found; most of them must hold", low=1, high=100)
    trial_s: float = param(4.0, "measured seconds of one trial", low=0.5, high=3600)
    arrival: ArrivalKind = param("poisson", "how requests are spaced")
    processes: int = param(1, "load generator processes; each takes its share of the load", low=1, high=256)
    max_in_flight: int = param(1000, "requests under way at once; more are dropped, and a drop fails", low=1, high=1e6)

    def conflicts(self) -> list[str]:
        found = super().conflicts()
        if self.rate_low >= self.rate_high:
            found.append(f"rate_low: {self.rate_low:g} must be below rate_high, which is {self.rate_high:g}")
        return found + too_many_processes(self.processes, max_in_flight=self.max_in_flight)

    @property
    def measured(self) -> tuple[Arm, ...]:
        return (self.arm,)

    @property
    def generators(self) -> int:
        return self.processes
