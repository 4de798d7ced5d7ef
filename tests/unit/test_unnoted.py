"""Evidence that run.json does not note, or notes otherwise: named, never read into figures, without a verdict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from fix_cli import invoke
from fix_evidence import ROWS, a_failover
from fix_records import a_load, a_trial
from fix_runs import Recipe, build
from nbformat.v4 import new_markdown_cell, new_notebook

from labkit import paths
from labkit.analysis import frames
from labkit.analysis.report import report, tables
from labkit.checkers import audit, evidence
from labkit.errors import RunDamaged, RunUnreadable
from labkit.experiments.durability_matrix.parameters import DurabilityMatrix
from labkit.experiments.failover import findings
from labkit.experiments.streaming_replication import findings as streaming
from labkit.lab.failover import readback
from labkit.run.schema.events import NodeSeen, Stall
from labkit.run.store import Run, RunStore, read_run

PROMOTED = "survivors/block-00000-promoted.parquet"


def changed(run: Run, change: Callable[[dict[str, Any]], object]) -> None:
    """Change run.json by hand."""
    file = run.path / "run.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_a_stray_copy_of_a_part_is_named_and_counts_nothing_twice(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    stray = run.path / "survivors" / "block-00000-promoted-1.parquet"
    shutil.copy(run.path / PROMOTED, stray)
    (problem,) = evidence.problems(read_run(run.path))
    assert problem == f"{stray} is not noted in run.json; what rests on it is unknown"
    done = invoke("audit", str(run.path))
    assert done.exit_code == 1
    assert f"trial 0: audit has no verdict, {problem}" in done.stdout
    assert "duplicated" not in done.stdout
    assert f"damaged: {problem}" in done.stderr
    stray.unlink()
    assert invoke("audit", str(run.path)).exit_code == 0


@pytest.mark.parametrize("name", ["load-1", "block-00000", "block-00000-1", "mine"])
def test_a_stray_copy_of_requests_changes_no_conclusion(name: str, tmp_path: Path) -> None:
    run = build(tmp_path, Recipe(rounds=1, rate=200))
    shutil.copy(run.path / "ops" / "load.parquet", run.path / "ops" / f"{name}.parquet")
    with pytest.raises(RunDamaged, match=f"{name}.parquet is not noted in run.json"):
        frames.headline(read_run(run.path))


def test_what_was_put_into_a_run_is_not_noted_later_as_if_it_were_recorded(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    stray = run.path / "survivors" / "block-00000-promoted-1.parquet"
    shutil.copy(run.path / PROMOTED, stray)
    again = read_run(run.path)
    again.note_block(a_trial(mode="ANY 1"))
    again.mark("complete")
    assert [error.reason for error in read_run(run.path).damaged()] == [
        f"{stray} is not noted in run.json; what rests on it is unknown"
    ]


def test_a_part_whose_digest_was_taken_out_of_run_json_is_not_judged(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    keys = np.arange(3, dtype=np.int64)
    (run.path / PROMOTED).unlink()
    readback.record(run, 0, "promoted", "pg2", keys, keys)
    changed(run, lambda content: content["digests"].pop(PROMOTED))
    with pytest.raises(RunDamaged, match=r"run.json is not what was recorded, by its sha256"):
        read_run(run.path)
    for words in ("audit", "report"):
        done = invoke(words, str(run.path))
        assert done.exit_code == 1
        assert f"{run.path / 'run.json'} is not what was recorded" in done.stderr
    changed(run, lambda content: content.pop("seal"))
    with pytest.raises(RunDamaged, match=f"{PROMOTED} is not noted in run.json"):
        audit.of_run(read_run(run.path), 0)


def test_a_verdict_that_was_edited_in_run_json_is_not_told(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    changed(run, lambda content: content)
    assert read_run(run.path).blocks == run.blocks, "however it is laid out"
    changed(run, lambda content: content["blocks"][0].update(verdict="false", reason="1 lost"))
    with pytest.raises(RunDamaged):
        read_run(run.path)
    assert invoke("report", str(run.path)).exit_code == 1


def cut_off_in_the_second_block(root: Path) -> Run:
    """As a lab leaves it that was killed when it had written of two trials, and finished one."""
    run = RunStore(root).create("durability-matrix", DurabilityMatrix().as_dict(), planned={"ANY 1/on kill": 2})
    for number in (0, 1):
        keys = np.arange(3, dtype=np.int64) + 10 * number
        columns: dict[str, Any] = {"block": np.full(3, number), "key": keys, "rows": np.ones(3, np.int32)}
        columns |= {"node": ["pg1"] * 3, "intent_ns": [1, 2, 3], "done_ns": [2, 3, 4]}
        with run.writer("writes", number) as writer:
            writer.write(columns | {"outcome": ["ok"] * 3, "sqlstate": [""] * 3})
        readback.record(run, number, "promoted", "pg2", keys, keys)
        if number == 0:
            run.note_block(a_trial(mode="ANY 1"))
    return read_run(run.path)


def test_of_a_block_that_did_not_end_nothing_is_read_and_that_is_said(tmp_path: Path) -> None:
    run = cut_off_in_the_second_block(tmp_path)
    assert run.table("survivors")["key"].tolist() == [0, 1, 2]
    assert audit.of_run(run, 0).verdict == "true"
    with pytest.raises(RunDamaged, match=r"00001-promoted.parquet is not noted in run.json, its block did not end"):
        run.table("survivors", block=1)
    assert evidence.problems(run) == [
        "the run did not come to its end: the process that drove it was killed",
        "1 of 2 planned blocks is missing: ANY 1/on kill (1 of 2)",
        "what was written of a block that did not end is not noted, and is not read: "
        "writes/block-00001.parquet, survivors/block-00001-promoted.parquet",
    ]
    with run.driven():
        running = read_run(run.path)
        assert running.table("survivors")["key"].tolist() == [0, 1, 2]
        assert not any("not noted" in problem for problem in evidence.problems(running)), "it may end yet"
    run.drop_unfinished()
    assert not run.has("survivors", 1)


def test_the_terminal_names_what_is_missing_of_a_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cut_off_in_the_second_block(tmp_path / "runs")
    document = new_notebook(cells=[new_markdown_cell("# What is lost?")])
    nbformat.write(document, tmp_path / "executed.ipynb")
    drawn = report.Executed(document, tmp_path / "executed.ipynb", run)
    monkeypatch.setattr(report, "execute", lambda *_: drawn)
    missing = "Not valid: 1 of 2 planned blocks is missing: ANY 1/on kill (1 of 2)."
    told = invoke("report", str(run.path))
    assert told.exit_code == 1
    assert told.stdout.count(missing) == 1
    assert told.stdout.startswith("- Not valid: the run did not come to its end: the process that drove it was killed")
    judged = invoke("audit", str(run.path))
    assert judged.exit_code == 1
    assert "trial 0 ANY 1/on kill: audit passed" in judged.stdout
    assert missing in judged.stderr
    alone = invoke("audit", str(run.path), "--block", "0")
    assert (alone.exit_code, alone.stderr) == (0, ""), "that trial is whole"


def with_events(root: Path) -> Run:
    """A complete failover with three events."""
    run = a_failover(root)
    run.mark("measured")
    for moment in (1, 2, 3):
        run.note(Stall(node="pg1", from_ns=moment, to_ns=moment + 1))
    run.mark("complete")
    return run


@pytest.mark.parametrize("what", ["a line less", "another line", "the last line cut off", "one more line", "no file"])
def test_events_that_are_not_those_that_were_recorded_are_named(what: str, tmp_path: Path) -> None:
    run = with_events(tmp_path)
    assert [stall.from_ns for stall in read_run(run.path).events_of(Stall)] == [1, 2, 3]
    assert evidence.problems(run) == []
    file = run.path / "events.jsonl"
    first, second, third = file.read_bytes().splitlines(keepends=True)
    how = "is not what was recorded, by its sha256"
    if what == "no file":
        file.unlink()
        how = "is missing"
    else:
        left = {"a line less": [first, third], "another line": [first, second.replace(b"pg1", b"pg2"), third]}
        left |= {"the last line cut off": [first, second, third[:-9]], "one more line": [first, second, third, third]}
        file.write_bytes(b"".join(left[what]))
        how = "holds more than was recorded" if what == "one more line" else how
    damaged = read_run(run.path)
    assert evidence.problems(damaged) == [f"{file} {how}; what rests on it is unknown"]
    with pytest.raises(RunDamaged):
        damaged.events_of(Stall)
    with pytest.raises(RunDamaged):
        findings.steps(damaged)
    done = invoke("audit", str(run.path))
    assert done.exit_code == 1
    assert f"damaged: {file} {how}" in done.stderr
    damaged.mark("complete")
    assert len(evidence.problems(read_run(run.path))) == 1, "no digest is taken of what was damaged before"


def test_a_complete_run_of_before_whose_events_are_gone_was_not_cut_off(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("streaming-replication", {})
    with pytest.raises(RunUnreadable, match="was cut off before it noted anything of 'node'"):
        streaming.noted(run, NodeSeen)
    run.mark("complete")
    run.record.events = None  # it carries no digest of them
    with pytest.raises(RunDamaged, match=r"is complete, and its events.jsonl holds nothing of 'node'") as error:
        streaming.noted(run, NodeSeen)
    assert error.value.exit_code == 1


def test_events_of_a_run_that_was_killed_are_known_as_far_as_its_last_block(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("failover", {})
    run.note(Stall(node="pg1", from_ns=1, to_ns=2))
    run.note_block(a_trial())
    run.note(Stall(node="pg1", from_ns=2, to_ns=3))
    killed = read_run(run.path)
    assert [stall.from_ns for stall in killed.events_of(Stall)] == [1, 2], "what came after it is read as well"
    file = run.path / "events.jsonl"
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(RunDamaged, match=r"events.jsonl is not what was recorded"):
        killed.events()


def test_rows_that_were_read_back_and_are_not_kept_are_no_zero(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    shutil.rmtree(run.path / "survivors")
    row = findings.headline(run).loc[0]
    assert row["verdict"] == "unknown"
    assert [row[name] for name in ("acknowledged", "lost", "recovered", "gone")] == [None] * 4
    assert audit.of_run(run, 0).reason == "the rows that were read back are not kept"
    assert findings.written(run).loc["acknowledged", "rows"] == f"{ROWS:,}", "what the ledger holds is known"


def test_a_run_with_nothing_but_a_load_that_was_cut_off_in_its_warm_up_has_no_page(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("read-scaling", {}, planned={"get-user, primary-only": 2})
    run.note_block(a_load(interrupted=True, warm_until_ns=10**9))
    run.mark("failed", "interrupted by SIGTERM")
    done = invoke("report", str(run.path))
    assert done.exit_code == 1
    assert "holds no finished block (interrupted by SIGTERM); there is nothing to report" in done.stderr
    assert "2 of 2 planned blocks are missing" in done.stderr


def test_conditions_say_what_carries_a_checksum(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    assert tables.conditions(run).loc["checksums", "value"] == "of 3 files, events.jsonl and run.json"
    changed(run, lambda content: [content.pop(name) for name in ("events", "seal")])
    before = tables.conditions(read_run(run.path)).loc["checksums", "value"]
    assert before == "of 3 files; none of events.jsonl, run.json"


@pytest.mark.parametrize("name", ["read_scaling", "concurrency_sweep", "where_replicas_help"])
def test_notebooks_speak_of_short_rounds_only_where_there_are_some(name: str) -> None:
    """Of a run that was cut off before them too."""
    cells = nbformat.read(paths.notebooks() / f"{name}.ipynb", as_version=4).cells
    (text,) = [cell.source for cell in cells if cell.cell_type == "markdown" and "short" in cell.source]
    assert text.startswith("Where the run came to them, short rounds")
    assert "Without them the limit is unknown" in text
