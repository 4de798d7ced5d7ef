"""Throughput and latency from one user to a thousand, on each arm."""

from __future__ import annotations

from concurrent.futures import Executor

from labkit.experiments.concurrency_sweep.parameters import ConcurrencySweep
from labkit.experiments.interventions import intervene
from labkit.experiments.rounds import Planned, measure
from labkit.experiments.stage import on_cluster, reading, recorded
from labkit.lab.load.arrivals import Closed
from labkit.lab.workloads import workload
from labkit.run.schema import Cell
from labkit.run.store import Run


def concurrency_sweep(parameters: ConcurrencySweep, executor: Executor | None = None) -> Run:
    """Measure a closed load at every number of users on every arm, in rounds that go up and down.

    Raises LabkitError; the run is then marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p)
    seconds = len(p.arms) * len(p.levels) * p.rounds * (p.warmup_s + p.step_s) + p.interventions_s
    with (
        on_cluster(p) as (run, cluster),
        reading(p, run, cluster, p.arms, seconds, p.processes, executor) as reads,
    ):
        load = workload(p.workload, reads.data)
        plan = [
            Planned(Cell(workload=p.workload, arm=str(arm), round=r), load, reads.serving[arm], Closed(users), p.step_s)
            for r in range(p.rounds)
            # Back in every other round, so that neither an arm nor a level always comes first.
            for users in (p.levels if r % 2 == 0 else p.levels[::-1])
            for arm in (p.arms if r % 2 == 0 else p.arms[::-1])
        ]
        measure(reads, plan, p)
        intervene(reads, plan, p)
    return run
