"""Run directories: found again, readable after a failure, and clear about what is wrong with them."""

from __future__ import annotations

import contextlib
import inspect
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest

from labkit.errors import RunNotFound, RunUnreadable
from labkit.run.layout import Table, View
from labkit.run.parts import SCHEMAS, PartWriter, Tables
from labkit.run.schema.events import Stall
from labkit.run.store import Run, RunStore

OPS = {
    "block": [0, 0],
    "node": ["pg1", "pg2"],
    "start_ns": [10, 20],
    "wait_ns": [1, 2],
    "latency_ns": [5, 6],
    "outcome": ["ok", "fail"],
    "sqlstate": ["", "57P01"],
    "rows": [1, 0],
}


FIRST_WRITE = f"""
import sys
from pathlib import Path
import numpy as np
import labkit.lab.load.engine
from labkit.run.layout import Table, View
from labkit.run.parts import SCHEMAS, PartWriter, Tables
rows = {OPS!r}
with PartWriter(Path(sys.argv[1]), "ops") as writer:
    known = set(sys.modules)
    writer.write({{name: np.array(values) if isinstance(values[0], int) else values for name, values in rows.items()}})
    print(sorted(set(sys.modules) - known))
"""


@pytest.mark.parametrize("read", [lambda run: run.table("ops"), lambda run: list(run.batches("ops", ["rows"]))])
def test_a_part_with_wrong_columns_is_named_with_them(store: RunStore, read: Callable[[Run], object]) -> None:
    run = store.create("read-scaling", {})
    with run.writer("ops", "a") as writer:
        writer.write(OPS)
    file = run.path / "ops" / "a.parquet"
    frame = pd.read_parquet(file)
    frame.drop(columns=["block", "outcome"]).astype({"rows": "float64"}).to_parquet(file)
    with pytest.raises(RunUnreadable) as caught:
        read(run)
    said = str(caught.value)
    assert f"{file} cannot be read as a part of ops: column block is missing; column outcome is missing" in said
    assert "column rows is double, not int32" in said


def test_a_table_and_a_view_are_words_that_a_type_checker_knows() -> None:
    """With `table: str` a misspelt one would be found when it is read, after an experiment of an hour."""
    assert set(get_args(Table)) == SCHEMAS.keys()
    named = 0
    for kind in (Run, Tables, PartWriter):
        for method in (each for each in vars(kind).values() if inspect.isfunction(each)):
            hints = get_type_hints(method)
            assert hints.get("table", Table) == Table, method
            assert hints.get("view", View | None) == View | None, method
            named += "table" in hints
    assert named >= 8


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def test_the_first_row_group_of_a_process_imports_nothing(tmp_path: Path) -> None:
    """It is written in the middle of a load, where an import of a sixth of a second would be a stall of every user."""
    words = [sys.executable, "-c", FIRST_WRITE, str(tmp_path / "part.parquet")]
    assert subprocess.check_output(words, text=True, timeout=60).strip() == "[]"


def test_a_run_is_found_by_id_by_part_by_path_and_as_latest(store: RunStore) -> None:
    first = store.create("read-scaling", {"vus": 1})
    second = store.create("failover", {"vus": 2})
    for name in (first.id, first.path.name, first.path.name[-6:], first.path, "read-scaling/latest"):
        assert store.open(name).id == first.id
    assert {path.name for path in store.paths()} == {first.path.name, second.path.name}
    assert store.latest("failover").id == second.id
    assert (first.path.parent / "latest").resolve() == first.path


