"""Short rounds after the measured ones, with one thing changed in each: what raises throughput was the limit."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence

import psutil

from labkit.checkers import offered
from labkit.checkers.host_cpu import pooled
from labkit.errors import LoadError
from labkit.experiments.rounds import Planned, drive
from labkit.experiments.shared import SPARE_CONNECTIONS, InRounds
from labkit.experiments.stage import Reads, note_host_cpu
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Limitable, Measurable
from labkit.lab.load.arrivals import Arrivals, Closed
from labkit.lab.load.shards import Generators
from labkit.lab.routing import Serving
from labkit.run.schema import Intervention, LoadBlock

ROUNDS = 4
"""Of each change: with fewer an interval says little, with more each is too short."""
LEAST_ROUNDS = 3
"""As few as give an interval, if a busy machine takes longer than was meant."""
LEAST_S = 9.0
"""What the short rounds of one workload on one arm need."""
_WARMUP, _MEASURED = 0.17, 0.38  # of a short round's time; the rest opens connections, and starts generators


def intervene(reads: Reads, plan: Sequence[Planned], p: InRounds) -> None:
    """Drive short rounds of what a plan asked, for about `interventions_s` in all, with one thing changed in each.

    The workloads have their turn on the plan's first arm, then on the others, as far as time suffices; in a sweep with
    the most users. Where the load that was offered was the limit, or other programs used the machine, there is nothing
    to find out. Raises LoadInterrupted.
    """
    cells = _cells(reads, plan)[: max(1, int(p.interventions_s // LEAST_S))]
    if not p.interventions_s or not cells:
        return
    with _one_more(reads) as more:
        for planned in cells:
            _intervene(reads, planned, p, p.interventions_s / len(cells), more)
    note_host_cpu(reads.run, reads.sampler)


def _cells(reads: Reads, plan: Sequence[Planned]) -> list[Planned]:
    """A block of each workload and arm that something else than the load may have limited, first arms first."""
    most: dict[tuple[str, str], Planned] = {}
    for planned in plan:
        key = planned.cell.workload, planned.cell.arm
        if key not in most or _users(planned.when) > _users(most[key].when):
            most[key] = planned
    arms = list(dict.fromkeys(planned.cell.arm for planned in plan))
    chosen = sorted(most.values(), key=lambda planned: arms.index(planned.cell.arm))
    return [planned for planned in chosen if _open_question(_measured(reads, planned))]


def _open_question(blocks: Sequence[LoadBlock]) -> bool:
    known = [(block.host_cpu, block.measured_s) for block in blocks if block.host_cpu is not None]
    disturbed = bool(known) and pooled(known).disturbed
    return not disturbed and offered.limit(blocks) is None


def _users(when: Arrivals) -> int:
    return when.users if isinstance(when, Closed) else 0


def _measured(reads: Reads, planned: Planned) -> list[LoadBlock]:
    """The blocks that count of one workload, arm and number of users."""
    cell, users = planned.cell, _users(planned.when)
    blocks = [block for block in reads.run.blocks_of(LoadBlock) if block.counts]
    mine = [block for block in blocks if (block.workload, block.arm) == (cell.workload, cell.arm)]
    return [block for block in mine if block.vus == users] or mine


def _intervene(reads: Reads, planned: Planned, p: InRounds, seconds: float, more: Generators | None) -> None:
    changes = _changes(reads, planned, more)
    slot_s = seconds / (ROUNDS * len(changes))
    terms = p.model_copy(update={"warmup_s": _WARMUP * slot_s})
    began = time.monotonic()
    for number in range(ROUNDS):
        if number >= LEAST_ROUNDS and (time.monotonic() - began) * (number + 1) / number > seconds:
            return
        for name in list(changes) if number % 2 == 0 else list(changes)[::-1]:
            cell = planned.cell.changed(round=number, phase="intervention", intervention=name)
            short = dataclasses.replace(changes[name], cell=cell, duration_s=_MEASURED * slot_s)
            blocks = reads.blocks.on_terms(terms, more if name == "one load generator more" else None)
            changed = _limits_doubled(short) if name == "CPU limit doubled" else contextlib.nullcontext(short)
            # A short round that fails is missing; that is no reason to lose what was measured.
            with contextlib.suppress(LoadError), changed as asked:
                drive(dataclasses.replace(reads, blocks=blocks), asked)


def _changes(reads: Reads, planned: Planned, more: Generators | None) -> dict[Intervention, Planned]:
    """What can be changed, one thing each, and how the blocks are then asked; first the same without a change."""
    found: dict[Intervention, Planned] = {"nothing": planned}
    doubled = Serving(planned.serving.nodes, 2 * planned.serving.connections)
    if all(count + SPARE_CONNECTIONS <= _allowed(node) for node, count in doubled.by_node):
        found["connections doubled"] = dataclasses.replace(planned, serving=doubled)
    users = _users(planned.when)
    if users >= 2 * reads.generators.shards:
        found["users halved"] = dataclasses.replace(planned, when=planned.when.split(2)[0])
    if more is not None and _can_be_shared(planned, more.shards):
        found["one load generator more"] = planned
    planned.before()
    if any(_limit(node) for node in planned.serving.nodes):
        found["CPU limit doubled"] = planned
    return found


def _allowed(node: Node) -> int:
    return int(node.settings(["max_connections"])["max_connections"])


def _can_be_shared(planned: Planned, generators: int) -> bool:
    users, serving = _users(planned.when), planned.serving
    return (users == 0 or users >= generators) and serving.connections >= len(serving.nodes) * generators


@contextlib.contextmanager
def _one_more(reads: Reads) -> Iterator[Generators | None]:
    """One load generator more than measured; None if they are workers that were given."""
    if not reads.generators.own:
        yield None
        return
    with Generators(reads.generators.shards + 1) as more:
        reads.sampled_pids.extend(more.pids)
        reads.sampler.sample_now()  # what starting them took belongs to no short round
        yield more


def _limit(node: Node) -> float | None:
    """The CPUs that a node is limited to; None if it may use all of this machine's, or cannot be limited."""
    control = node.control
    if not isinstance(control, Limitable) or not isinstance(control, Measurable):
        return None
    cpus = control.usage().cpu_limit
    return cpus if cpus is not None and cpus < (psutil.cpu_count() or 1) else None


@contextlib.contextmanager
def _limits_doubled(planned: Planned) -> Iterator[Planned]:
    """The same block with twice the CPU limit of each node that serves; afterwards the limits are as before."""

    def double() -> None:
        planned.before()
        for node, cpus in limits.items():
            _set(node, min(2 * cpus, float(psutil.cpu_count() or 1)))

    planned.before()
    limits = {node: cpus for node in planned.serving.nodes if (cpus := _limit(node))}
    try:
        yield dataclasses.replace(planned, before=double)
    finally:
        for node, cpus in limits.items():
            _set(node, cpus)


def _set(node: Node, cpus: float) -> None:
    assert isinstance(node.control, Limitable)
    node.control.limit(cpus)
