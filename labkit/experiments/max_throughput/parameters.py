"""Parameters of the experiments about load itself."""

from __future__ import annotations

import dataclasses
import itertools

from labkit.experiments.parameters import as_list, param
from labkit.experiments.shared import ARMS, OWNING_PROVIDERS, WORKLOADS, ReadingUsers, too_many_processes


@dataclasses.dataclass(frozen=True)
class _OneWorkload(ReadingUsers):
    """What these experiments have in common."""

    workload: str = param("get-user", "what a request asks for", choices=WORKLOADS)
    warmup_s: float = param(0.5, "seconds at the start of every block that are not counted", low=0, high=600)


@dataclasses.dataclass(frozen=True)
class MaxThroughput(_OneWorkload):
    """The highest rate that keeps the p99 latency under a limit, found by bisection."""

    arm: str = param("primary-only", "where reads go", choices=ARMS)
    p99_limit_ms: float = param(20.0, "a rate holds if the p99 latency is at most this", low=0.1, high=60_000)
    rate_low: float = param(500.0, "requests a second to begin with", low=1, high=1e6)
    rate_high: float = param(200_000.0, "requests a second that are not exceeded", low=1, high=1e6)
    precision: float = param(0.05, "the search ends when the limits are this share apart", low=0.005, high=0.5)
    confirm: int = param(3, "repetitions of the rate that was found; most of them must hold", low=1, high=100)
    trial_s: float = param(4.0, "measured seconds of one trial", low=0.5, high=3600)
    arrival: str = param("poisson", "how requests are spaced", choices=("poisson", "constant"))
    processes: int = param(1, "load generator processes; each takes its share of the load", low=1, high=256)
    max_in_flight: int = param(1000, "requests under way at once; more are dropped, and a drop fails", low=1, high=1e6)

    def conflicts(self) -> list[str]:
        found = super().conflicts() + self._without_replicas(self.arm)
        if self.rate_low >= self.rate_high:
            found.append(f"rate_low: {self.rate_low:g} must be below rate_high, which is {self.rate_high:g}")
        return found + too_many_processes(
            self.processes, connections=self.connections, max_in_flight=self.max_in_flight
        )


@dataclasses.dataclass(frozen=True)
class ConcurrencySweep(_OneWorkload):
    """Throughput and latency from one user to a thousand, on each arm."""

    arms: str = param("primary-only,replicas-round-robin", "where reads go", choices=ARMS, many=True)
    levels: str = param("1,2,5,10,20,50,100,200,500,1000", "numbers of users, ascending")
    rounds: int = param(3, "repetitions of every level on every arm", low=1, high=100)
    step_s: float = param(1.5, "measured seconds of one level in one round", low=0.5, high=3600)
    processes: int = param(1, "load generator processes; each takes its share of the load", low=1, high=256)
    up_to_nodes: int = param(8, "nodes up to which the model is extrapolated", low=2, high=64)

    def conflicts(self) -> list[str]:
        found = super().conflicts() + self._without_replicas(self.arms)
        levels = self.user_levels
        if not levels:
            found.append(f"levels: {self.levels!r} must be whole numbers from 1 up, as in 1,10,100")
        elif len(levels) < 4 or any(a >= b for a, b in itertools.pairwise(levels)):
            found.append(f"levels: {self.levels!r} must be at least four numbers that ascend, for a model to fit")
        elif self.processes > min(levels):
            found.append(f"processes: {self.processes} load generators cannot share {min(levels)} users")
        return found + too_many_processes(self.processes, connections=self.connections)

    @property
    def user_levels(self) -> list[int]:
        """The levels as numbers; empty if one is none."""
        words = as_list(self.levels)
        return [int(word) for word in words] if all(w.isdecimal() and int(w) > 0 for w in words) else []


@dataclasses.dataclass(frozen=True)
class MeasuringHonestly(_OneWorkload):
    """What a closed loop does not see, and how much a comparison can be trusted."""

    # A server is restarted and stopped for a moment: only those that labkit owns.
    provider: str = param("embedded", "where the servers come from", choices=OWNING_PROVIDERS)
    users: int = param(100_000, "rows of the users table", low=100, high=100_000_000)
    vus: int = param(16, "users of the closed loop", low=1, high=100_000)
    rate: float = param(1500.0, "requests a second of the open workload", low=1, high=1e6)
    block_s: float = param(5.0, "measured seconds of the blocks in which the server stalls", low=2, high=600)
    stall_s: float = param(0.5, "how long the server stands still in the middle of such a block", low=0.05, high=60)
    little_levels: str = param("1,4,16,64", "numbers of users for which Little's law is checked")
    comparisons: int = param(40, "comparisons of the server with itself", low=2, high=1000)
    pairs: int = param(5, "paired rounds of each of them", low=3, high=100)
    pair_block_s: float = param(0.25, "measured seconds of each side of such a pair", low=0.1, high=60)

    def conflicts(self) -> list[str]:
        found = super().conflicts()
        if self.stall_s > self.block_s / 2:
            found.append(f"stall_s: {self.stall_s:g} s is more than half of a block; raise block_s or lower stall_s")
        if self.timeout_s <= self.stall_s:
            found.append(
                f"timeout_s: {self.timeout_s:g} s would end the requests that stand still for {self.stall_s:g} s"
            )
        words = as_list(self.little_levels)
        if not words or not all(w.isdecimal() and int(w) > 0 for w in words) or len(set(words)) < len(words):
            found.append(f"little_levels: {self.little_levels!r} must be different whole numbers, as in 1,4,16")
        return found
