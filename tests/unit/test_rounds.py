"""Rounds that were disturbed are driven again, and short rounds change one thing each: without a server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fix_records import a_host_cpu, a_load

from labkit.analysis.frames.requests import counted
from labkit.errors import LoadError
from labkit.experiments import interventions
from labkit.experiments.interventions import intervene
from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.experiments.rounds import Planned, measure
from labkit.experiments.stage import Reads
from labkit.lab.cluster.powers import Usage
from labkit.lab.load.arrivals import Arrivals, Closed, Open
from labkit.lab.routing import Serving
from labkit.run.schema import Cell, LoadBlock
from labkit.run.store import RunStore

ARMS = ("primary-only", "replicas-round-robin")
A_HUNDRED = Closed(100)
QUIET, BUSY = a_host_cpu(), a_host_cpu(others=0.9, idle=0.0)


class Stage:
    """What stands for servers, generators and samples: every block is noted at once, and took what it was asked to."""

    def __init__(self, folder: Path) -> None:
        self.run = RunStore(folder).create("read-scaling", {})
        self.disturbed: Callable[[LoadBlock], bool] = lambda _: False
        self.refused: Callable[[Cell], bool] = lambda _: False
        self.answered_per_s: float = 1000.0
        self.asked: list[tuple[Cell, Serving, Arrivals]] = []
        self.by: list[int] = []
        self.seconds = 0.0
        self.sampled_pids: list[int] = []
        self.bar = SimpleNamespace(more=lambda _: None)
        self.generators = SimpleNamespace(shards=1, own=True)
        self.blocks = self._on_terms(SimpleNamespace(warmup_s=0.0), self.generators)
        nothing = lambda: None  # noqa: E731
        self.sampler = SimpleNamespace(sample_now=nothing, sample_between=nothing, account=lambda: self)

    def of(self, from_ns: int, to_ns: int) -> Any:
        """The account, for the block of that time."""
        block = next(b for b in self.run.blocks_of(LoadBlock) if (b.warm_until_ns, b.to_ns) == (from_ns, to_ns))
        return BUSY if self.disturbed(block) else QUIET

    def _on_terms(self, terms: Any, generators: Any) -> Any:
        def drive(_: Any, serving: Serving, when: Arrivals, duration_s: float, cell: Cell) -> LoadBlock:
            if self.refused(cell):
                raise LoadError("a shard of the load began late")
            self.asked.append((cell, serving, when))
            self.by.append(generators.shards)
            began = int(self.seconds * 1e9)
            self.seconds += terms.warmup_s + duration_s
            facts: dict[str, Any] = {"block": len(self.run.blocks), "measured": int(self.answered_per_s * duration_s)}
            facts |= {"from_ns": began, "warm_until_ns": began + int(terms.warmup_s * 1e9)}
            facts |= {"vus": when.users} if isinstance(when, Closed) else {"vus": None, "offered_per_s": when.rate}
            block = a_load(**cell.as_json() | facts | {"to_ns": int(self.seconds * 1e9)})
            self.run.note_block(block)
            return block

        on_terms = lambda terms, by=None: self._on_terms(terms, by or generators)  # noqa: E731
        return SimpleNamespace(drive=drive, on_terms=on_terms)


class Node:
    """A server that allows so many connections, and whose CPU may be limited."""

    def __init__(self, name: str = "pg1", allows: int = 300, cpus: float | None = None) -> None:
        self.name, self._allows = name, allows
        self.control: Any = object() if cpus is None else Limited(cpus)

    def settings(self, names: list[str]) -> dict[str, str]:
        return dict.fromkeys(names, str(self._allows))


class Limited:
    def __init__(self, cpus: float) -> None:
        self.not_measured: dict[str, str] = {}
        self.cpus, self.was = cpus, [cpus]

    def limit(self, cpus: float | None) -> None:
        assert cpus is not None
        self.cpus = cpus
        self.was.append(cpus)

    def usage(self) -> Usage:
        return Usage(cpu_limit=self.cpus)

    def disk_usage(self) -> dict[str, int]:
        return {}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    @contextlib.contextmanager
    def started(processes: int) -> Iterator[Any]:
        yield SimpleNamespace(shards=processes, pids=[4711])

    monkeypatch.setattr(interventions, "Generators", started)
    monkeypatch.setattr(interventions.psutil, "cpu_count", lambda: 2)
    return Stage(tmp_path)


def plan_of(
    *workloads: str, rounds: int = 3, when: Arrivals = A_HUNDRED, nodes: tuple[Node, ...] = ()
) -> list[Planned]:
    serving: Any = Serving(nodes or (Node(),), 8)  # type: ignore[arg-type]
    return [
        Planned(Cell(workload=workload, arm=arm, round=r), None, serving, when, 1.0)  # type: ignore[arg-type]
        for workload in workloads or ("get-user",)
        for r in range(rounds)
        for arm in (ARMS if r % 2 == 0 else ARMS[::-1])
    ]


def parameters(**changes: Any) -> ReadScaling:
    return ReadScaling.build({"repeat_disturbed": 2, "interventions_s": 20, "vus": 100} | changes)


def measured(stage: Stage, plan: list[Planned], **changes: Any) -> list[LoadBlock]:
    measure(as_reads(stage), plan, parameters(**changes))
    return stage.run.blocks_of(LoadBlock)


def as_reads(stage: Stage) -> Any:
    parts: list[Any] = [stage.blocks, stage.generators, stage.sampler, stage.bar]
    data: Any = None
    return Reads(stage.run, {}, data, *parts, stage.sampled_pids)


def test_a_run_that_is_left_alone_is_what_was_planned(stage: Stage) -> None:
    blocks = measured(stage, plan_of())
    assert [(block.arm, block.round) for block in blocks] == [(p.cell.arm, p.cell.round) for p in plan_of()]
    assert not any(block.disturbed or block.replaced for block in blocks)
    assert all(block.host_cpu == QUIET for block in blocks)


def test_a_disturbed_round_is_replaced_on_all_arms_and_stays_recorded(stage: Stage) -> None:
    stage.disturbed = lambda block: (block.arm, block.round, block.workload) == (ARMS[1], 1, "search-users")
    blocks = measured(stage, plan_of("get-user", "search-users"))
    assert len(blocks) == 14
    assert [(b.workload, b.arm, b.round) for b in blocks if b.replaced] == [
        ("search-users", ARMS[1], 1),
        ("search-users", ARMS[0], 1),
    ]
    assert [(b.workload, b.arm, b.round) for b in blocks[12:]] == [
        ("search-users", ARMS[1], 3),
        ("search-users", ARMS[0], 3),
    ]
    rounds = {arm: {b.round for b in counted(stage.run) if b.arm == arm} for arm in ARMS}
    assert rounds[ARMS[0]] == rounds[ARMS[1]], "pairs stay pairs"
    assert not any(block.disturbed for block in counted(stage.run))


@pytest.mark.parametrize("again", [0, 1, 2])
def test_there_is_an_end_to_repeating(stage: Stage, again: int) -> None:
    stage.disturbed = lambda _: True
    blocks = measured(stage, plan_of(), repeat_disturbed=again)
    assert len(blocks) == 6 + 2 * again
    assert [b.round for b in blocks if b.replaced] == [3, 3, 4, 4][: 2 * again], "what was measured first counts"
    assert len(counted(stage.run)) == 6


def test_levels_of_a_sweep_are_replaced_one_by_one(stage: Stage) -> None:
    plan = [planned for users in (1, 10) for planned in plan_of(when=Closed(users), rounds=2)]
    stage.disturbed = lambda block: (block.vus, block.round) == (10, 0)
    blocks = measured(stage, plan)
    assert [(b.vus, b.round, b.replaced) for b in blocks[8:]] == [(10, 2, False)] * 2
    assert {(b.vus, b.round) for b in blocks if b.replaced} == {(10, 0)}


def short(stage: Stage, plan: list[Planned], **changes: Any) -> list[LoadBlock]:
    measure(as_reads(stage), plan, parameters())
    stage.asked.clear()
    stage.by.clear()
    intervene(as_reads(stage), plan, parameters(**changes))
    return [block for block in stage.run.blocks_of(LoadBlock) if block.intervention]


def test_one_thing_is_changed_in_each_short_round(stage: Stage) -> None:
    blocks = short(stage, plan_of())
    names = ("nothing", "connections doubled", "users halved", "one load generator more")
    on_first = [(i, b.intervention) for i, b in enumerate(blocks) if b.arm == ARMS[0]]
    by_change = {name: [i for i, change in on_first if change == name] for name in names}
    assert {len(places) for places in by_change.values()} == {interventions.ROUNDS}
    for name, places in by_change.items():
        asked = {(stage.asked[i][1].connections, stage.asked[i][2], stage.by[i]) for i in places}
        connections = 16 if name == "connections doubled" else 8
        users = 50 if name == "users halved" else 100
        assert asked == {(connections, Closed(users), 2 if name == "one load generator more" else 1)}
    order = [b.intervention for b in blocks[:8]]
    assert order[:4] == order[4:][::-1], "in alternating order"
    assert stage.sampled_pids == [4711]
    assert {b.phase for b in blocks} == {"intervention"}
    assert not any(b.counts for b in blocks)


@pytest.mark.parametrize(("seconds", "cells"), [(5, 1), (20, 2), (40, 4), (400, 4)])
def test_first_arms_come_first_as_far_as_time_suffices(stage: Stage, seconds: int, cells: int) -> None:
    before = len(plan_of("get-user", "search-users"))
    blocks = short(stage, plan_of("get-user", "search-users"), interventions_s=seconds)
    found = list(dict.fromkeys((b.workload, b.arm) for b in blocks))
    assert found == [(w, arm) for arm in ARMS for w in ("get-user", "search-users")][:cells]
    took = stage.seconds - before
    assert took < seconds, "opening connections takes its time too"


def test_none_are_driven_if_none_are_wanted(stage: Stage) -> None:
    assert short(stage, plan_of(), interventions_s=0) == []


def test_what_cannot_be_changed_is_left_out(stage: Stage) -> None:
    stage.generators.own = False
    blocks = short(stage, plan_of(when=Closed(1), nodes=(Node(allows=20),)))
    assert {b.intervention for b in blocks} == {"nothing"}, "16 connections, and ten to spare, are more than 20"


def test_limits_are_doubled_for_their_rounds_alone(stage: Stage) -> None:
    node = Node(cpus=0.25)
    blocks = short(stage, plan_of(nodes=(node,)), interventions_s=5)
    assert sum(b.intervention == "CPU limit doubled" for b in blocks) == interventions.ROUNDS
    assert node.control.was == [0.25, *[0.5, 0.25] * interventions.ROUNDS]
    unlimited = short(stage, plan_of(nodes=(Node(cpus=2.0),)))
    assert not any(b.intervention == "CPU limit doubled" for b in unlimited[len(blocks) :]), "all of the machine's"


def test_a_load_that_was_met_leaves_nothing_to_find_out(stage: Stage) -> None:
    assert short(stage, plan_of(when=Open(1000.0))) == []
    stage.answered_per_s = 500.0
    assert short(stage, plan_of("search-users", when=Open(1000.0))), "half of it was not answered"


def test_short_rounds_are_judged_together(stage: Stage) -> None:
    stage.disturbed = lambda block: block.intervention == "users halved" and block.arm == ARMS[0]
    blocks = short(stage, plan_of())
    assert {(block.arm, block.disturbed) for block in blocks} == {(ARMS[0], True), (ARMS[1], False)}


def test_on_a_machine_that_others_use_nothing_is_tried(stage: Stage) -> None:
    stage.disturbed = lambda _: True
    assert short(stage, plan_of()) == []


def test_a_short_round_that_fails_costs_the_run_nothing(stage: Stage) -> None:
    stage.refused = lambda cell: cell.intervention == "one load generator more"
    blocks = short(stage, plan_of())
    assert {b.intervention for b in blocks} == {"nothing", "connections doubled", "users halved"}
