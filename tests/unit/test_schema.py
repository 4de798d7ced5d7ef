"""Records: what is written is read, and a damaged file says which of its fields is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fix_records import a_load, a_trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from labkit import paths
from labkit.errors import RunUnreadable
from labkit.experiments import catalogue
from labkit.experiments.quorum_commit import findings as quorum_commit
from labkit.run import kinds, steps
from labkit.run.schema import BLOCKS, AttemptBlock, Event, Facts, Record, RunRecord, TrialBlock, events
from labkit.run.store import Run, RunStore, read_run

README = paths.home() / "data" / "README.md"
SAMPLES = sorted(path.parent for path in paths.sample_runs().glob("*/*/run.json"))
# What a labkit before this one recorded: run.json and events.jsonl alone.
OLDER = sorted(path.parent for path in (Path(__file__).parent / "older_runs").glob("*/*/run.json"))

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(2**53), 2**53)
reals = st.floats(allow_nan=False)
counts = st.dictionaries(words, numbers, max_size=3)
texts = st.dictionaries(words, words, max_size=3)


@st.composite
def loads(draw: Callable[..., Any], number: int) -> Any:
    facts = {"block": number, "vus": draw(st.none() | reals), "sqlstates": draw(counts), "problems": draw(texts)}
    facts |= {"reasons": draw(st.lists(words, max_size=2)), "late_ns": draw(numbers), "phase": draw(words)}
    shards = draw(st.integers(0, 2))
    figures = {"from_ns": 0, "warm_until_ns": 1, "to_ns": draw(numbers), "requests": 1, "host": draw(words)}
    figures |= {"generator_cpu_percent": draw(reals), "pool_busy_fraction": 0.5}
    return a_load(**facts, **({"shards": [figures] * shards} if shards else {}))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return RunStore(tmp_path / "runs").create("durability-matrix", {"vus": 1})


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.dictionaries(words, st.none() | st.booleans() | numbers | reals | words, max_size=4))
def test_a_record_that_was_written_is_read_as_it_was(
    tmp_path: Path, data: st.DataObject, asked: dict[str, Any]
) -> None:
    run = RunStore(tmp_path).create("read-scaling", asked, versions=data.draw(texts))
    for number in range(data.draw(st.integers(0, 3))):
        run.note_block(data.draw(loads(number)))
    run.mark("failed", data.draw(st.none() | words))
    again = read_run(run.path)
    assert again.record == run.record
    assert again.parameters == asked
    (run.path / "run.json").write_text(again.record.model_dump_json(by_alias=True, exclude_unset=True))
    assert read_run(run.path).record == run.record


@given(reason=words, lag=st.none() | reals, node=words, rows=numbers)
def test_an_event_that_was_noted_is_read_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, reason: str, lag: float | None, node: str, rows: int
) -> None:
    run = RunStore(tmp_path_factory.mktemp("runs")).create("failover", {})
    noted = [
        events.Detected(kind="detected", block=0, node=node, reason=reason),
        events.Position(second=0.0, node=node, wal_bytes=rows, loaded=True, replay_lag_s=lag),
        kinds.event("promote", took_ms=1.0, node=node, left_behind={node: reason}),
        kinds.event("fence_failed", problem=reason),
        Event(kind="of a newer labkit", more=rows),
    ]
    for event in noted:
        run.note(event)
    found = run.events_of(Event)
    assert [event.changed(t_ns=0, kind=event.kind) for event in noted] == [event.changed(t_ns=0) for event in found]
    assert [type(event) for event in found] == [type(event) for event in noted]
    assert all(event.t_ns > 0 for event in found)
    assert run.events()["kind"].tolist() == [event.kind for event in noted]


def damaged(run: Run, change: Callable[[dict[str, Any]], object]) -> str:
    """What is said of a run whose run.json was changed."""
    file = run.path / "run.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RunUnreadable) as caught:
        read_run(run.path)
    assert str(file) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run["blocks"][3].pop("to_ns"), "blocks.3.to_ns is missing"),
        (lambda run: run["blocks"][1].update(to_ns="soon"), "blocks.1.to_ns should be a valid integer, not 'soon'"),
        (lambda run: run["blocks"][0]["counts"].update(lost=None), "blocks.0.counts.lost should be a valid integer"),
        (lambda run: run["blocks"][2].update(verdict="maybe"), "blocks.2.verdict should be 'true', 'false' or"),
        (lambda run: run.update(blocks={}), "blocks should be a valid array"),
        (lambda run: run.update(status="done"), "status should be 'started', 'measured', 'complete' or 'failed'"),
        (lambda run: run["epoch"].pop("utc"), "epoch.utc is missing"),
        (lambda run: run.pop("experiment"), "experiment is missing"),
        (lambda run: run.update(parameters=7), "parameters should be an object, not 7"),
        (lambda run: [block.pop("mode") for block in run["blocks"]], "blocks.2.mode is missing; and 1 more"),
        (lambda run: run["blocks"][1].update(mode="sometimes"), "blocks.1.mode: 'sometimes' is no replication mode"),
        (lambda run: run["blocks"][1].update(mode="any 1"), "blocks.1.mode: 'any 1' is written 'ANY 1'"),
        (lambda run: run["blocks"][3].update(level="maybe"), "blocks.3.level should be 'off', 'local',"),
        (lambda run: run["blocks"][3].update(block=1), "blocks: there is more than one block 1"),
    ],
)
def test_a_damaged_run_json_says_which_field_is_wrong(run: Run, change: Callable[[Any], object], said: str) -> None:
    for number in range(4):
        run.note_block(a_trial(block=number))
    assert said in damaged(run, change)


def test_an_attempt_says_what_came_of_it_or_why_it_was_not_made(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("promotion-crash", {})
    run.note_block(AttemptBlock(block=0, cause="deleted", tried=False, reason="not allowed"))
    said = damaged(run, lambda content: content["blocks"][0].update(tried=True, log=[]))
    assert "blocks.0: it was tried, but client, preflight, promoted, survived is missing" in said
    assert "blocks.0: it was not tried, but reason is missing" in damaged(
        run, lambda content: content["blocks"][0].update(tried=False, reason=None)
    )


@pytest.mark.parametrize(
    ("sample", "field", "wrong", "said"),
    [
        ("quorum-commit", "level", "zz", "blocks.0.level should be 'off', 'local',"),
        ("quorum-commit", "mode", "first", "blocks.0.mode: 'first' is no replication mode"),
        ("promotion-crash", "cause", "zz", "blocks.0.cause should be 'deleted', 'mounted',"),
    ],
)
def test_a_word_that_is_none_of_those_there_are_is_named(
    tmp_path: Path, sample: str, field: str, wrong: str, said: str
) -> None:
    (path,) = (path for path in SAMPLES if path.parent.name == sample)
    run = RunStore(tmp_path).create(sample, {})
    run.update(blocks=read_run(path).blocks)
    assert said in damaged(run, lambda content: content["blocks"][0].update({field: wrong}))


def test_a_wrong_replication_in_an_event_is_named(run: Run) -> None:
    run.note(kinds.event("synchronous", mode="ANY 1", level="on", states={}))
    file = run.path / "events.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace("ANY 1", "some"), encoding="utf-8")
    with pytest.raises(RunUnreadable, match=r"line 1 .* mode: 'some' is no replication mode"):
        run.events()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "parameters.deadline_s is missing"),
        ({"deadline_s": "soon"}, "parameters.deadline_s should be a valid number, not 'soon'"),
        ({"deadline_s": None}, "parameters.deadline_s should be a valid number, not None"),
        ({"deadline_s": True}, "parameters.deadline_s should be a valid number, not True"),
    ],
)
def test_a_parameter_that_a_finding_needs_is_named_with_its_file(
    tmp_path: Path, asked: dict[str, Any], said: str
) -> None:
    (path,) = (path for path in SAMPLES if path.parent.name == "quorum-commit")
    recorded = read_run(path)
    run = RunStore(tmp_path).create("quorum-commit", asked)
    run.update(blocks=recorded.blocks, demonstrations=recorded.record.demonstrations)
    for read in (quorum_commit.verdicts, quorum_commit.stopped):
        with pytest.raises(RunUnreadable) as caught:
            read(run)
        assert f"{run.path / 'run.json'} cannot be read as a run: {said}" in str(caught.value)


def test_a_parameter_is_of_the_type_that_is_asked_for(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("quorum-commit", {"deadline_s": 2, "rounds": 3, "keep_cluster": False})
    assert (run.parameter("deadline_s", float), run.parameter("rounds", int)) == (2.0, 3)
    assert run.parameter("keep_cluster", bool) is False
    with pytest.raises(RunUnreadable, match="rounds should be a valid boolean, not 3"):
        run.parameter("rounds", bool)


def test_a_run_json_that_was_cut_off_says_so(run: Run) -> None:
    file = run.path / "run.json"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(RunUnreadable, match=r"run\.json is not JSON, it was cut off or overwritten: EOF .* at line"):
        read_run(run.path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"t_ns": 1, "kind"', r"line 2 is not JSON, it was cut off"),
        ("[]", "line 2 is not an object"),
        ('{"kind": "fault"}', r"line 2 .* fault is missing; node is missing; at_ns is missing"),
        ('{"kind": "route", "took_ms": 1}', "line 2 .* t_ns is missing"),
        ('{"t_ns": 1}', "line 2 .* kind is missing"),
        ('{"t_ns": 1, "kind": "read_back", "node": "pg2", "rows": "many"}', "rows should be a valid integer"),
    ],
)
def test_a_damaged_event_is_named_by_its_line_and_field(run: Run, line: str, said: str) -> None:
    run.note(kinds.event("detected", node="pg1", reason="gone"))
    file = run.path / "events.jsonl"
    file.write_text(file.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    for read in (run.events, lambda: run.events_of(events.Fault)):
        with pytest.raises(RunUnreadable, match=said) as caught:
            read()
        assert str(file) in str(caught.value)


def test_a_damaged_summary_is_named_and_what_makes_it_again(run: Run) -> None:
    assert run.summary() is None
    file = run.derived / "summary.json"
    file.write_text('{"id": "x"}', encoding="utf-8")
    with pytest.raises(
        RunUnreadable, match=r"summary\.json .*path is missing; .*drawing the report of .* makes it again"
    ):
        run.summary()


def test_what_a_newer_labkit_has_added_is_read_over_and_kept(run: Run) -> None:
    run.note_block(a_trial())
    file = run.path / "run.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["weather"] = "fine"
    content["blocks"][0]["temperature_c"] = 21.5
    del content["seal"]
    file.write_text(json.dumps(content), encoding="utf-8")
    again = read_run(run.path)
    again.mark("measured")
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert (kept["weather"], kept["blocks"][0]["temperature_c"]) == ("fine", 21.5)


def test_a_writer_cannot_note_a_wrong_type(run: Run) -> None:
    with pytest.raises(ValidationError):
        run.update(nodes=["pg1"])
    with pytest.raises(ValidationError):
        kinds.event("fault", node="pg1")
    with pytest.raises(TypeError, match="event of kind fault has no colour"):
        kinds.event("fault", fault="kill", node="pg1", at_ns=1, colour="red")
    with pytest.raises(TypeError, match="LoadBlock is not a block of durability-matrix"):
        run.note_block(a_load())
    with pytest.raises(TypeError, match="TrialBlock has no colour"):
        run.note_block(a_trial(colour="red"))
    assert read_run(run.path).record == run.record


def test_a_block_is_noted_once_by_its_number(run: Run) -> None:
    for block in (a_trial(block=0), a_trial(block=1), a_trial(block=0, took_s=2.0)):
        run.note_block(block)
    assert [block.block for block in read_run(run.path).blocks] == [0, 1]
    assert read_run(run.path).blocks[0].took_s == 2.0


@pytest.mark.parametrize("path", [*SAMPLES, *OLDER], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_recorded_runs_open_and_are_written_as_they_were(path: Path) -> None:
    run = read_run(path)
    assert json.loads(run.record.model_dump_json(by_alias=True, exclude_unset=True)) == json.loads(
        (path / "run.json").read_text(encoding="utf-8")
    )
    assert not run.record.model_extra
    assert not any(block.model_extra for block in run.blocks)
    assert all(type(event) is kinds.known()[event.kind] for event in run.events_of(Event))


def test_a_survey_from_before_roles_were_noted_is_of_replicas() -> None:
    (run,) = (read_run(path) for path in OLDER if path.parent.name == "failover")
    (survey,) = run.events_of(events.Survey)
    assert survey.primary_lsn is None
    assert {survivor.name: survivor.role for survivor in survey.survivors} == {"pg2": "replica", "pg3": "replica"}


def test_a_block_is_checked_once_however_many_follow_and_however_often_it_is_read(run: Run) -> None:
    """A matrix holds a thousand and more, and run.json is written after each."""
    blocks = [a_trial(block=number) for number in range(1000)]
    run.update(blocks=blocks[:-1])
    run.note_block(blocks[-1])
    run.mark("measured")
    assert all(known is block for known, block in zip(run.blocks, blocks, strict=True))
    assert all(known is block for known, block in zip(run.blocks_of(TrialBlock), blocks, strict=True))
    again = read_run(run.path)
    assert all(known is block for known, block in zip(again.blocks, again.blocks_of(TrialBlock), strict=True))


def test_every_experiment_has_a_type_of_block() -> None:
    assert BLOCKS.keys() == catalogue.EXPERIMENTS.keys()


def test_what_may_be_noted_is_what_a_record_holds() -> None:
    given = {"schema_version", "experiment", "status", "problem", "epoch", "parameters", "digests"}
    given |= {"events", "seal"}
    assert RunRecord.model_fields.keys() - given == Facts.__annotations__.keys()


def fields(kind: type[Record]) -> set[str]:
    return {field.alias or name for name, field in kind.model_fields.items()}


def test_the_readme_of_the_data_names_every_field() -> None:
    named = set(re.findall(r"`(\w+)`", README.read_text(encoding="utf-8")))
    every = fields(RunRecord).union(*map(fields, BLOCKS.values()))
    assert every - named == set()
    assert kinds.known().keys() - {step.failed for step in steps.TRIAL} - named == set()
