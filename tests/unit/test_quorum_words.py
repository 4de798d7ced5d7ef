"""Which replicas a commit waits for, as words and as settings."""

from __future__ import annotations

import pytest

from labkit.errors import BadInput
from labkit.replication import Replication

REPLICAS = ["pg2", "pg3"]


@pytest.mark.parametrize(
    ("words", "setting", "states"),
    [
        ("off", "", ["async", "async"]),
        ("async", "", ["async", "async"]),
        ("FIRST 1", "FIRST 1 (pg2, pg3)", ["sync", "potential"]),
        ("first 2", "FIRST 2 (pg2, pg3)", ["sync", "sync"]),
        ("ANY 1", "ANY 1 (pg2, pg3)", ["quorum", "quorum"]),
    ],
)
def test_words_become_a_setting_and_the_states_it_leads_to(words: str, setting: str, states: list[str]) -> None:
    wanted = Replication.parse(words)
    assert wanted.standby_names(REPLICAS) == setting
    assert list(wanted.sync_states(REPLICAS).values()) == states


@pytest.mark.parametrize("words", ["", "ANY", "SOME 1", "ANY 1 (pg2)", "ANY -1"])
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(BadInput, match="no replication mode"):
        Replication.parse(words)


@pytest.mark.parametrize(
    ("value", "meaning"),
    [("", "async"), ("pg2, pg3", "FIRST 1"), ("*", "FIRST 1"), ("2 (pg2, pg3)", "FIRST 2"), ("ANY 1 (pg2)", "ANY 1")],
)
def test_a_setting_that_labkit_did_not_write_is_understood(value: str, meaning: str) -> None:
    assert str(Replication.from_setting(value)) == meaning


def test_a_quorum_of_more_replicas_than_there_are_is_refused() -> None:
    with pytest.raises(BadInput, match="ANY 3 asks for more than the 2 replicas"):
        Replication("ANY", 3).check(2)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(BadInput) as refused:
        Replication("SOME", 0, "fast").check(2)  # type: ignore[arg-type]
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(("level", "promised"), [("local", 0), ("remote_write", 1), ("on", 1), ("remote_apply", 1)])
def test_only_remote_levels_promise_a_replica(level: str, promised: int) -> None:
    assert Replication.parse("ANY 1", level).promises == promised
