"""The table of steps: all code about steps reads it, so a new step is one entry and the method that takes it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import labkit
from labkit import paths
from labkit.errors import RunUnreadable
from labkit.experiments.failover import figures, findings
from labkit.experiments.failover.drill import FailoverDrill
from labkit.experiments.failover.parameters import Failover
from labkit.experiments.failover.step_summary import step_summary
from labkit.experiments.failover.trial import TrialSteps
from labkit.lab.failover import FailoverSteps
from labkit.run import steps
from labkit.run.kinds import event
from labkit.run.steps import Moment, Step
from labkit.run.store import Run, RunStore

PACKAGE = Path(labkit.__file__).parent
TABLE = Path(steps.__file__)
HOMONYMS = {
    # what else has the name of a step
    ("experiments/promotion_crash", "preflight"): "an entry of a block: what the preflight said",
    ("experiments/streaming_replication", "write"): "a position in WAL",
    ("lab/providers/docker", "write"): "a direction of disk I/O",
    **{
        (folder, "rejoin"): "a remedy's verb" for folder in (".", "cli", "lab/cluster", "lab/failover", "lab/providers")
    },
}
WORDS = {"audit", "fault", "ghosts", "rejoined", "synchronous", "written"}
"""Kinds of events that are also entries of run.json, tables, parameters or commands."""
CATCH_UP = Step(
    "catch_up",
    "Wait until the replicas have replayed everything.",
    (Moment("catch_up", "{node} has caught up", "replica caught up", "caught up"),),
    needs=(steps.REPOINT,),
)


def spelled(file: Path) -> set[str]:
    """The strings in a module, without its docstrings and comments."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def test_no_step_and_nothing_that_it_notes_is_named_by_a_string_outside_the_table() -> None:
    names = {name for step in steps.TRIAL for name in (step.name, step.failed)}
    names |= {moment.kind for moment in steps.moments()} - WORDS
    for file in PACKAGE.rglob("*.py"):
        if file == TABLE:
            continue
        folder = file.parent.relative_to(PACKAGE).as_posix()
        assert {name for name in spelled(file) & names if (folder, name) not in HOMONYMS} == set(), file
    assert {step.name for step in steps.TRIAL} <= spelled(TABLE)


def test_each_step_needs_only_steps_before_it_and_notes_that_it_ended() -> None:
    for place, step in enumerate(steps.FAILOVER):
        assert set(step.needs) <= set(steps.FAILOVER[:place])
        assert step.name in [moment.kind for moment in step.moments]
    kinds = [moment.kind for moment in steps.moments()]
    assert len(set(kinds)) == len(kinds)


def test_each_step_has_the_method_that_takes_it_and_a_verb_that_explains_itself() -> None:
    for step in steps.TRIAL:
        assert hasattr(FailoverSteps if step in steps.FAILOVER else TrialSteps, step.name)
        assert step.name in dir(FailoverDrill)
        verb = getattr(FailoverDrill, step.name)
        assert (verb.__name__, verb.__qualname__) == (step.name, f"FailoverDrill.{step.name}")
        assert inspect.getdoc(verb)
        assert f"\n    {step.name}() " in str(inspect.getdoc(FailoverDrill))
    assert "accept_data_loss" in inspect.signature(FailoverDrill.decide).parameters


