"""What every experiment needs around it: its run directory, its cluster, and a check of what servers allow."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

from labkit import paths
from labkit.errors import BadInput, ClusterError, LabkitError, RunError, WaitTimeout
from labkit.experiments.concurrency_sweep.parameters import ConcurrencySweep
from labkit.experiments.max_throughput.parameters import MaxThroughput
from labkit.experiments.measuring_honestly.parameters import MeasuringHonestly
from labkit.experiments.shared import SPARE_CONNECTIONS
from labkit.lab import dataset, environment, providers, routing
from labkit.lab.cluster import synchronize
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.load.blocks import Blocks
from labkit.lab.load.shards import Generators
from labkit.lab.providers.embedded import state
from labkit.lab.providers.protocol import ClusterSpec
from labkit.lab.sampling.sampler import Sampler
from labkit.lab.workloads import workload
from labkit.lab.workloads.base import Workload
from labkit.progress import Progress
from labkit.run.store import Run, RunStore, open_run

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


@contextlib.contextmanager
def new_run(experiment: str, parameters: dict[str, object]) -> Iterator[Run]:
    """A run directory that ends as complete, or as failed with the reason."""
    with driving(RunStore(paths.runs()).create(experiment, parameters, **environment.facts())) as run:
        yield run


@contextlib.contextmanager
def driving(run: Run) -> Iterator[Run]:
    """Hold a run, new or cut off before, and end it as complete, or as failed with the reason.

    Raises RunError if another process drives it.
    """
    with run.driven():
        if run.status != "started":
            run.mark("started")
        try:
            yield run
        except BaseException as error:
            problem = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            run.mark("failed", problem)
            kept = f"What was measured is kept in {run.path} (status: failed)."
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                full = f"the disk that holds {run.path} is full; free some space and run again. {kept}"
                raise RunError(full) from error
            if isinstance(error, LabkitError):
                error.add_note(kept)
            raise
        run.mark("complete")


@contextlib.contextmanager
def alone_on(provider: str, cluster: str) -> Iterator[None]:
    """Keep other experiments off a cluster. Raises ClusterError if one is there.

    Attached servers are not the lab's to reserve.
    """
    with contextlib.ExitStack() as held:
        if provider != "attach":
            try:
                held.enter_context(state.locked(paths.clusters(), f"{cluster}.{provider}.experiment", 0))
            except WaitTimeout as error:
                raise ClusterError(
                    f"another experiment uses cluster {cluster} now; wait for its end, or give this one a cluster of "
                    "its own (cluster=NAME)"
                ) from error
        yield


@contextlib.contextmanager
def cluster_of(p: ClusterTerms, run: Run) -> Iterator[Cluster]:
    """The cluster, up; taken down afterwards if this run brought it up and need not keep it."""
    with alone_on(p.provider, p.cluster), _cluster_of(p, run) as cluster:
        yield cluster


@contextlib.contextmanager
def _cluster_of(p: ClusterTerms, run: Run) -> Iterator[Cluster]:
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
        if connections + SPARE_CONNECTIONS > allowed:
            problems.append(
                f"connections: {connections} to {node.name} and {SPARE_CONNECTIONS} to spare need max_connections of "
                f"at least {connections + SPARE_CONNECTIONS}, it is {allowed} there"
            )
    if problems:
        raise BadInput(problems)


@contextlib.contextmanager
def replication_restored(cluster: Cluster) -> Iterator[None]:
    """What commits waited for before, they wait for again afterwards; not after an error, nor with a node down."""
    with cluster.primary().session() as connection:
        before = synchronize.current(connection)
    yield
    if all(node.control.running() for node in cluster.nodes):
        cluster.synchronous(before.mode, before.k, before.level)


@dataclasses.dataclass
class _Stage:
    """A run with everything that its blocks need."""

    run: Run
    cluster: Cluster
    load: Workload
    blocks: Blocks


@contextlib.contextmanager
def _stage(
    name: str,
    p: MaxThroughput | ConcurrencySweep | MeasuringHonestly,
    arms: list[str],
    seconds: float,
    processes: int = 1,
    executor: Executor | None = None,
) -> Iterator[_Stage]:
    """A run with its cluster up and seeded, its generators and sampler running, and a bar of so many seconds."""
    with new_run(name, p.as_dict()) as run, cluster_of(p, run) as cluster:
        check_connections([routing.nodes_for(arm, cluster) for arm in arms], p.connections)
        data = dataset.DatasetSpec(p.users, p.locale, p.seed)
        with Generators(processes, executor) as generators:
            seeded = dataset.seed(cluster, data)
            run.update(dataset=dataclasses.asdict(seeded), replication=cluster.replication())
            cluster.wait_for_catchup(CATCHUP_S)
            sampler = Sampler(cluster.nodes, run, p.sample_interval_s, pids={"generator": generators.pids})
            with sampler, Progress("measuring", seconds, "s") as bar:
                yield _Stage(run, cluster, workload(p.workload, data), Blocks(run, generators, bar, p))
            run.update(not_measured=sampler.not_measured, sampler=sampler.summary())
            run.mark("measured")
