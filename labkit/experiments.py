"""The composer: each function takes validated parameters, drives one experiment and returns its run."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from labkit import dataset, environment, project, providers, routing
from labkit.cluster import Cluster, Node
from labkit.config import ReadScaling, StreamingReplication, as_list
from labkit.errors import BadInput, LabkitError
from labkit.lab import open_run
from labkit.load.arrivals import Closed
from labkit.load.shards import Generators, LoadInterrupted, stop_file
from labkit.load.spec import LoadResult, LoadSpec, Target
from labkit.progress import Progress
from labkit.providers.base import ClusterSpec
from labkit.sampling.sampler import Sampler
from labkit.store import Run, RunStore
from labkit.workloads import Workload, workload

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


def recorded(run_id: str, experiment: str) -> Run:
    """A recorded run of one experiment.

    Raises RunNotFound, RunUnreadable; BadInput if it is a run of another experiment.
    """
    run = open_run(run_id)
    if run.experiment != experiment:
        raise BadInput(f"run_id: {run.id} is a run of {run.experiment}, not of {experiment}")
    return run


def read_scaling(parameters: ReadScaling) -> Run:
    """Measure read loads against the primary only and against the replicas, in interleaved rounds.

    Brings the cluster up, seeds it, runs every block and leaves the cluster as it found it (`keep_cluster` keeps it
    running). With `run_id` nothing is driven: the recorded run is returned. Raises LabkitError; the run is then
    marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p.run_id, "read-scaling")
    with new_run("read-scaling", p.as_dict()) as run, cluster_for(p, run) as cluster:
        data = dataset.DatasetSpec(p.users, p.locale, p.seed)
        arms = as_list(p.arms)
        nodes = {arm: routing.nodes_for(arm, cluster) for arm in arms}
        check_connections(nodes.values(), p.connections)
        with Generators() as generators:
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
                for number, (name, arm, r) in enumerate(blocks):
                    spec = load_spec(p, run, number, workload(name, data, hit_ratio=p.hit_ratio), nodes[arm])
                    facts = {"block": number, "workload": name, "arm": arm, "round": r}
                    drive(run, generators, spec, facts, bar, number)
            run.update(
                replication_after=cluster.replication(), not_measured=sampler.not_measured, sampler=sampler.summary()
            )
            run.mark("measured")
    return run


def load_spec(p: ReadScaling, run: Run, block: int, load: Workload, nodes: Sequence[Node]) -> LoadSpec:
    """The load of one block: `p.connections` to each of `nodes`."""
    return LoadSpec(
        workload=load,
        targets=tuple(Target(node.name, node.conninfo("app")) for node in nodes),
        arrivals=Closed(p.vus),
        connections=p.connections,
        duration_s=p.block_s,
        warmup_s=p.warmup_s,
        timeout_s=p.timeout_s,
        seed=p.seed + block,
        part=run.part("ops", f"block-{block:04d}"),
        block=block,
        epoch_ns=run.epoch_ns,
        stop_file=stop_file(run.path),
    )


def drive(
    run: Run, generators: Generators, spec: LoadSpec, facts: dict[str, object], bar: Progress, number: int
) -> None:
    """Run one block and note it in run.json, also when it was interrupted."""
    length = spec.warmup_s + spec.duration_s
    began = time.monotonic()

    def show() -> None:
        bar.update(number * length + min(time.monotonic() - began, length))

    def note(results: Sequence[LoadResult]) -> None:
        for result in results:
            load = dataclasses.asdict(result)
            load["generator_cpu_percent"] = load.pop("cpu_percent")
            block = facts | {
                "nodes": [target.name for target in spec.targets],
                "connections": {target.name: spec.connections for target in spec.targets},
                "vus": spec.arrivals.users if isinstance(spec.arrivals, Closed) else None,
            }
            run.update(blocks=[*run.blocks, block | load])

    try:
        note(generators.run([spec], show))
    except LoadInterrupted as interrupt:
        note(interrupt.results)
        raise
    finally:
        if spec.stop_file is not None:
            spec.stop_file.unlink(missing_ok=True)
    bar.update((number + 1) * length)


@contextlib.contextmanager
def new_run(experiment: str, parameters: dict[str, object]) -> Iterator[Run]:
    """A run directory that ends as complete, or as failed with the reason."""
    run = RunStore(project.runs()).create(experiment, parameters, **environment.facts())
    try:
        yield run
    except BaseException as error:
        problem = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        run.mark("failed", problem)
        if isinstance(error, LabkitError):
            error.add_note(f"What was measured is kept in {run.path} (status: failed).")
        raise
    run.mark("complete")


@contextlib.contextmanager
def cluster_for(p: ReadScaling | StreamingReplication, run: Run) -> Iterator[Cluster]:
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
        _keep_logs(cluster, run.path / "logs")
        if not (found_running or p.keep_cluster):
            provider.down(p.cluster)


def _keep_logs(cluster: Cluster, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for node in cluster.nodes:
        (folder / f"{node.name}.log").write_text(node.control.log_tail(10_000), encoding="utf-8")


def check_connections(groups: object, connections: int) -> None:
    """Refuse before any load what a server's max_connections does not allow. Raises BadInput."""
    nodes = {node.name: node for group in groups for node in group}  # type: ignore[attr-defined]
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
