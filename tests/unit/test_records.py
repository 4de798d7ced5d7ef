"""What is recorded is what is read back: nothing is lost between the buffer and the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.lab.load import records
from labkit.run.parts import PartWriter, Tables
from labkit.run.schema import OUTCOMES

record = st.tuples(
    st.integers(0, 2**60),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.integers(0, 2**31 - 1),
    st.sampled_from(["", "57P01", "08006", records.DEADLINE]),
    st.integers(0, 2),
    st.integers(0, 2),
)
NODES = ["pg1", "pg2", "pg3"]


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(record, min_size=1, max_size=60), flushes=st.sets(st.integers(0, 60)))
def test_every_record_comes_back(
    rows: list[tuple[int, int, int, int, str, int, int]],
    flushes: set[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with PartWriter(folder / "ops" / "part.parquet", "ops") as writer:
        recorder = records.Recorder(writer, block=7, nodes=NODES)
        for i, row in enumerate(rows):
            recorder.add(*row)
            if i in flushes:
                recorder.flush()
        recorder.flush()
    frame = Tables(folder).table("ops")
    back = list(
        zip(
            *(frame[name] for name in ("start_ns", "wait_ns", "latency_ns", "rows", "sqlstate", "node", "outcome")),
            strict=True,
        )
    )
    assert back == [(*row[:5], NODES[row[5]], OUTCOMES[row[6]]) for row in rows]
    assert set(frame["block"]) == {7}
    assert recorder.rows == len(rows)


def test_a_full_buffer_flushes_itself_and_the_measured_part_is_counted(tmp_path: Path) -> None:
    with PartWriter(tmp_path / "ops" / "part.parquet", "ops") as writer:
        recorder = records.Recorder(writer, block=0, nodes=NODES)
        recorder.window = (1000, 2000)
        n = recorder.limit // recorder.size
        for i in range(n):
            recorder.add(i, 1, 3, 1, "", 0, records.OK)  # answered at i + 3, busy for 2
        assert recorder.offset == 0
    assert recorder.measured == 1000
    assert recorder.busy_ns == 2000


def test_a_connection_is_in_use_within_the_measured_part_only(tmp_path: Path) -> None:
    with PartWriter(tmp_path / "ops" / "part.parquet", "ops") as writer:
        recorder = records.Recorder(writer, block=0, nodes=NODES)
        recorder.window = (1000, 2000)
        for start, wait, latency in ((0, 0, 500), (900, 50, 250), (1500, 400, 800), (800, 0, 5000), (1990, 100, 200)):
            recorder.add(start, wait, latency, 1, "", 0, records.OK)
        recorder.flush()
    assert recorder.busy_ns == 0 + 150 + 100 + 1000 + 0


def test_fresh_records_are_handed_out_once(tmp_path: Path) -> None:
    with PartWriter(tmp_path / "ops" / "part.parquet", "ops") as writer:
        recorder = records.Recorder(writer, block=0, nodes=NODES, keep_fresh=True)
        seen: list[np.ndarray] = []
        for i in range(10):
            recorder.add(i, 0, 1, 1, "", 0, records.OK)
            if i == 4:
                seen.append(recorder.fresh())
            if i == 6:
                recorder.flush()
        seen.append(recorder.fresh())
        assert [list(part["start_ns"]) for part in seen] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_a_part_cut_off_while_being_written_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path / "ops" / "part.parquet", "ops")
    recorder = records.Recorder(writer, block=0, nodes=NODES)
    recorder.add(1, 0, 1, 1, "", 0, records.OK)
    recorder.flush()
    assert not Tables(tmp_path).has("ops")
    writer.close()
    assert len(Tables(tmp_path).table("ops")) == 1
