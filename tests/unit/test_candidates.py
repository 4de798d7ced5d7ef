"""Which replica is promoted: the table, the managers' rules, and when none is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.lab.failover.candidates import Survivor, decide
from labkit.remedies import advice
from labkit.replication import Replication
from labkit.wording import suggest

ANY_1 = Replication("ANY", 1, "on")
ASYNC = Replication("off")
LSN = st.integers(1, 2**40)


def test_the_highest_received_wins_although_another_has_replayed_more() -> None:
    decision = decide([Survivor("pg2", received=100, replayed=90), Survivor("pg3", received=120, replayed=80)], ANY_1)
    assert decision.chosen is not None
    assert decision.chosen.name == "pg3"
    assert decision.table()[0].behind_best_bytes == 20


def test_a_newer_timeline_wins_over_more_bytes() -> None:
    decision = decide([Survivor("pg2", received=100, timeline=2), Survivor("pg3", received=120, timeline=1)], ASYNC)
    assert decision.chosen is not None
    assert decision.chosen.name == "pg2"


def test_managers_may_choose_differently() -> None:
    """pg3 has the most WAL, pg2 the higher priority; pg_auto_failover fetches what pg2 lacks."""
    survivors = [Survivor("pg2", received=100, priority=200), Survivor("pg3", received=120)]
    assert decide(survivors, ANY_1).choices == {
        "labkit": "pg3",
        "Patroni": "pg3",
        "pg_auto_failover": "pg2",
        "repmgr": "pg3",
    }


def test_a_quorum_that_cannot_be_proven_is_refused_and_says_why() -> None:
    decision = decide([Survivor("pg2", received=100), Survivor("pg3", answers=False)], ANY_1)
    assert "the quorum cannot be proven" in decision.refusals[0]
    assert "pg3 does not answer" in decision.refusals[0]
    assert decision.remedies == (advice("start pg3"),)
    assert decision.choices["pg_auto_failover"] is None


def test_any_2_survives_one_missing_replica() -> None:
    assert not decide([Survivor("pg2", received=100), Survivor("pg3", answers=False)], Replication("ANY", 2)).refusals


def test_asynchronous_replication_has_no_quorum_to_prove() -> None:
    survivors = [Survivor("pg2", received=100), Survivor("pg3", answers=False)]
    assert not decide(survivors, ASYNC, primary_lsn=100).refusals


def test_an_unknown_position_is_not_a_lag_of_zero() -> None:
    survivors = [Survivor("pg2", received=100), Survivor("pg3", received=100)]
    (refusal,) = decide(survivors, ASYNC).refusals
    assert "how far pg2 is behind is not known" in refusal
    assert not decide(survivors, Replication("ANY", 1, "on")).refusals, "the quorum proves what the position would"
    assert decide(survivors, Replication("ANY", 1, "local")).refusals, "local waits for no replica"


def test_a_replica_too_far_behind_is_refused() -> None:
    decision = decide([Survivor("pg2", received=100)], ASYNC, primary_lsn=5_000, max_lag_bytes=1_000)
    assert "4,900 bytes of WAL behind" in decision.refusals[0]


def test_a_paused_replica_that_has_more_is_a_reason_to_refuse() -> None:
    survivors = [Survivor("pg2", received=100), Survivor("pg3", received=120, replay_paused=True)]
    decision = decide(survivors, ANY_1)
    assert decision.chosen is not None
    assert decision.chosen.name == "pg2"
    assert "its replay is paused" in decision.refusals[0]


@pytest.mark.parametrize(
    ("survivors", "helps"),
    [
        ([], "start one, or start the primary again"),
        ([Survivor("pg2", answers=False)], "start one, or start the primary again"),
        (
            [Survivor("pg2", received=1, replay_paused=True)],
            "SELECT pg_wal_replay_resume() on pg2 makes it eligible",
        ),
        ([Survivor("pg2", received=1, priority=0)], "raise the priority of pg2"),
    ],
)
def test_without_an_eligible_replica_nothing_can_be_promoted(survivors: list[Survivor], helps: str) -> None:
    """What helps is not a part of the reason: each place words it for itself."""
    decision = decide(survivors, ASYNC)
    assert decision.chosen is None
    assert decision.impossible
    assert suggest(decision.remedies) == helps
    assert not [reason for reason in decision.impossible if ";" in reason]


@given(st.lists(LSN, min_size=1, max_size=6), st.integers(1, 6), st.data())
def test_what_is_promoted_without_refusal_has_every_commit_that_the_quorum_promised(
    received: list[int], k: int, data: st.DataObject
) -> None:
    """A commit is acknowledged when any k replicas have it; then some replicas are lost with the primary."""
    n = len(received)
    k = min(k, n)
    acknowledged = sorted(received)[n - k]  # the highest LSN that at least k replicas have
    lost = data.draw(st.sets(st.integers(0, n - 1), max_size=n))
    survivors = [Survivor(f"pg{i + 2}", answers=i not in lost, received=lsn) for i, lsn in enumerate(received)]
    decision = decide(survivors, Replication("ANY", k, "on"))
    if decision.chosen is not None and not decision.refusals:
        assert decision.chosen.has >= acknowledged
    if len(lost) < k:
        assert decision.chosen is not None
        assert not decision.refusals
