"""labkit audit: what it says of a run with many trials, and of one that keeps no ledger. No server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fix_cli import invoke
from fix_records import a_trial

from labkit import paths
from labkit.lab.failover import readback
from labkit.run import ledger
from labkit.run.schema import VERDICT_WORDS
from labkit.run.store import Run, RunStore

ASYNC, SAFE = ("async", "on"), ("ANY 1", "on")


def matrix(folder: Path, trials: list[tuple[tuple[str, str], list[int]]]) -> Run:
    """A recorded matrix: each trial acknowledged the keys 0, 1 and 2, and these were read back."""
    run = RunStore(folder).create("durability-matrix", {})
    for number, ((mode, level), there) in enumerate(trials):
        book = ledger.Ledger(run.path / "ledger" / f"block-{number:05d}.ledger", ["pg1", "pg2"], epoch_ns=0)
        for key in range(3):
            book.intend(key, 1, 0, now=key)
            book.settle(key, 1, 0, now=key + 1, outcome=ledger.OK)
        book.close()
        keys = np.array(there, np.int64)
        readback.record(run, number, "promoted", "pg2", keys, keys)
        run.note_block(a_trial(block=number, mode=mode, level=level))
    run.mark("complete")
    return run


def test_a_loss_that_replication_allows_is_a_finding_and_any_other_a_failure(tmp_path: Path) -> None:
    allowed = matrix(tmp_path / "allowed", [(SAFE, [0, 1, 2]), (ASYNC, [0]), (("FIRST 1", "local"), [0, 1])])
    done = invoke("audit", str(allowed.path))
    assert done.stdout.splitlines() == [
        "trial 0 ANY 1/on kill: audit passed, all 3 acknowledged rows are there",
        "trial 1 async/on kill: audit failed, 2 lost (this mode and level may lose rows)",
        "trial 2 FIRST 1/local kill: audit failed, 1 lost (this mode and level may lose rows)",
    ]
    assert done.exit_code == 0
    broken = matrix(tmp_path / "broken", [(SAFE, [0, 1])])
    assert invoke("audit", str(broken.path)).exit_code == 1
    invented = matrix(tmp_path / "invented", [(ASYNC, [0, 7])])
    assert invoke("audit", str(invented.path)).exit_code == 1
    assert "lost: 1" in invoke("audit", str(allowed.path), "--block", "1").stdout
    none = invoke("audit", str(allowed.path), "--block", "9")
    assert none.exit_code == 2
    assert "has no trial 9; there are 0 to 2" in none.stderr


def test_a_trial_that_cannot_be_judged_keeps_no_other_from_its_verdict(tmp_path: Path) -> None:
    run = matrix(tmp_path, [(SAFE, [0, 1, 2]), (SAFE, [0, 1, 2]), (SAFE, [0, 1, 2])])
    (run.path / "ledger" / "block-00001.ledger").unlink()
    missing = run.path / "survivors" / "block-00002-promoted.parquet"
    missing.unlink()
    done = invoke("audit", str(run.path))
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        "trial 0 ANY 1/on kill: audit passed, all 3 acknowledged rows are there",
        f"trial 1 ANY 1/on kill: audit has no verdict, {run.id} holds no ledger of trial 1, "
        "so there is nothing to audit",
        f"trial 2 ANY 1/on kill: audit has no verdict, {missing} is missing; what rests on it is unknown; "
        "bring it back from a copy of the run",
    ]
    assert f"damaged: {missing} is missing" in done.stderr
    alone = invoke("audit", str(run.path), "--block", "2")
    assert [line.split()[-1] for line in alone.stdout.splitlines()[1:]] == ["–"] * 8
    (told,) = json.loads(invoke("audit", str(run.path), "--block", "2", "--json").stdout)
    assert set(told["counts"].values()) == {None}, "nothing read back is never 0 lost"


def test_a_damaged_ledger_is_the_verdict_of_its_own_trial_only(tmp_path: Path) -> None:
    run = matrix(tmp_path, [(SAFE, [0, 1, 2]), (SAFE, [0, 1, 2])])
    damaged = run.path / "ledger" / "block-00000.ledger"
    damaged.write_bytes(b"no ledger at all")
    done = invoke("audit", str(run.path))
    assert done.exit_code == 1
    first, second = done.stdout.splitlines()
    assert first.startswith("trial 0 ANY 1/on kill: audit has no verdict, ")
    assert second == "trial 1 ANY 1/on kill: audit passed, all 3 acknowledged rows are there"
    assert done.stderr == ""
    assert invoke("audit", str(run.path), "--json").exit_code == 1
    assert invoke("audit", str(run.path), "--block", "1").exit_code == 0


@pytest.mark.parametrize("path", sorted((paths.sample_runs() / "durability-matrix").iterdir()), ids=lambda p: p.name)
def test_a_matrix_without_its_ledger_tells_what_run_json_knows_and_that_it_is_not_judged_again(path: Path) -> None:
    recorded = json.loads((path / "run.json").read_text(encoding="utf-8"))["blocks"]
    done = invoke("audit", str(path))
    assert done.exit_code == 2
    assert "keeps no ledger of writes, so there is nothing to judge again" in done.stderr
    first, *lines = done.stdout.splitlines()
    assert "as judged when it was recorded" in first
    assert [line.split(": ", 1)[1] for line in lines] == [
        f"audit {VERDICT_WORDS[b['verdict']]}, {b['reason']}" for b in recorded
    ]
    rows = json.loads(invoke("audit", str(path), "--json").stdout)
    assert all(row["recorded"] for row in rows)
    assert [row["counts"] for row in rows] == [b["counts"] for b in recorded]
