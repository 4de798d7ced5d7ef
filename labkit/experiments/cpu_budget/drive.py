"""Do replicas add throughput, or CPU? One load on 1 … all nodes, with CPU shared and with a budget for each node."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

from labkit.errors import ClusterError
from labkit.experiments.cpu_budget.parameters import Budget, CpuBudget
from labkit.experiments.interventions import intervene
from labkit.experiments.read_scaling.drive import arrivals_of
from labkit.experiments.rounds import Planned, measure
from labkit.experiments.stage import on_cluster, reading, recorded
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.powers import Limitable
from labkit.lab.routing.arms import Arm
from labkit.lab.workloads import workload
from labkit.names import ReadWorkload
from labkit.run.schema import Cell
from labkit.run.store import Run


def cpu_budget(parameters: CpuBudget) -> Run:
    """Measure every arm under every CPU budget, in interleaved rounds.

    All arms have the same number of connections in all. The budget is changed between blocks, on running servers, and
    lifted at the end. A block's `workload` names its budget too: `get-user, 0.25 CPU each`. With `run_id` nothing is
    driven: the recorded run is returned. Raises LabkitError; the run is then marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p)
    order = _order(p)
    seconds = len(order) * (p.warmup_s + p.block_s) + p.interventions_s
    with (
        on_cluster(p) as (run, cluster),
        _limited(cluster) as limit,
        reading(p, run, cluster, p.arms, seconds, p.processes) as reads,
    ):
        loads = {name: workload(name, reads.data, hit_ratio=p.hit_ratio) for name in p.workloads}
        plan = []
        for name, budget, arm, r in order:
            cpus = p.node_cpus if budget == "limited" else None
            cell = Cell(workload=labelled(name, cpus), arm=str(arm), round=r, budget=budget, node_cpus=cpus)
            before = functools.partial(limit, cpus)
            plan.append(Planned(cell, loads[name], reads.serving[arm], arrivals_of(p), p.block_s, before))
        measure(reads, plan, p)
        intervene(reads, plan, p)
    return run


def labelled(workload_name: str, cpus: float | None) -> str:
    """A workload under a budget, as frames and figures name it."""
    return f"{workload_name}, CPU shared" if cpus is None else f"{workload_name}, {cpus:g} CPU each"


def _order(p: CpuBudget) -> list[tuple[ReadWorkload, Budget, Arm, int]]:
    """Workload, budget, arm and round of every block: budgets and arms in alternating order."""
    return [
        (name, budget, arm, r)
        for name in p.workloads
        for r in range(p.rounds)
        for budget in (p.budgets if r % 2 == 0 else p.budgets[::-1])
        for arm in (p.arms if r % 2 == 0 else p.arms[::-1])
    ]


@contextlib.contextmanager
def _limited(cluster: Cluster) -> Iterator[Callable[[float | None], None]]:
    """Sets the CPUs that each node may use. There is no limit to begin with, nor afterwards."""

    def limit(cpus: float | None) -> None:
        for node in cluster.nodes:
            if isinstance(node.control, Limitable):
                node.control.limit(cpus)
            elif cpus is not None:
                raise ClusterError(f"its CPU cannot be limited by provider {cluster.provider}", node=node.name)

    limit(None)
    try:
        yield limit
    finally:
        limit(None)
