"""LSNs as integers: PostgreSQL's spelling, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.lab.cluster.sql import WalPosition
from labkit.lab.failover.offline_state import segments
from labkit.lsn import lsn_text, parse_lsn

lsns = st.integers(0, 2**64 - 1)


def test_the_spelling_of_the_manual() -> None:
    assert parse_lsn("16/B374D848") == 0x16B374D848
    assert lsn_text(0x16B374D848) == "16/B374D848"


@given(lsns)
def test_there_and_back(lsn: int) -> None:
    assert parse_lsn(lsn_text(lsn)) == lsn


@given(lsns, lsns)
def test_differences_are_bytes(a: int, b: int) -> None:
    assert parse_lsn(lsn_text(a)) - parse_lsn(lsn_text(b)) == a - b


@pytest.mark.parametrize("text", ["", "12", "0/", "x/y", "1/2/3"])
def test_what_is_no_lsn(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_lsn(text)


@given(st.lists(st.none() | lsns, min_size=4, max_size=4))
def test_the_furthest_of_what_is_known(known: list[int | None]) -> None:
    position = WalPosition("replica", *known)
    assert position.furthest == max(lsn or 0 for lsn in known)


def test_a_position_in_words() -> None:
    assert str(WalPosition("replica", received=255, replayed=16)) == "received 0/FF replayed 0/10"
    assert str(WalPosition("replica")) == "nothing replayed yet"


SEGMENT_BYTES = st.sampled_from([2**20, 2**24, 2**30])


def segment(timeline: int, lsn: int, segment_bytes: int) -> str:
    """The name of the WAL segment that holds an LSN, as PostgreSQL's XLogFileName makes it."""
    return f"{timeline:08X}{lsn >> 32:08X}{(lsn & 0xFFFFFFFF) // segment_bytes:08X}"


def test_the_segments_of_the_manual() -> None:
    found = segments(["000000010000000000000002", "000000010000000000000001"], 1, 2**24)
    assert found == (1, 0x1000000, 0x3000000)
    assert segments(["0000000100000000000000FF"], 1, 2**24) == (1, 0xFF000000, 2**32)


@given(st.lists(st.integers(0, 2**60), min_size=1), SEGMENT_BYTES, st.integers(1, 9))
def test_wal_ends_within_the_last_segment_of_the_newest_timeline(
    lsns: list[int], segment_bytes: int, timeline: int
) -> None:
    names = [segment(timeline, lsn, segment_bytes) for lsn in lsns]
    others = ["archive_status", f"{timeline:08X}.history", names[0] + ".partial", segment(timeline - 1, 2**62, 2**24)]
    for known in range(1, timeline + 1):  # the control file may not know of a promotion yet
        found = segments([*others, *names], known, segment_bytes)
        assert found is not None
        newest, first, end = found
        assert newest == timeline
        assert first <= min(lsns) < first + segment_bytes
        assert max(lsns) < end <= max(lsns) + segment_bytes
    assert segments(names, timeline + 1, segment_bytes) is None
    assert segments(["archive_status"], timeline, segment_bytes) is None
