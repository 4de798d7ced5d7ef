"""Parameters of concurrency-sweep."""

from __future__ import annotations

import dataclasses
import itertools

from labkit.experiments.parameters import as_list, param
from labkit.experiments.shared import ARMS, _OneWorkload, too_many_processes


@dataclasses.dataclass(frozen=True)
class ConcurrencySweep(_OneWorkload):
    """Throughput and latency from one user to a thousand, on each arm."""

    experiment = "concurrency-sweep"

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
