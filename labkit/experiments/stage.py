"""What every drive does around its own part: the run directory, the servers, the data, the samples.

on_cluster(p)        a new run, on a cluster that may be there already, and may stay
held(p)              the same, for a drive that others go on with later
fresh_clusters(p)    a new run, or one that goes on, with a cluster recreated for every trial
sampled(…)           samples, and who follows whom before and after
accounted(…)         without them: who used this machine's CPU, and no more
reading(p, …)        the users table, load generators, samples and blocks
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor

from labkit import interrupts, paths
from labkit.checkers.comparisons import comparisons
from labkit.checkers.host_cpu import GENERATOR, disturbed
from labkit.errors import BadInput, LabkitError, RunError
from labkit.experiments.shared import SPARE_CONNECTIONS, OnACluster, OnServers, ReadingUsers, too_few_connections
from labkit.lab import dataset, environment, providers, routing
from labkit.lab.cluster import synchronize
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.load.blocks import Blocks
from labkit.lab.load.shards import Generators
from labkit.lab.providers.protocol import ClusterSpec
from labkit.lab.reservation import alone_on
from labkit.lab.routing import Serving
from labkit.lab.routing.arms import Arm
from labkit.lab.sampling.sampler import Sampler
from labkit.progress import Progress
from labkit.remedies import advice
from labkit.run.schema import Follower, Postgresql, Server
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
ACCOUNT_INTERVAL_S = 0.1
"""Between two samples of who uses the machine's CPU, which have to tell apart the parts of a second."""


def recorded(p: OnServers) -> Run:
    """The recorded run that the parameters name.

    Raises RunNotFound, RunUnreadable; BadInput if it is a run of another experiment.
    """
    run = open_run(p.run_id, p.experiment)
    if run.experiment != p.experiment:
        there_are = [name for root in (paths.sample_runs(), paths.runs()) for name in RunStore(root).ids(p.experiment)]
        helps = advice(f"of that one there are: {', '.join(there_are[-5:])}")
        wrong = f"run_id: {run.id} is a run of {run.experiment}, not of {p.experiment}"
        raise BadInput(wrong, remedy=helps if there_are else ())
    return run


def _reserved(p: OnServers) -> contextlib.AbstractContextManager[None]:
    """The cluster for this experiment alone; before there is a run, so that a refusal leaves none."""
    return alone_on(p.provider, p.cluster, "name another with the parameter `cluster`")


def _new(p: OnServers) -> Run:
    return RunStore(paths.runs()).create(p.experiment, p.as_dict(), **environment.facts())


@contextlib.contextmanager
def _driving(run: Run) -> Iterator[Run]:
    """Hold a run, new or cut off before, and end it as complete, or as failed with the reason.

    Raises RunError if another process drives it.
    """
    with run.driven():
        if run.status != "started":
            run.mark("started")
        try:
            yield run
        except BaseException as error:
            by_hand = isinstance(error, KeyboardInterrupt)
            run.mark("failed", interrupts.reason(error) if by_hand else f"{type(error).__name__}: {error}")
            kept = f"What was measured is kept in {run.path} (status: failed)."
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                helps = advice("free some space and run again")
                full = RunError(f"the disk that holds {run.path} is full", remedy=helps)
                full.add_note(kept)
                raise full from error
            if isinstance(error, LabkitError):
                error.add_note(kept)
            raise
        run.mark("complete")


@contextlib.contextmanager
def on_cluster(p: OnACluster) -> Iterator[tuple[Run, Cluster]]:
    """A new run, and the cluster, up; taken down afterwards if it was not running before and need not be kept.

    The run ends as complete, or as failed with the reason. The servers' logs are kept in it. SIGTERM ends it as Ctrl-C
    does, and this process afterwards.
    """
    with interrupts.sigterm(), held(p) as both:
        yield both


@contextlib.contextmanager
def held(p: OnACluster) -> Iterator[tuple[Run, Cluster]]:
    """The same, where SIGTERM is seen to by those who open this."""
    provider = providers.provider(p.provider)
    with _reserved(p), _driving(_new(p)) as run:
        before = provider.find(p.cluster)
        found_running = before is not None and any(node.control.running() for node in before.nodes)
        stays = found_running or p.keep_cluster
        try:
            cluster = provider.up(ClusterSpec(name=p.cluster, replicas=p.replicas))
        except KeyboardInterrupt:
            with interrupts.shielded():
                if not stays:
                    provider.down(p.cluster)
            raise
        try:
            _note_cluster(run, p, cluster)
            yield run, cluster
        finally:
            with interrupts.shielded():
                try:
                    _keep_logs(run, cluster)
                finally:
                    if not stays:
                        provider.down(p.cluster)


@contextlib.contextmanager
def fresh_clusters(p: OnServers, resumed: Run | None = None) -> Iterator[tuple[Run, Callable[[int], Cluster]]]:
    """A run, new unless one that was cut off is given, and what recreates the cluster with so many replicas.

    The run ends as complete, or as failed with the reason. The last cluster is removed at the end, its logs are kept.
    """
    provider = providers.provider(p.provider)
    last: list[Cluster] = []

    def recreate(replicas: int) -> Cluster:
        last.clear()
        provider.down(p.cluster, purge=True)
        last.append(provider.up(ClusterSpec(p.cluster, replicas)))
        if run.record.postgresql is None:
            _note_cluster(run, p, last[0])
        return last[0]

    with interrupts.sigterm(), _reserved(p), _driving(resumed or _new(p)) as run:
        try:
            yield run, recreate
        finally:
            with interrupts.shielded():
                try:
                    for cluster in last:
                        _keep_logs(run, cluster)
                finally:
                    provider.down(p.cluster, purge=True)


