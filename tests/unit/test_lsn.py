"""LSNs as integers: PostgreSQL's spelling, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.postgres import WalPosition, lsn_text, parse_lsn

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