@pytest.fixture
def with_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with one more step, which a failover takes at its end."""
    monkeypatch.setattr(steps, "FAILOVER", (*steps.FAILOVER, CATCH_UP))
    place = steps.TRIAL.index(steps.REPOINT) + 1
    monkeypatch.setattr(steps, "TRIAL", (*steps.TRIAL[:place], CATCH_UP, *steps.TRIAL[place:]))


@pytest.mark.usefixtures("with_catch_up")
def test_a_step_that_is_added_is_taken_in_its_place() -> None:
    taken: list[str] = []

    class Recording(FailoverSteps):
        def __init__(self) -> None:  # no cluster: every step only notes that it was taken
            for step in steps.FAILOVER:
                setattr(self, step.name, lambda *_, name=step.name: taken.append(name))

        def _chosen(self) -> labkit.Node:  # type: ignore[override]
            return None  # type: ignore[return-value]

    Recording().run()
    assert taken == [step.name for step in steps.FAILOVER if step is not steps.ROUTE]
    assert taken[-1] == CATCH_UP.name
    taken.clear()
    Recording().run(on_promoted=lambda _: None)
    assert taken == [step.name for step in steps.FAILOVER]


@pytest.mark.usefixtures("with_catch_up")
def test_a_step_that_is_added_is_summarized_listed_and_marked(tmp_path: Path) -> None:
    recorded = next(path for path in RunStore(paths.sample_runs()).paths() if path.parent.name == "failover")
    run = copied(recorded, tmp_path)
    run.record.events = None  # as in runs of before it was noted how far the events went
    with (run.path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"t_ns": 4400000000, "kind": "catch_up", "took_ms": 12.5, "node": "pg3"}\n')
    (line,) = step_summary(run, CATCH_UP)
    assert (line.words, line.took_ms) == ("pg3 has caught up", 12.5)
    times = findings.steps(run).set_index("step")
    assert times.loc[CATCH_UP.name, "words"] == "replica caught up"
    assert times.loc[CATCH_UP.name, "took_ms"] == 12.5
    sheet = figures.outage(findings.acknowledged(run), findings.steps(run))
    assert any(text.get_text().startswith("caught up ") for text in sheet.axes[0].texts)


def copied(recorded: Path, folder: Path) -> Run:
    path = Path(shutil.copytree(recorded, folder / recorded.name))
    return RunStore(folder).open(path)


def test_what_a_step_needs_is_said_by_name() -> None:
    assert steps.PROMOTE.missing({"survey", "fence"}) == ["decide", "preflight"]
    assert steps.SURVEY.missing(()) == []
    assert dataclasses.replace(steps.REPAIR, needs=()).missing(()) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "nothing to repair"),
        ({"synchronous_standby_names": "", "synchronous_commit": "on"}, ": commits wait for no replica"),
        (
            {"synchronous_standby_names": "ANY 1 (pg3, pg1)", "synchronous_commit": "on"},
            ": commits wait for ANY 1 (pg3, pg1), synchronous_commit = on",
        ),
        ({"synchronous_standby_names": "ANY 1 (pg3)", "synchronous_commit": "local"}, ": commits wait for no replica"),
    ],
)
def test_where_nothing_was_to_repair_it_says_what_the_server_is_set_to(found: dict[str, str], said: str) -> None:
    """A failover that goes on where another was cut off finds what that one has set."""
    repaired = event(steps.REPAIR.name, took_ms=1.0, settings={}, found=found)
    assert steps.said(repaired) == (f"nothing to repair{said}" if found else said)


@pytest.mark.parametrize(
    ("table", "first"),
    [
        *((getattr(findings, name), "read_back") for name in ("written", "table", "lost", "acknowledged", "headline")),
        *((getattr(findings, name), "read_back") for name in ("lead", "verdicts", "validity")),
        *((getattr(findings, name), "lose_primary") for name in ("steps", "timeline")),
        (findings.decision, "decide"),
        (findings.ghosts, "rejoin"),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_a_table_asked_too_early_says_which_step_comes_first(
    tmp_path: Path, table: Callable[[Run], object], first: str
) -> None:
    run = RunStore(tmp_path).create("failover", Failover().as_dict())
    with run.driven(), pytest.raises(RunUnreadable, match=rf"is not that far yet: {first}\(\) comes first"):
        table(run)
    run.mark("failed", "the disk is full")
    if table is findings.ghosts:  # as after a run without its rejoin: none was found
        assert len(findings.ghosts(run)) == 0
        return
    with pytest.raises(RunUnreadable, match="ended before its failover did: the disk is full"):
        table(run)
