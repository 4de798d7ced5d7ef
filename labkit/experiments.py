"""The composer: each function takes validated parameters, drives one experiment and returns its run."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

from labkit import dataset, environment, project, providers, routing
from labkit.blocks import Blocks
from labkit.cluster import Cluster, Node
from labkit.config import ReadScaling, as_list, as_stages
from labkit.errors import BadInput, LabkitError, RunError
from labkit.lab import open_run
from labkit.load.arrivals import Arrivals, Closed, Open
from labkit.load.shards import Generators
from labkit.progress import Progress
from labkit.providers.base import ClusterSpec
from labkit.sampling.sampler import Sampler
from labkit.store import Run, RunStore
from labkit.workloads import workload

_SETTINGS = (
    "shared_buffers",
    "max_connections",
    "wal_level",
    "wal_keep_size",
    "synchronous_commit",
    "synchronous_standby_names",
    "fsync",
    "full_page_writes",
    "hot_standby_feedback",
    "jit",
)
_SPARE_CONNECTIONS = 10  # for the sampler, replication and whoever looks on
CATCHUP_S = 60.0


class ClusterTerms(Protocol):
    """The parameters that say which servers an experiment needs."""

    @property
    def provider(self) -> str: ...
    @property
    def cluster(self) -> str: ...
    @property
    def replicas(self) -> int: ...
    @property
    def keep_cluster(self) -> bool: ...


def recorded(run_id: str, experiment: str) -> Run:
    """A recorded run of one experiment.

    Raises RunNotFound, RunUnreadable; BadInput if it is a run of another experiment.
    """
    run = open_run(run_id)
    if run.experiment != experiment:
        raise BadInput(f"run_id: {run.id} is a run of {run.experiment}, not of {experiment}")
    return run


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


@contextlib.contextmanager
def new_run(experiment: str, parameters: dict[str, object]) -> Iterator[Run]:
    """A run directory that ends as complete, or as failed with the reason."""
    run = RunStore(project.runs()).create(experiment, parameters, **environment.facts())
    try:
        yield run
    except BaseException as error:
        problem = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        run.mark("failed", problem)
        kept = f"What was measured is kept in {run.path} (status: failed)."
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(f"the disk that holds {run.path} is full; free some space and run again. {kept}") from error
        if isinstance(error, LabkitError):
            error.add_note(kept)
        raise
    run.mark("complete")


@contextlib.contextmanager
def cluster_of(p: ClusterTerms, run: Run) -> Iterator[Cluster]:
    """The cluster, up; taken down afterwards if this run brought it up and need not keep it."""
    provider = providers.provider(p.provider)
    before = provider.find(p.cluster)
    found_running = before is not None and any(node.control.running() for node in before.nodes)
    cluster = provider.up(ClusterSpec(name=p.cluster, replicas=p.replicas))
    try:
        run.update(
            provider=p.provider,
            cluster=cluster.name,
            postgresql={"version": cluster.version, "binaries": environment.place(cluster.binaries)},
            nodes=[
                {"name": node.name, "role": node.role(), "settings": node.settings(_SETTINGS)} for node in cluster.nodes
            ],
        )
        yield cluster
    finally:
        try:
            _keep_logs(cluster, run.path / "logs")
        finally:
            if not (found_running or p.keep_cluster):
                provider.down(p.cluster)


def _keep_logs(cluster: Cluster, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for node in cluster.nodes:
        (folder / f"{node.name}.log").write_text(node.control.log_tail(10_000), encoding="utf-8")


def check_connections(groups: Iterable[Sequence[Node]], connections: int) -> None:
    """Refuse before any load what a server's max_connections does not allow. Raises BadInput."""
    nodes = {node.name: node for group in groups for node in group}
    problems = []
    for node in nodes.values():
        allowed = int(node.settings(["max_connections"])["max_connections"])
        if connections + _SPARE_CONNECTIONS > allowed:
            problems.append(
                f"connections: {connections} to {node.name} and {_SPARE_CONNECTIONS} to spare need max_connections of "
                f"at least {connections + _SPARE_CONNECTIONS}, it is {allowed} there"
            )
    if problems:
        raise BadInput(problems)
