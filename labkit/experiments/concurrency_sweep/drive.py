"""Throughput and latency from one user to a thousand, on each arm."""

from __future__ import annotations

from concurrent.futures import Executor

from labkit.experiments.concurrency_sweep.parameters import ConcurrencySweep
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
    seconds = len(p.arms) * len(p.levels) * p.rounds * (p.warmup_s + p.step_s)
    with (
        on_cluster(p) as (run, cluster),
        reading(p, run, cluster, p.arms, seconds, p.processes, executor) as reads,
    ):
        load = workload(p.workload, reads.data)
        for r in range(p.rounds):
            back = r % 2 == 1  # so that neither an arm nor a level always comes first
            for users in p.levels[::-1] if back else p.levels:
                for arm in p.arms[::-1] if back else p.arms:
                    cell = Cell(workload=p.workload, arm=str(arm), round=r)
                    reads.blocks.drive(load, reads.serving[arm], Closed(users), p.step_s, cell)
    return run
