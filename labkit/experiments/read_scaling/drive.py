"""The composer: each function takes validated parameters, drives one experiment and returns its run."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Executor

from labkit.experiments.parameters import as_list, as_stages
from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.experiments.stage import CATCHUP_S, check_connections, cluster_of, new_run, recorded
from labkit.lab import dataset, routing
from labkit.lab.load.arrivals import Arrivals, Closed, Open
from labkit.lab.load.blocks import Blocks
from labkit.lab.load.shards import Generators
from labkit.lab.sampling.sampler import Sampler
from labkit.lab.workloads import workload
from labkit.progress import Progress
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
        return recorded(p.run_id, "read-scaling")
    with new_run("read-scaling", p.as_dict()) as run, cluster_of(p, run) as cluster:
        data = dataset.DatasetSpec(p.users, p.locale, p.seed)
        arms = as_list(p.arms)
        nodes = {arm: routing.nodes_for(arm, cluster) for arm in arms}
        check_connections(nodes.values(), p.connections)
        with Generators(p.processes, executor) as generators:
            seeded = dataset.seed(cluster, data)
            run.update(dataset=dataclasses.asdict(seeded), replication=cluster.replication())
            cluster.wait_for_catchup(CATCHUP_S)
            sampler = Sampler(cluster.nodes, run, p.sample_interval_s, pids={"generator": generators.pids})
            blocks = [
                (name, arm, r)
                for name in as_list(p.workloads)
                for r in range(p.rounds)
                for arm in (arms if r % 2 == 0 else arms[::-1])
            ]
            bar = Progress("measuring", len(blocks) * (p.warmup_s + p.block_s), "s")
            with sampler, bar:
                driven = Blocks(run, generators, bar, p)
                for name, arm, r in blocks:
                    load = workload(name, data, hit_ratio=p.hit_ratio)
                    facts = {"workload": name, "arm": arm, "round": r}
                    driven.drive(load, nodes[arm], arrivals_of(p), p.block_s, facts)
            run.update(
                replication_after=cluster.replication(), not_measured=sampler.not_measured, sampler=sampler.summary()
            )
            run.mark("measured")
    return run


def arrivals_of(p: ReadScaling) -> Arrivals:
    """Users who wait for answers, or requests at a rate."""
    stages = as_stages(p.stages)
    if p.rate:
        return Open(p.rate, "poisson" if p.arrival == "poisson" else "constant", p.max_in_flight, stages)
    return Closed(p.vus, p.think_s, stages)
