"""Parameters of concurrency-sweep."""

from __future__ import annotations

import itertools

from labkit.experiments.parameters import param
from labkit.experiments.shared import InRounds, OneWorkload, ReadArm, Users
from labkit.experiments.values import Several, joined
from labkit.lab.routing.arms import PRIMARY_ONLY, REPLICAS, Arm
from labkit.units import count


class ConcurrencySweep(OneWorkload, InRounds):
    """Throughput and latency from one user to a thousand, on each arm."""

    experiment = "concurrency-sweep"

    arms: Several[ReadArm] = param(joined((PRIMARY_ONLY, REPLICAS)), "where reads go")
    levels: Several[Users] = param("1,2,5,10,20,50,100,200,500,1000", "numbers of users, ascending")
    rounds: int = param(3, "repetitions of every level on every arm", low=1, high=100)
    step_s: float = param(1.5, "measured seconds of one level in one round", low=0.5, high=3600)
    processes: int = param(1, "load generator processes; each takes its share of the load", low=1, high=256)
    up_to_nodes: int = param(8, "nodes up to which the model is extrapolated", low=2, high=64)

    def conflicts(self) -> list[str]:
        found = super().conflicts()
        if len(self.levels) < 4 or any(a >= b for a, b in itertools.pairwise(self.levels)):
            found.append(
                f"levels: {joined(self.levels)!r} must be at least four numbers that ascend, for a model to fit"
            )
        elif self.processes > min(self.levels):
            found.append(f"processes: {self.processes} load generators cannot share {count(min(self.levels), 'user')}")
        return found

    @property
    def measured(self) -> tuple[Arm, ...]:
        return self.arms

    @property
    def generators(self) -> int:
        return self.processes
