"""The replication lesson, driven once on every provider."""

from __future__ import annotations

import os

import pytest

from labkit.experiments.streaming_replication import findings as replication
from labkit.experiments.streaming_replication.drive import streaming_replication
from labkit.experiments.streaming_replication.parameters import StreamingReplication
from labkit.lab import procfs
from labkit.lab.providers.protocol import Provider
from labkit.run.store import Run


@pytest.fixture(scope="module")
def lesson(each_provider: Provider) -> Run:
    name = f"lesson-{os.getpid()}"
    values = {"provider": each_provider.name, "cluster": name, "commits": 30, "write_load_s": 1, "slot_keep_mb": 32}
    try:
        return streaming_replication(StreamingReplication.build(values))
    finally:
        each_provider.down(name, purge=True)


def test_the_lesson_is_valid_and_every_replica_streams_afterwards(lesson: Run) -> None:
    assert lesson.status == "complete"
    assert replication.validity(lesson) == []
    assert all(block.host_cpu is not None for block in lesson.blocks) or not procfs.HERE
    after = replication.topology(lesson, when="after")
    assert list(after["role"]) == ["primary", "replica", "replica"]
    assert list(after["state"])[1:] == ["streaming", "streaming"]


def test_with_remote_apply_the_synchronous_replica_shows_every_row_at_once(lesson: Run) -> None:
    found = replication.differences(lesson)
    promised = found[(found["level"] == "remote_apply") & found["synchronous"]]
    assert list(promised["visible_share"]) == [1.0]


def test_with_off_the_log_is_held_back(lesson: Run) -> None:
    found = replication.differences(lesson)
    assert found.loc[found["level"] == "off", "p50_ms"].min() > 1.0


def test_positions_come_in_the_order_in_which_wal_moves(lesson: Run) -> None:
    events = lesson.events()
    seen = events[events["kind"] == "position"]
    for earlier, later in (("sent", "write"), ("write", "flush"), ("flush", "replay")):
        assert (seen[f"{earlier}_behind_bytes"] <= seen[f"{later}_behind_bytes"]).all()


def test_a_slot_keeps_what_it_may_and_is_lost(lesson: Run) -> None:
    steps = replication.slot_steps(lesson)
    assert steps["wal_status"].iloc[0] == "reserved"
    assert steps["wal_status"].iloc[-1] == "lost"
    assert "ERROR" in str(replication.broken(lesson).loc["its log", ""]) or "FATAL" in str(
        replication.broken(lesson).loc["its log", ""]
    )


def test_a_read_that_needs_removed_rows_is_cancelled(lesson: Run) -> None:
    assert "conflict with recovery" in str(replication.conflict(lesson).loc["message", ""])
