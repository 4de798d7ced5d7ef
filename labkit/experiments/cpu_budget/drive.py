"""Do replicas add throughput, or CPU? One load on 1 … all nodes, with CPU shared and with a budget for each node."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from labkit.errors import ClusterError
from labkit.experiments.cpu_budget.parameters import CpuBudget
from labkit.experiments.parameters import as_list
from labkit.experiments.read_scaling.drive import arrivals_of
from labkit.experiments.stage import CATCHUP_S, check_connections, cluster_of, new_run, recorded
from labkit.lab import dataset, routing
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Limitable
from labkit.lab.load.blocks import Blocks
from labkit.lab.load.shards import Generators
from labkit.lab.sampling.sampler import Sampler
from labkit.lab.workloads import workload
from labkit.progress import Progress
from labkit.run.store import Run


def cpu_budget(parameters: CpuBudget) -> Run:
    """Measure every arm under every CPU budget, in interleaved rounds.

    All arms use the same number of connections in all. The budget is changed between blocks, on running servers, and
    lifted at the end. A block's `workload` names its budget too: `get-user, 0.25 CPU each`. With `run_id` nothing is
    driven: the recorded run is returned. Raises LabkitError; the run is then marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p.run_id, "cpu-budget")
    with new_run("cpu-budget", p.as_dict()) as run, cluster_of(p, run) as cluster:
        data = dataset.DatasetSpec(p.users, p.locale, p.seed)
        arms = {arm: routing.nodes_for(arm, cluster) for arm in as_list(p.arms)}
        check_connections(arms.values(), p.connections)
        with Generators(p.processes) as generators:
            _limit(cluster, None)
            seeded = dataset.seed(cluster, data)
            run.update(dataset=dataclasses.asdict(seeded), replication=cluster.replication())
            cluster.wait_for_catchup(CATCHUP_S)
            sampler = Sampler(cluster.nodes, run, p.sample_interval_s, pids={"generator": generators.pids})
            blocks = _plan(p, list(arms))
            bar = Progress("measuring", len(blocks) * (p.warmup_s + p.block_s), "s")
            try:
                with sampler, bar:
                    driven = Blocks(run, generators, bar, p)
                    for name, budget, arm, r in blocks:
                        cpus = p.node_cpus if budget == "limited" else None
                        _limit(cluster, cpus)
                        load = workload(name, data, hit_ratio=p.hit_ratio)
                        facts = {"workload": labelled(name, cpus), "arm": arm, "round": r}
                        facts |= {"budget": budget, "node_cpus": cpus}
                        driven = driven.on_terms(_shared_out(p, arms[arm]))
                        driven.drive(load, arms[arm], arrivals_of(p), p.block_s, facts)
            finally:
                _limit(cluster, None)
            run.update(
                replication_after=cluster.replication(), not_measured=sampler.not_measured, sampler=sampler.summary()
            )
            run.mark("measured")
    return run


def labelled(workload_name: str, cpus: float | None) -> str:
    """A workload under a budget, as frames and figures name it."""
    return f"{workload_name}, CPU shared" if cpus is None else f"{workload_name}, {cpus:g} CPU each"


def _plan(p: CpuBudget, arms: Sequence[str]) -> list[tuple[str, str, str, int]]:
    """Workload, budget, arm and round of every block: budgets and arms in alternating order."""
    budgets = as_list(p.budgets)
    return [
        (name, budget, arm, r)
        for name in as_list(p.workloads)
        for r in range(p.rounds)
        for budget in (budgets if r % 2 == 0 else budgets[::-1])
        for arm in (arms if r % 2 == 0 else arms[::-1])
    ]


def _shared_out(p: CpuBudget, nodes: Sequence[Node]) -> CpuBudget:
    # Whole numbers of connections: of 32 for three nodes two stay unused.
    return dataclasses.replace(p, connections=p.connections // len(nodes))


def _limit(cluster: Cluster, cpus: float | None) -> None:
    for node in cluster.nodes:
        if isinstance(node.control, Limitable):
            node.control.limit(cpus)
        elif cpus is not None:
            raise ClusterError(f"its CPU cannot be limited by provider {cluster.provider}", node=node.name)
