"""Which arms of a run are compared, and what differs between each two: pure, of the facts that blocks note.

A difference between two arms says what its cause is if one thing differs between them. Whoever compares arms asks here
which; a run keeps the answer in run.json, and its report begins with it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence

from labkit.names import PRIMARY_ONLY, PRIMARY_ONLY_MORE
from labkit.replication import ASYNC, LEVELS, REMOTE_LEVELS
from labkit.run.schema import Block, Comparison, CostBlock, Difference, LoadBlock
from labkit.units import count

Fact = str | float | None | tuple[str | float | None, ...]
Facts = Mapping[str, Fact]
Sides = Mapping[str, Mapping[Hashable, Facts]]
"""Arm -> the facts of its blocks, by their place in the plan: those of one place are compared with each other."""

NODES, CONNECTIONS = "nodes that serve reads", "connections"
CLOSED, OPEN = "closed loop", "open, constant rate"  # arms of measuring-honestly
SELF = ("A", "A again")  # the server, compared with itself
_ALIKE = 0.01  # users and rates are means over the measured part, which stages make a little uneven

_READS = ("read-scaling", "cpu-budget", "concurrency-sweep")


def comparisons(experiment: str, blocks: Sequence[Block]) -> list[Comparison]:
    """The comparisons that a run makes, in the order of its arms; none where arms are not compared."""
    if costs := [block for block in blocks if isinstance(block, CostBlock)]:
        return _of_costs(costs)
    sides = _sides([block for block in blocks if isinstance(block, LoadBlock) and block.counts])
    if experiment in _READS:
        return of_reads(sides)
    pairs = ((OPEN, CLOSED), SELF) if experiment == "measuring-honestly" else ()
    return [_compared(sides, arm, against) for against, arm in pairs if {arm, against} <= sides.keys()]


def of_reads(sides: Sides) -> list[Comparison]:
    """Each arm against the first of those before it that differs from it in one thing, else against the first of all.

    The primary alone comes before all others, then the primary with more connections, then arms as they are given.
    """
    order = sorted(sides, key=lambda arm: (arm != PRIMARY_ONLY, arm not in (PRIMARY_ONLY, PRIMARY_ONLY_MORE)))
    found = {}
    for i, arm in enumerate(order[1:], 1):
        candidates = [_compared(sides, arm, against) for against in order[:i]]
        found[arm] = next((each for each in candidates if len(each.differs) == 1), candidates[0])
    return [found[arm] for arm in sides if arm in found]


def _sides(blocks: Sequence[LoadBlock]) -> Sides:
    sides: dict[str, dict[Hashable, Facts]] = {}
    for block in blocks:
        mine = sides.setdefault(block.arm, {})
        # A round of a sweep has several blocks of an arm: all arms have them in the same order.
        places = ((block.workload, block.round, n) for n in itertools.count())
        mine[next(place for place in places if place not in mine)] = _facts(block)
    return sides


def _facts(block: LoadBlock) -> Facts:
    return {
        NODES: ", ".join(block.nodes),
        CONNECTIONS: sum(block.connections.values()),
        "load": (block.vus, block.think_s, block.offered_per_s, block.arrival),
        "load generators": max(1, len(block.shards)),
        "CPUs of a node": block.node_cpus,
    }


def _compared(sides: Sides, arm: str, against: str) -> Comparison:
    mine, other = sides[arm], sides[against]
    pairs = [(other[place], mine[place]) for place in mine if place in other]
    return Comparison(arm=arm, against=against, differs=_differs(pairs))


def _differs(pairs: Sequence[tuple[Facts, Facts]]) -> list[Difference]:
    """What is not the same on both sides."""
    found = []
    for name in pairs[0][0] if pairs else ():
        unlike = [(before[name], after[name]) for before, after in pairs if not _alike(before[name], after[name])]
        if unlike:
            before, after = (" or ".join(dict.fromkeys(map(_words, side))) for side in zip(*unlike, strict=True))
            found.append(Difference(thing=name, before=before, after=after))
    return found


def _alike(one: Fact, other: Fact) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return all(map(_alike, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_ALIKE)
    return one == other


def _words(fact: Fact) -> str:
    if isinstance(fact, tuple):
        vus, think_s, rate, arrival = fact
        if vus is None:
            return f"{_words(rate)} requests/s, {arrival}"
        return count(float(vus), "user") + (f" who think {1000 * float(think_s or 0):.3g} ms" if think_s else "")
    if isinstance(fact, int | float):
        return f"{fact:,.0f}" if fact >= 100 or fact == int(fact) else f"{fact:.3g}"
    return "no limit" if fact is None else fact


def _of_costs(blocks: Sequence[CostBlock]) -> list[Comparison]:
    """Each step of safety: from off to local, from there to each mode's first level, from level to level."""
    ladders: dict[str, list[str]] = {}
    for block in sorted(blocks, key=lambda block: LEVELS.index(block.level)):
        levels = ladders.setdefault(block.mode, [])
        if block.level not in levels:
            levels.append(block.level)
    alone = [(ASYNC, level) for level in ladders.get(ASYNC, [])]
    steps = list(itertools.pairwise(alone))
    for mode in dict.fromkeys(block.mode for block in blocks if block.mode != ASYNC):
        steps += itertools.pairwise([*alone[-1:], *((mode, level) for level in ladders[mode])])
    found = [
        Comparison(arm="/".join(after), against="/".join(before), differs=_step(before, after))
        for before, after in steps
    ]
    # With no level `local` measured, a mode's first level is two steps away from async/off.
    return [each for each in found if len(each.differs) == 1]


def _step(before: tuple[str, str], after: tuple[str, str]) -> list[Difference]:
    (mode, level), (other_mode, other_level) = before, after
    if mode == ASYNC and level == "local" and other_level in REMOTE_LEVELS:
        level = other_level  # where no replica is waited for, the levels that name one mean local
    facts = [
        {"replicas that commits wait for": mode, "synchronous_commit": level},
        {"replicas that commits wait for": other_mode, "synchronous_commit": other_level},
    ]
    return _differs([(facts[0], facts[1])])
