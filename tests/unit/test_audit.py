"""The audit finds what was planted, whatever else is there: properties, and the cases that must not pass."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.checkers import audit
from labkit.run import ledger
from labkit.run.schema import WRITE_OUTCOMES
from labkit.run.store import RunStore

OUTCOMES = st.sampled_from(WRITE_OUTCOMES)


def keys(values: Iterable[int]) -> audit.Keys:
    return np.array(list(values), dtype=np.int64)


def _ledger(outcomes: list[str], rows: int = 1) -> pd.DataFrame:
    count = len(outcomes)
    return pd.DataFrame(
        {
            "key": np.arange(count, dtype=np.int64) * rows,
            "rows": np.full(count, rows, np.int32),
            "outcome": outcomes,
            "done_ns": np.arange(count, dtype=np.int64),
        }
    )


@settings(deadline=None)  # pandas takes its time on first use
@given(st.lists(OUTCOMES, max_size=60), st.data())
def test_planted_deletions_duplicates_and_inventions_are_all_found(outcomes: list[str], data: st.DataObject) -> None:
    writes = _ledger(outcomes)
    acknowledged = [i for i, outcome in enumerate(outcomes) if outcome == "ok"]
    uncertain = [i for i, outcome in enumerate(outcomes) if outcome in ("unknown", "ok-with-warning")]
    deleted = set(data.draw(st.lists(st.sampled_from(acknowledged), unique=True))) if acknowledged else set()
    arrived = set(data.draw(st.lists(st.sampled_from(uncertain), unique=True))) if uncertain else set()
    kept = sorted((set(acknowledged) - deleted) | arrived)
    twice = set(data.draw(st.lists(st.sampled_from(kept), unique=True))) if kept else set()
    invented = set(data.draw(st.lists(st.integers(1000, 2000), unique=True, max_size=5)))
    present = data.draw(st.permutations([*kept, *twice, *invented]))

    found = audit.judge(writes, keys(present))

    assert set(found.lost) == deleted
    assert set(found.duplicated) == twice
    assert set(found.unexpected) == invented
    assert set(found.recovered) == arrived
    assert set(found.gone) == set(uncertain) - arrived
    assert (found.verdict == "false") == bool(deleted or twice or invented)
    assert sum(len(getattr(found, c)) for c in ("kept", "lost", "recovered", "gone", "refused")) == len(outcomes)


@given(st.lists(OUTCOMES, max_size=20), st.integers(1, 5))
def test_every_row_of_a_transaction_counts(outcomes: list[str], rows: int) -> None:
    writes = _ledger(outcomes, rows)
    everything = keys(range(len(outcomes) * rows))
    found = audit.judge(writes, everything)
    assert len(found.kept) == outcomes.count("ok") * rows
    assert len(found.contradicted) == outcomes.count("fail") * rows


def test_a_promotion_that_failed_is_unknown_and_not_zero_lost() -> None:
    found = audit.judge(_ledger(["ok"] * 5), None)
    assert (found.verdict, found.reason) == ("unknown", "nothing was read back, of 5 acknowledged rows")
    assert set(found.counts.values()) == {None}


def test_an_empty_table_lost_everything() -> None:
    assert len(audit.judge(_ledger(["ok"] * 5), keys([])).lost) == 5


def test_nothing_acknowledged_shows_nothing() -> None:
    assert audit.judge(_ledger(["unknown"] * 3), keys([])).verdict == "unknown"


def test_rows_read_before_the_last_acknowledgement_give_no_verdict() -> None:
    found = audit.judge(_ledger(["ok"] * 5), keys([0, 1, 2]), read_ns=2)
    assert (found.verdict, found.reason) == ("unknown", "2 rows were acknowledged after the rows were read back")


def test_a_ledger_whose_lab_was_killed_is_read_as_unknown_where_it_ends(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("failover", {})
    book = ledger.Ledger(run.path / "ledger" / "block-00000.ledger", ["pg1", "pg2"], epoch_ns=0)
    for key in range(3):
        book.intend(key, 1, 0, now=key)
    book.settle(0, 1, 0, now=5, outcome=ledger.OK)
    book.settle(2, 1, 0, now=6, outcome=ledger.FAIL, sqlstate="25006")
    book.close()
    with (run.path / "ledger" / "block-00000.ledger").open("ab") as file:
        file.write(b"half a rec")

    writes = ledger.written(run)

    assert writes["outcome"].tolist() == ["ok", "unknown", "fail"]
    assert writes["done_ns"].tolist() == [5, -1, 6]
    assert writes["sqlstate"].tolist() == ["", ledger.LAB_KILLED, "25006"]
    assert audit.left_open(run) == 1
    assert audit.of_run(run).verdict == "unknown"
