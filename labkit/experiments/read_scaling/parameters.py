"""Parameters of the experiments about reading from replicas, and about replication itself."""

from __future__ import annotations

import math
from typing import Annotated

from labkit.experiments.parameters import param
from labkit.experiments.shared import InRounds, ReadArm, too_many_processes
from labkit.experiments.values import Several, Written, joined
from labkit.lab.load.arrivals import ArrivalKind, Stage, parse_stages
from labkit.lab.routing.arms import PRIMARY_ONLY, PRIMARY_ONLY_MORE, REPLICAS, Arm
from labkit.names import GET_USER, SEARCH_USERS, ReadWorkload
from labkit.units import count


class ReadScaling(InRounds):
    """Read load against the primary only and against the replicas, in interleaved rounds."""

    experiment = "read-scaling"

    workloads: Several[ReadWorkload] = param(joined((GET_USER, SEARCH_USERS)), "which loads to run")
    arms: Several[ReadArm] = param(joined((PRIMARY_ONLY, REPLICAS, PRIMARY_ONLY_MORE)), "where reads go")
    vus: int = param(
        1000, "virtual users, each waiting for its answer before it asks again; 0 with a rate", low=0, high=100_000
    )
    think_s: float = param(0.0, "seconds that a user thinks between an answer and the next request", low=0, high=600)
    rate: float = param(
        0.0, "requests per second, due whether or not earlier ones were answered; 0 with users", low=0, high=1e6
    )
    arrival: ArrivalKind = param("poisson", "how the requests of a rate are spaced")
    max_in_flight: int = param(
        10_000, "requests of a rate under way at once; what would exceed it is counted as dropped", low=1, high=1e6
    )
    stages: Annotated[tuple[Stage, ...], Written(parse_stages, joined)] = param(
        "", "change of users or rate in every block, as value:seconds,…: 100:10,500:30 ramps to 100 in 10 s; 0 s steps"
    )
    processes: int = param(1, "load generator processes; each takes its share of the load", low=1, high=256)
    hit_ratio: float = param(
        0.0, "share of searches for names that exist; the original searched for none", low=0, high=1
    )
    duration_s: float = param(
        18.0, "measured seconds of each workload on each arm, all rounds together", low=1, high=86_400
    )
    rounds: int = param(6, "paired rounds; order alternates A B, B A, …", low=1, high=1000)

    def conflicts(self) -> list[str]:
        found = super().conflicts()
        if self.duration_s / self.rounds < 0.5:
            found.append(
                f"rounds: {count(self.rounds, 'round')} of {self.duration_s / self.rounds:.2g} s: too short to "
                f"measure; at least 0.5 s per round, so raise duration_s to {self.rounds * 0.5:g} or lower rounds"
            )
        return found + self._load_conflicts()

    def _load_conflicts(self) -> list[str]:
        found = []
        if self.rate and self.vus:
            found.append(
                f"rate: {self.rate:g} requests per second and vus: {self.vus} exclude each other; "
                "set vus to 0 for an open workload, or rate to 0 for a closed one"
            )
        if not self.rate and not self.vus:
            found.append("vus: 0 users and rate: 0 requests per second ask for nothing; set one of them")
        if self.rate and self.think_s:
            found.append(f"think_s: {self.think_s:g} s, but at a rate there are no users who think; set it to 0")
        among = {"max_in_flight": self.max_in_flight} if self.rate else {"vus": self.vus}
        found += too_many_processes(self.processes, **among)
        length_s = sum(stage.seconds for stage in self.stages)
        whole_s = self.warmup_s + self.duration_s / self.rounds
        if length_s > whole_s:
            found.append(
                f"stages: they take {length_s:g} s, but a block ends after {whole_s:g} s (warm-up included); "
                f"raise duration_s to {math.ceil((length_s - self.warmup_s) * self.rounds):g}"
            )
        return found

    @property
    def measured(self) -> tuple[Arm, ...]:
        return self.arms

    @property
    def generators(self) -> int:
        return self.processes

    @property
    def block_s(self) -> float:
        """Measured seconds of one block: one workload on one arm in one round."""
        return self.duration_s / self.rounds