def test_what_was_written_is_read_and_parts_are_joined(store: RunStore) -> None:
    run = store.create("read-scaling", {})
    for part in ("a", "b"):
        with run.writer("ops", part) as writer:
            writer.write(OPS)
    assert len(run.table("ops")) == 4, "who makes a part reads it before its block has ended"
    run.mark("measured")
    frame = store.open(run.id).table("ops")
    assert list(frame["start_ns"]) == [10, 20, 10, 20]
    assert list(frame["node"]) == ["pg1", "pg2"] * 2
    assert set(frame["outcome"].cat.categories) == {"ok", "fail"}
    assert list(run.table("ops", columns=["rows"])) == ["rows"]


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """No file may grow beyond 16 kB, which fails as a full disk does: with an OSError in the middle of a write.

    No fixture: pytest itself writes, perhaps into a long file, before fixtures are undone.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_part_that_cannot_be_written_says_why_every_time_and_leaves_nothing(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).integers(0, 2**60, 10_000)
    rows = {name: value * (len(numbers) // 2) for name, value in OPS.items()} | {"start_ns": numbers}
    with no_room(), PartWriter(tmp_path / "ops" / "a.parquet", "ops") as writer:
        with pytest.raises(OSError, match="too large") as first:
            writer.write(rows)
        with pytest.raises(OSError, match="too large") as again:
            writer.write(OPS)
    assert again.value is first.value
    assert list((tmp_path / "ops").iterdir()) == []


def test_a_part_is_never_written_twice(store: RunStore) -> None:
    run = store.create("read-scaling", {})
    with run.writer("ops", "a") as writer:
        writer.write(OPS)
    with pytest.raises(RunUnreadable, match="already written"):
        run.writer("ops", "a")


def test_a_failed_run_keeps_what_was_measured(store: RunStore) -> None:
    run = store.create("read-scaling", {})
    with run.writer("ops", "a") as writer:
        writer.write(OPS)
    run.note(Stall(node="pg1", from_ns=0, to_ns=1))
    run.mark("failed", "disk full")
    again = store.open(run.id)
    assert (again.status, again.problem) == ("failed", "disk full")
    assert len(again.table("ops")) == 2
    assert again.events()["node"].tolist() == ["pg1"]
    assert again.events()["t_ns"].iloc[0] > 0


def test_a_run_that_measured_nothing_says_so(store: RunStore) -> None:
    with pytest.raises(RunUnreadable, match="cut off before anything was measured"):
        store.create("read-scaling", {}).table("ops")


def test_an_unknown_run_lists_the_newest(store: RunStore) -> None:
    run = store.create("read-scaling", {})
    with pytest.raises(RunNotFound, match=run.path.name):
        store.open("2019-never")


def test_an_ambiguous_name_lists_the_matches(store: RunStore) -> None:
    runs = [store.create("read-scaling", {}) for _ in range(2)]
    with pytest.raises(RunNotFound, match="more than one") as caught:
        store.open("read-scaling/20")
    assert all(run.path.name in str(caught.value) for run in runs)


def test_an_empty_store_says_what_makes_a_run(store: RunStore) -> None:
    with pytest.raises(RunNotFound, match="running the experiment read-scaling makes one"):
        store.latest()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', "\x00\x01"])
def test_a_damaged_run_json_is_named(store: RunStore, content: str) -> None:
    run = store.create("read-scaling", {})
    (run.path / "run.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunUnreadable, match=r"run\.json"):
        store.open(run.id)


def test_a_run_of_a_newer_labkit_is_refused(store: RunStore) -> None:
    run = store.create("read-scaling", {})
    meta = json.loads((run.path / "run.json").read_text(encoding="utf-8")) | {"schema": 99}
    (run.path / "run.json").write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(RunUnreadable, match="update labkit"):
        store.open(run.id)


def test_a_damaged_part_is_named(store: RunStore) -> None:
    run = store.create("read-scaling", {})
    with run.writer("ops", "a") as writer:
        writer.write(OPS)
    file = run.path / "ops" / "a.parquet"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(RunUnreadable, match=r"a\.parquet"):
        run.table("ops")


def test_a_directory_that_is_no_run_is_refused(store: RunStore, tmp_path: Path) -> None:
    with pytest.raises(RunUnreadable, match="not a run"):
        store.open(tmp_path)


def test_numpy_values_become_plain_numbers(store: RunStore) -> None:
    run = store.create("read-scaling", {"vus": np.int64(3), "rate": np.float64(0.5)})
    assert store.open(run.id).parameters == {"vus": 3, "rate": 0.5}
    assert isinstance(run, Run)


def test_an_unknown_status_is_a_bug(store: RunStore) -> None:
    with pytest.raises(ValueError, match="finished"):
        store.create("read-scaling", {}).mark("finished")