def _note_cluster(run: Run, p: OnServers, cluster: Cluster) -> None:
    run.update(
        provider=p.provider,
        cluster=cluster.name,
        postgresql=Postgresql(version=cluster.version, binaries=environment.place(cluster.binaries)),
        nodes=[Server(name=node.name, role=node.role(), settings=node.settings(_SETTINGS)) for node in cluster.nodes],
    )


def _keep_logs(run: Run, cluster: Cluster) -> None:
    for node in cluster.nodes:
        run.keep_log(node.name, node.control.log_tail(10_000))


def _check_connections(asked: int, arms: Mapping[Arm, Serving], generators: int) -> None:
    """Refuse before any load connections that are too few to share out, or more than a server allows.

    `asked`: the parameter. Raises BadInput.
    """
    shared_out = {arm: (serving.connections, len(serving.nodes)) for arm, serving in arms.items()}
    problems = too_few_connections(asked, shared_out, generators)
    most: dict[str, tuple[int, Arm, Node]] = {}
    for arm, serving in arms.items():
        for node, count in serving.by_node:
            if count > most.get(node.name, (0,))[0]:
                most[node.name] = count, arm, node
    for count, arm, node in most.values():
        allowed = int(node.settings(["max_connections"])["max_connections"])
        if count + SPARE_CONNECTIONS > allowed:
            problems.append(
                f"connections: {asked} are {count} to {node.name} in {arm}; these and {SPARE_CONNECTIONS} to spare "
                f"need max_connections of at least {count + SPARE_CONNECTIONS}, it is {allowed} there"
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


@contextlib.contextmanager
def sampled(run: Run, cluster: Cluster, interval_s: float, generators: Sequence[int]) -> Iterator[Sampler]:
    """Servers, host and load generators (their pids) are sampled; who follows whom is noted before and after."""
    run.update(replication=_followers(cluster))
    with _accounting(run, Sampler(cluster.nodes, run, interval_s, pids={GENERATOR: generators})) as sampler:
        yield sampler
    run.update(replication_after=_followers(cluster), not_measured=sampler.not_measured, sampler=sampler.summary())


def accounted(run: Run, cluster: Cluster, generators: Sequence[int] = ()) -> contextlib.AbstractContextManager[Sampler]:
    """Only who uses this machine's CPU is sampled; blocks that are noted meanwhile say so afterwards."""
    sampler = Sampler(cluster.nodes, run, ACCOUNT_INTERVAL_S, pids={GENERATOR: generators}, cpu_only=True)
    return _accounting(run, sampler)


@contextlib.contextmanager
def _accounting(run: Run, sampler: Sampler) -> Iterator[Sampler]:
    """What every block of every experiment goes through: it is sampled, and then says who used this machine's CPU."""
    with sampler:
        try:
            yield sampler
        finally:
            note_host_cpu(run, sampler)


def note_host_cpu(run: Run, sampler: Sampler) -> None:
    """Note in every block so far who used this machine's CPU, and whether other programs disturbed it."""
    sampler.sample_now()
    account = sampler.account()
    blocks = [
        block.changed(host_cpu=account.of(*block.measured_ns) or block.host_cpu)
        if block.measured_ns and (block.host_cpu is None or block.host_cpu.others is None)
        else block
        for block in run.blocks
    ]
    found = disturbed([(block, block.host_cpu) for block in blocks if block.host_cpu is not None])
    run.update(blocks=[block.changed(disturbed=found.get(block.block)) for block in blocks])


def _followers(cluster: Cluster) -> list[Follower]:
    return [Follower(**row) for row in cluster.replication()]


@dataclasses.dataclass(frozen=True)
class Reads:
    """What the blocks of a read load need: who serves in each arm, the data, and the blocks themselves."""

    run: Run
    serving: Mapping[Arm, Serving]
    data: dataset.DatasetSpec
    blocks: Blocks
    generators: Generators
    sampler: Sampler
    bar: Progress
    sampled_pids: list[int]
    """Of load generators; those that are started later are added."""


@contextlib.contextmanager
def reading(
    p: ReadingUsers,
    run: Run,
    cluster: Cluster,
    arms: Iterable[Arm],
    seconds: float,
    processes: int = 1,
    executor: Executor | None = None,
) -> Iterator[Reads]:
    """Check connections, seed the users table and read it once, sample while the blocks run; a bar of so many seconds.

    The run is then `measured`. Raises BadInput for connections that do not fit the servers, before any load.
    """
    serving = {arm: routing.serving(arm, cluster, p.connections) for arm in arms}
    _check_connections(p.connections, serving, processes)
    data = dataset.DatasetSpec(p.users, p.locale, p.seed)
    with Generators(processes, executor) as generators:
        run.update(dataset=dataset.seed(cluster, data))
        cluster.wait_for_catchup(CATCHUP_S)
        dataset.read_once({node.name: node for who in serving.values() for node in who.nodes}.values())
        pids = list(generators.pids)
        with (
            sampled(run, cluster, p.sample_interval_s, pids) as sampler,
            Progress("measuring", seconds, "s") as bar,
        ):
            yield Reads(run, serving, data, Blocks(run, generators, bar, p), generators, sampler, bar, pids)
        run.update(comparisons=comparisons(run.experiment, run.blocks))
        run.mark("measured")
