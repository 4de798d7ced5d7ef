"""Measured rounds: a plan of blocks, driven in its order, and what other programs disturbed once more."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from labkit.experiments.shared import InRounds
from labkit.experiments.stage import Reads, note_host_cpu
from labkit.lab.load.arrivals import Arrivals
from labkit.lab.routing import Serving
from labkit.lab.workloads.base import Workload
from labkit.run.schema import Cell, LoadBlock


def _nothing() -> None:
    """Most blocks need nothing done before them."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """A block to be driven: what is asked and of whom, for how long, and where it stands in the plan.

    `before` puts the servers into the state that the block needs.
    """

    cell: Cell
    load: Workload
    serving: Serving
    when: Arrivals
    duration_s: float
    before: Callable[[], None] = _nothing

    @property
    def turn(self) -> tuple[str, int, Arrivals]:
        """Blocks of one turn are asked the same, each on its arm, and compared with each other."""
        return self.cell.workload, self.cell.round, self.when


def measure(reads: Reads, plan: Sequence[Planned], p: InRounds) -> None:
    """Drive the blocks of a plan, then at most `repeat_disturbed` turns of it once more: those that were disturbed.

    A turn that was disturbed is driven again on all of its arms, as a round of its own, which stands in its place if it
    was left alone. Raises LoadError, LoadInterrupted.
    """
    reads.run.update(planned=Counter(planned.cell.name for planned in plan))
    turns: dict[tuple[str, int, Arrivals], list[tuple[Planned, int]]] = {}
    for planned in plan:
        turns.setdefault(planned.turn, []).append((planned, drive(reads, planned).block))
    fresh = 1 + max(planned.cell.round for planned in plan)
    note_host_cpu(reads.run, reads.sampler)
    for number in range(fresh, fresh + p.repeat_disturbed):
        disturbed = [turn for turn, blocks in turns.items() if _disturbed(reads, (number for _, number in blocks))]
        if not disturbed:
            return
        old = turns.pop(disturbed[0])
        new = []
        for planned, _ in old:
            moved = dataclasses.replace(planned, cell=planned.cell.changed(round=number))
            reads.bar.more(p.warmup_s + planned.duration_s)
            new.append((moved, drive(reads, moved).block))
        note_host_cpu(reads.run, reads.sampler)
        # One of both is left out: the new one if it was disturbed as well.
        worse, better = (new, old) if _disturbed(reads, (block for _, block in new)) else (old, new)
        turns[disturbed[0]] = better
        for block in _blocks(reads, (block for _, block in worse)):
            reads.run.note_block(block.changed(replaced=True))


def drive(reads: Reads, planned: Planned) -> LoadBlock:
    """Drive one block. Raises LoadError, LoadInterrupted."""
    planned.before()
    block = reads.blocks.drive(planned.load, planned.serving, planned.when, planned.duration_s, planned.cell)
    reads.sampler.sample_between()
    return block


def _disturbed(reads: Reads, numbers: Iterable[int]) -> bool:
    return any(block.disturbed for block in _blocks(reads, numbers))


def _blocks(reads: Reads, numbers: Iterable[int]) -> list[LoadBlock]:
    chosen = set(numbers)
    return [block for block in reads.run.blocks_of(LoadBlock) if block.block in chosen]
