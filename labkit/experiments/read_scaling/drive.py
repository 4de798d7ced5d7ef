"""Reads against the primary only and against the replicas, in interleaved rounds."""

from __future__ import annotations

from concurrent.futures import Executor

from labkit.experiments.interventions import intervene
from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.experiments.rounds import Planned, measure
from labkit.experiments.stage import on_cluster, reading, recorded
from labkit.lab.load.arrivals import Arrivals, Closed, Open
from labkit.lab.workloads import workload
from labkit.run.schema import Cell
from labkit.run.store import Run


def read_scaling(parameters: ReadScaling, executor: Executor | None = None) -> Run:
    """Measure read loads against the primary only and against the replicas, in interleaved rounds.

    Brings the cluster up, seeds it, runs every block and leaves the cluster as it found it (`keep_cluster` keeps it
    running). With `run_id` nothing is driven: the recorded run is returned. The load comes from `processes` on this
    machine, or from as many workers of an `executor`. Raises LabkitError; the run is then marked failed and keeps
    what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p)
    order = [
        (name, arm, r)
        for name in p.workloads
        for r in range(p.rounds)
        for arm in (p.arms if r % 2 == 0 else p.arms[::-1])
    ]
    seconds = len(order) * (p.warmup_s + p.block_s) + p.interventions_s
    with (
        on_cluster(p) as (run, cluster),
        reading(p, run, cluster, p.arms, seconds, p.processes, executor) as reads,
    ):
        loads = {name: workload(name, reads.data, hit_ratio=p.hit_ratio) for name in p.workloads}
        plan = [
            Planned(
                Cell(workload=name, arm=str(arm), round=r), loads[name], reads.serving[arm], arrivals_of(p), p.block_s
            )
            for name, arm, r in order
        ]
        measure(reads, plan, p)
        intervene(reads, plan, p)
    return run


def arrivals_of(p: ReadScaling) -> Arrivals:
    """Users who wait for answers, or requests at a rate."""
    if p.rate:
        return Open(p.rate, p.arrival, p.max_in_flight, p.stages)
    return Closed(p.vus, p.think_s, p.stages)
