"""Evidence that rots, is torn or is missing: it is named, and never gives a confident verdict."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from fix_cli import invoke
from fix_evidence import ROWS, a_failover
from fix_records import a_trial
from fix_runs import Recipe, build
from nbformat.v4 import new_markdown_cell, new_notebook

from labkit import paths
from labkit.analysis import frames
from labkit.analysis.report import report, tables
from labkit.checkers import audit, evidence
from labkit.errors import LabkitError, RunDamaged, RunError, RunUnreadable
from labkit.experiments.failover import findings
from labkit.lab.failover import readback
from labkit.run import digests, ledger
from labkit.run.schema.events import Stall
from labkit.run.store import Run, RunStore, read_run

TRIES = 120
Damage = Callable[[bytes, random.Random], bytes]


def one_bit(good: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(good))
    return good[:place] + bytes([good[place] ^ 1 << rng.randrange(8)]) + good[place + 1 :]


def two_hundred_bytes(good: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(good) - 200)
    return good[:place] + rng.randbytes(200) + good[place + 200 :]


def spoilt(part: Path, damage: Damage, tries: int = TRIES) -> Iterator[None]:
    """The part damaged in many ways, one after the other; whole again at the end."""
    good = part.read_bytes()
    for seed in range(tries):
        part.write_bytes(damage(good, random.Random(seed)))
        yield
    part.write_bytes(good)


@pytest.mark.parametrize("damage", [one_bit, two_hundred_bytes])
def test_a_damaged_part_is_named_and_gives_no_verdict(tmp_path: Path, damage: Damage) -> None:
    run = a_failover(tmp_path)
    assert audit.of_run(run, 0).reason == f"all {ROWS:,} acknowledged rows are there"
    for table, judge in {
        "writes": lambda run: audit.of_run(run, 0),
        "survivors": lambda run: audit.of_run(run, 0),
        "ghosts": findings.ghosts,
    }.items():
        (part,) = (run.path / table).iterdir()
        for _ in spoilt(part, damage):
            with pytest.raises(RunDamaged, match="what rests on it is unknown") as error:
                judge(read_run(run.path))
            assert str(part) in str(error.value)
    assert evidence.problems(run) == []


@pytest.mark.parametrize("damage", [one_bit, two_hundred_bytes])
def test_damaged_requests_give_no_figures(tmp_path: Path, damage: Damage) -> None:
    run = build(tmp_path, Recipe(rounds=1, rate=200))
    part = run.path / "ops" / "load.parquet"
    for _ in spoilt(part, damage):
        with pytest.raises(RunDamaged):
            frames.headline(read_run(run.path))


@pytest.mark.parametrize("damage", [one_bit, two_hundred_bytes])
def test_the_pages_of_a_part_without_a_digest_are_checked_too(tmp_path: Path, damage: Damage) -> None:
    """As those of a run of before: a part that cannot be trusted gives no other verdict."""
    run = a_failover(tmp_path)
    whole, tries = audit.of_run(run, 0), TRIES // 3
    for table in ("writes", "survivors"):
        (part,) = (run.path / table).iterdir()
        refused = 0
        for _ in spoilt(part, damage, tries):
            again = read_run(run.path)
            again.record.digests = None
            try:
                judged = audit.of_run(again, 0)
            except RunDamaged:
                refused += 1
                continue
            assert (judged.verdict, judged.counts) == (whole.verdict, whole.counts) or judged.verdict == "unknown"
        assert refused > tries / 5, table


def test_digests_are_noted_when_a_block_ends_and_of_a_crashed_run_as_far_as_it_came(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("failover", {})
    keys = np.arange(3, dtype=np.int64)
    readback.record(run, 0, "promoted", "pg2", keys, keys)
    run.note_block(a_trial())
    readback.record(run, 1, "promoted", "pg2", keys, keys)
    noted = json.loads((run.path / "run.json").read_text(encoding="utf-8"))["digests"]
    content = (run.path / "survivors" / "block-00000-promoted.parquet").read_bytes()
    assert noted == {"survivors/block-00000-promoted.parquet": f"sha256:{hashlib.sha256(content).hexdigest()}"}
    assert len(run.table("survivors")) == 6, "who drives the run reads what it has written"
    assert len(read_run(run.path).table("survivors")) == 3, "anybody else only what is noted"
    run.mark("failed", "interrupted")
    assert len(read_run(run.path).record.digests or {}) == 2


def test_what_a_resumed_run_does_again_gets_new_digests(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("durability-matrix", {})
    keys = np.arange(3, dtype=np.int64)
    for table_of in (0, 1):
        readback.record(run, table_of, "promoted", "pg2", keys, keys)
    run.mark("failed", "interrupted")
    run.drop_unfinished()
    assert run.record.digests == {}
    readback.record(run, 0, "promoted", "pg2", keys + 1, keys)
    run.note_block(a_trial())
    assert audit.present_keys(run, "promoted", 0).tolist() == [1, 2, 3]  # type: ignore[union-attr]


def test_a_digest_is_compared_once_for_all_that_is_read_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = read_run(a_failover(tmp_path).path)
    read: list[str] = []

    def digest(part: Path) -> str:
        read.append(part.parent.name)
        return noted(part)

    noted = digests.of_file
    monkeypatch.setattr(digests, "of_file", digest)
    for _ in range(3):
        audit.of_run(run, 0)
        evidence.problems(run)
    assert sorted(read) == ["ghosts", "survivors", "writes"]


def acknowledged_twice(root: Path, where: str) -> Run:
    """A failover whose ledger holds one key of 3 twice, as two transactions or as two endings of one."""
    run = RunStore(root).create("failover", {"mode": "ANY 1", "level": "on"})
    file = run.path / "ledger" / "block-00000.ledger"
    book = ledger.Ledger(file, ["pg1", "pg2"], epoch_ns=0)
    for key in (5, 6, 7):
        book.intend(key, 1, 0, now=10 * key)
        book.settle(key, 1, 0, now=10 * key + 5, outcome=ledger.OK)
    if where == "transaction":
        book.intend(6, 1, 0, now=90)
    book.settle(6, 1, 0, now=95, outcome=ledger.OK)
    book.close()
    ledger.settle_file(file, run, 0)
    keys = np.array([5, 6, 7], np.int64)
    readback.record(run, 0, "promoted", "pg2", keys, keys)
    readback.record(run, 0, "other", "pg3", keys, keys)
    run.note_block(a_trial(mode="ANY 1", views=["promoted", "other"]))
    run.mark("complete")
    return run


@pytest.mark.parametrize("where", ["transaction", "ending"])
def test_a_key_that_is_acknowledged_twice_is_a_defect_of_the_ledger_and_counts_once_everywhere(
    where: str, tmp_path: Path
) -> None:
    run = acknowledged_twice(tmp_path, where)
    judged = audit.of_run(run, 0)
    reason = "the ledger is wrong: it holds 1 key more than once, as 6"
    assert (judged.verdict, judged.reason, judged.acknowledged) == ("unknown", reason, 3)
    assert findings.headline(run).loc[0, "acknowledged"] == 3
    assert findings.written(run).loc["acknowledged"].to_dict() == {"transactions": "4", "rows": "3"}
    assert set(findings.table(run).loc["acknowledged and there"]) == {"3"}
    assert set(findings.table(run).loc["audit"]) == {"has no verdict"}
    said = str(findings.verdicts(run))
    assert f"Whether anything is lost is unknown (ANY 1, synchronous_commit = on): {reason}." in said
    assert "would have lost nothing" not in said
    assert findings.validity(run) == [f"the audit has no verdict: {reason}"]
    done = invoke("audit", str(run.path))
    assert done.exit_code == 1
    assert f"trial 0: audit has no verdict, {reason}" in done.stdout
    assert done.stdout.splitlines()[1].split()[-1] == "3"


@pytest.mark.parametrize("what", ["damaged", "missing"])
def test_audit_says_unknown_names_the_file_and_what_to_do(tmp_path: Path, what: str) -> None:
    run = a_failover(tmp_path)
    (part,) = (run.path / "writes").iterdir()
    if what == "damaged":
        part.write_bytes(one_bit(part.read_bytes(), random.Random(0)))
    else:
        part.unlink()
    done = invoke("audit", str(run.path))
    assert done.exit_code == 1
    assert str(part) in done.stderr
    assert "bring it back from a copy of the run" in done.stderr
    assert "audit passed" not in done.stdout
    assert "audit failed" not in done.stdout
    if what == "damaged":
        assert "trial 0: audit has no verdict" in done.stdout
        (judged,) = json.loads(invoke("audit", str(run.path), "--json").stdout)
        assert judged["verdict"] == "unknown"
        assert set(judged["counts"].values()) == {None}


def test_audit_names_a_damaged_file_that_its_verdict_does_not_rest_on(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    (part,) = (run.path / "ghosts").iterdir()
    part.write_bytes(two_hundred_bytes(part.read_bytes(), random.Random(0)))
    done = invoke("audit", str(run.path))
    assert "trial 0: audit passed" in done.stdout
    assert f"damaged: {part} is not what was recorded" in done.stderr
    assert done.exit_code == 1


def test_a_table_that_is_not_kept_is_no_damage(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    (part,) = (run.path / "ghosts").iterdir()
    part.unlink()
    assert len(evidence.problems(run)) == 1
    part.parent.rmdir()
    assert evidence.problems(run) == []


def test_an_older_run_says_once_that_it_carries_no_checksums() -> None:
    older = next(run for run in map(read_run, RunStore(paths.sample_runs()).paths()) if run.has("writes"))
    older.record.digests = None  # also if the sample was recorded again since
    assert evidence.carries_none(older)
    assert evidence.problems(older) == []
    assert tables.conditions(older).loc["checksums", "value"] == "none: it was recorded before there were any"


def test_audit_of_a_run_without_checksums_says_so_and_judges(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    file = run.path / "run.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for name in ("digests", "events", "seal"):
        del content[name]
    file.write_text(json.dumps(content), encoding="utf-8")
    done = invoke("audit", str(run.path))
    assert done.exit_code == 0
    assert done.stderr.count("carries no checksums") == 1
    assert "trial 0: audit passed" in done.stdout


def test_a_last_event_that_was_cut_off_is_left_out_and_said(tmp_path: Path) -> None:
    run = a_failover(tmp_path)
    run.mark("measured")  # as a run that was killed at its end
    cut_off = evidence.problems(run)
    for moment in (1, 2):
        run.note(Stall(node="pg1", from_ns=moment, to_ns=moment + 1))
    file = run.path / "events.jsonl"
    whole = file.read_bytes()
    second = whole.index(b"\n") + 1
    file.write_bytes(whole[:-1])
    assert [stall.from_ns for stall in run.events_of(Stall)] == [1, 2], "of the last one only the newline is missing"
    assert evidence.problems(run) == cut_off
    for end in range(second + 1, len(whole) - 1):
        file.write_bytes(whole[:end])
        assert [stall.from_ns for stall in run.events_of(Stall)] == [1], end
        torn = "events.jsonl ends in the middle of a line: its last event is lost"
        assert evidence.problems(run) == [*cut_off, torn], end
    for left, kept in ((whole[:-2], [1, 3]), (whole[:-1], [1, 2, 3])):
        file.write_bytes(left)
        with run.driven():
            run.note(Stall(node="pg1", from_ns=3, to_ns=4))
        assert [stall.from_ns for stall in run.events_of(Stall)] == kept, "what goes on begins a new line"
    file.write_bytes(whole[: second - 5] + b"\n" + whole[second:])
    with pytest.raises(RunUnreadable, match="line 1"):
        run.events()


def test_a_run_is_running_as_long_as_a_process_drives_it_and_else_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    run = RunStore(paths.runs()).create("failover", {})
    with run.driven():
        assert read_run(run.path).state == "running"
        assert f"{run.id}  running" in invoke("runs").stdout
        assert "holds no finished block (it is running)" in invoke("report", run.id).stderr
        with pytest.raises(RunError, match="is under way in another process"), read_run(run.path).driven():
            pytest.fail("two drive one run")
        assert evidence.problems(run) == ["the run is still under way; it has 0 finished blocks"]
    listed = invoke("runs").stdout
    assert f"{run.id}  cut off" in listed
    assert "the process that drove it was killed" in listed
    row = json.loads(invoke("runs", "--json").stdout)[-1]
    assert (row["status"], row["state"]) == ("started", "cut off")
    run.mark("failed", "interrupted")
    assert f"{run.id}  failed" in invoke("runs").stdout


def test_what_is_missing_is_counted_by_cell(tmp_path: Path) -> None:
    run = build(tmp_path, Recipe(rounds=2, workloads=("get-user",), status="failed"))
    planned = {f"get-user, {arm}": 3 for arm in ("primary-only", "replicas-round-robin")}
    run.update(planned=planned | {"search-users, primary-only": 1})
    last = run.blocks[-1].changed(interrupted=True)
    run.note_block(last)
    cut_off, missing = evidence.problems(run)
    short = "a block of get-user, primary-only was cut short after 2 s, and its figures are of these"
    assert cut_off == f"the run did not come to its end: the load was interrupted; {short}"
    assert missing == (
        "3 of 7 planned blocks are missing: get-user, primary-only (1 of 3); get-user, replicas-round-robin (1 of 3); "
        "search-users, primary-only"
    )
    assert frames.headline(run)["requests"].sum() > 0
    run.note_block(last.changed(to_ns=last.warm_until_ns))
    before_it_measured, missing = evidence.problems(run)
    assert "cut short" not in before_it_measured
    assert "4 of 7 planned blocks are missing: get-user, primary-only (2 of 3)" in missing


def drawn_without_a_kernel(run: Run, folder: Path) -> report.Executed:
    document = new_notebook(cells=[new_markdown_cell("# What do replicas buy?"), new_markdown_cell("text")])
    nbformat.write(document, folder / "executed.ipynb")
    return report.Executed(document, folder / "executed.ipynb", run)


@pytest.mark.parametrize("how", ["failed", "cut off", "running"])
def test_the_report_of_a_run_that_did_not_end_begins_with_what_is_missing_and_exits_with_1(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build(tmp_path / "runs", Recipe(rounds=2, status="failed" if how == "failed" else "started"))
    run.update(planned={"get-user, primary-only": 9})
    monkeypatch.setattr(report, "execute", lambda *_: drawn_without_a_kernel(run, tmp_path))
    if how == "running":
        with run.driven():
            done = invoke("report", str(run.path))
    else:
        done = invoke("report", str(run.path))
    assert done.exit_code == 1
    page = run.page.read_text(encoding="utf-8")
    said = {"failed": "the load was interrupted", "cut off": "was killed", "running": "is still under way"}[how]
    head = page[page.index("<h1") : page.index("<p>text")]
    assert said in head
    assert "7 of 9 planned blocks are missing" in head
    assert head.index(said) < head.index("requests per second")
    assert head.count("did not come to its end") == (how != "running")
    summary = run.summary()
    assert summary is not None
    assert not summary.valid


def test_the_report_of_a_damaged_run_exits_with_1_and_leaves_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = build(tmp_path / "runs", Recipe(rounds=1))
    part = run.path / "ops" / "load.parquet"
    part.write_bytes(one_bit(part.read_bytes(), random.Random(1)))

    def in_a_kernel(*_: object) -> report.Executed:
        try:
            frames.headline(read_run(run.path))
        except LabkitError as error:
            raise LabkitError.from_dict(error.as_dict()) from None  # as it comes back from there
        raise AssertionError

    monkeypatch.setattr(report, "execute", in_a_kernel)
    run.page.write_text("as it was before", encoding="utf-8")
    done = invoke("report", str(run.path))
    assert done.exit_code == 1
    assert str(part) in done.stderr
    summary = run.summary()
    assert summary is not None
    assert (summary.valid, summary.headline) == (False, [])
    assert not run.page.exists()
    assert "unknown" in summary.verdicts[0]
