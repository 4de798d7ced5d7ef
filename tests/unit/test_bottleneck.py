"""What limited a run is what a change has shown, never how busy something was."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fix_records import a_host_cpu, a_load

from labkit.analysis.report import tables
from labkit.analysis.statistics.bottleneck import bottleneck, interventions
from labkit.analysis.words import arm_words
from labkit.checkers import offered
from labkit.experiments.read_scaling import findings
from labkit.run.schema import LoadBlock
from labkit.run.store import Run, read_run

MakeRun = Callable[..., Run]
USED_UP = a_host_cpu(servers={"pg1": 1.3}, generator=0.6, lab=0.03, others=0.02, idle=0.05)
# Get-user, 1,000 users, 32 connections, servers and generator on two cores: twice the connections cost 28 %.
CROWDED = {"connections doubled": 0.72, "users halved": 1.0, "one load generator more": 0.93}


def on_the_primary(run: Run) -> tuple[str, str]:
    """The verdict on get-user, and how it is known."""
    row = bottleneck(run).iloc[0]
    assert (row["workload"], row["arm"]) == ("get-user", "primary-only")
    return row["limit"], row["reason"]


def test_waiting_for_a_connection_is_no_verdict_where_more_of_them_cost_throughput(make_run: MakeRun) -> None:
    run = make_run(host_cpu=USED_UP, changes=CROWDED, pool_busy_fraction=1.0, wait_share=0.97)
    limit, reason = on_the_primary(run)
    assert limit == "host"
    assert "1.95 of 2 cores (servers 1.30, load generator 0.60, lab 0.03, other programs 0.02) were busy" in reason
    assert ", and nothing that was tried gains 10 %: twice the connections −2" in reason
    assert reason.endswith("; 95 % intervals, 4 short rounds")
    (said,) = (s for s in findings.verdicts(run) if s.startswith("What limited get-user on the primary alone"))
    assert said.startswith("What limited get-user on the primary alone: the CPU of the machine; 1.95 of 2")
    assert [s for s in findings.verdicts(run) if "nothing was changed here" in s] == [
        "What limited get-user on the replicas, search-users on the replicas: unknown; "
        "nothing was changed here to find out; raise `interventions_s`."
    ]


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        ("connections doubled", "pool"),
        ("users halved", "users"),
        ("one load generator more", "client"),
        ("CPU limit doubled", "servers"),
    ],
)
def test_the_limit_is_what_raised_throughput_however_busy_the_rest(make_run: MakeRun, change: str, limit: str) -> None:
    found, reason = on_the_primary(make_run(host_cpu=USED_UP, changes={**CROWDED, change: 1.4}))
    assert found == limit
    words = {"pool": "twice the connections (", "users": "half the users (", "servers": "twice the CPU limit ("}
    assert reason.startswith(words.get(limit, "one load generator more ("))
    assert "+4" in reason or "+39" in reason
    assert "4 short rounds) raised throughput, with 1.95 of 2 cores (servers 1.30, " in reason


def test_of_several_changes_that_help_the_surest_names_the_limit(make_run: MakeRun) -> None:
    limit, reason = on_the_primary(make_run(changes={"users halved": 1.2, "connections doubled": 1.6}))
    assert limit == "pool"
    assert reason.index("twice the connections") < reason.index("half the users"), "and the others are told"


def test_where_nothing_helps_and_cores_are_idle_nobody_knows(make_run: MakeRun) -> None:
    limit, reason = on_the_primary(make_run(host_cpu=a_host_cpu(), changes={"connections doubled": 1.0}))
    assert limit == "unknown"
    assert reason.startswith("only 1.50 of 2 cores (servers 0.90, load generator 0.50, lab 0.10) were busy; ")


def test_a_run_that_ended_before_its_short_rounds_gives_no_advice_about_them(make_run: MakeRun) -> None:
    run = make_run(host_cpu=USED_UP)
    run.update(status="failed", problem="interrupted by SIGTERM", parameters=run.parameters | {"interventions_s": 20.0})
    limit, reason = on_the_primary(read_run(run.path))
    assert (limit, reason) == ("unknown", "the run did not come to the short rounds that would have shown it")


@pytest.mark.parametrize("when", ["while it was measured", "in the short rounds afterwards"])
def test_on_a_machine_that_others_used_nothing_is_told(make_run: MakeRun, when: str) -> None:
    run = make_run(host_cpu=USED_UP, changes={"connections doubled": 1.5})
    shared = a_host_cpu(others=0.98, idle=0.02)
    short = when == "in the short rounds afterwards"
    run.update(blocks=[b.changed(host_cpu=shared) if bool(b.intervention) is short else b for b in run.blocks])
    limit, reason = on_the_primary(run)
    assert limit == "unknown"
    assert reason == f"other programs used 0.98 of 2 cores {when}"


def test_without_short_rounds_there_is_no_verdict(make_run: MakeRun) -> None:
    run = make_run(host_cpu=USED_UP, wait_share=0.97, pool_busy_fraction=1.0, generator_cpu_percent=99.0)
    assert set(bottleneck(run)["limit"]) == {"unknown"}
    assert interventions(run).empty
    assert tables.bottleneck(run)["limit"].tolist() == ["unknown"] * 4


def test_an_arm_that_was_not_tried_is_unknown(make_run: MakeRun) -> None:
    run = make_run(host_cpu=USED_UP, changes=CROWDED)
    other = bottleneck(run).iloc[1]
    assert (other["arm"], other["limit"]) == ("replicas-round-robin", "unknown")
    assert other["reason"].startswith("nothing was changed")
    table = tables.bottleneck(run)
    assert table.loc[("get-user", "primary alone"), "connections doubled"].startswith("−2")
    assert table.loc[("get-user", "replicas"), "connections doubled"] == "not tried"


def test_two_short_rounds_are_too_few(make_run: MakeRun) -> None:
    limit, reason = on_the_primary(make_run(changes={"connections doubled": 1.5}, short_rounds=1))
    assert limit == "unknown"
    assert reason == "too few short rounds for an interval (twice the connections)"


# In four rounds: +11 % and +7 % with intervals from below zero to far above 10 %.
SCATTERED: dict[str, tuple[float, ...]] = {
    "connections doubled": (0.98, 1.25, 1.05, 1.18),
    "users halved": (1.15, 0.96, 1.14, 1.05),
}


def test_what_could_not_be_shown_to_help_is_not_said_not_to_help(make_run: MakeRun) -> None:
    """Absence of evidence: an interval that reaches from a loss to a gain shows neither, however busy the machine."""
    run = make_run(host_cpu=USED_UP, changes=SCATTERED)
    tried = interventions(run)
    assert (tried["low"] < 0).all()
    assert (tried["high"] > 0.1).any()
    limit, reason = on_the_primary(run)
    assert limit == "unknown"
    assert reason.startswith("1.95 of 2 cores (")
    said = (
        "were busy, and nothing that was tried could be shown to raise throughput, nor that it gains less than 10 %: "
    )
    assert said + "twice the connections +1" in reason
    limit, reason = on_the_primary(make_run(host_cpu=a_host_cpu(), changes=SCATTERED))
    assert limit == "unknown"
    assert reason.startswith("only 1.50 of 2 cores")


def test_a_change_that_was_not_measured_in_every_round_costs_the_others_nothing(make_run: MakeRun) -> None:
    """A busy machine may not start one more load generator in time."""
    whole = make_run(workloads=("get-user",), host_cpu=USED_UP, changes={**CROWDED, "connections doubled": 1.4})
    last, before = "one load generator more", interventions(whole).set_index("intervention")

    def without(*rounds: int, change: str = last) -> Run:
        kept = [b for b in whole.blocks_of(LoadBlock) if b.intervention != change or b.round not in rounds]
        whole.update(blocks=kept)
        return read_run(whole.path)

    run = without(1)
    found = interventions(run).set_index("intervention")
    assert found["n"].to_dict() == {"connections doubled": 4, "users halved": 4, last: 3}
    for name in ("connections doubled", "users halved"):
        assert found.loc[name, "relative"] == pytest.approx(before.loc[name, "relative"], abs=0.01)
    assert found["low"].notna().all()
    run = without(2)
    assert interventions(run).set_index("intervention")["low"].isna().to_dict()[last]
    assert on_the_primary(run)[0] == "pool", "what was shown is shown"
    run = without(0, 1, 2, 3, change="connections doubled")
    assert on_the_primary(run) == ("unknown", f"too few short rounds for an interval ({last})")
    run = without(0, 1, 2, 3, change="nothing")
    assert on_the_primary(run)[0] == "unknown"
    assert interventions(run).empty


MORE = ("primary-only", "primary-only-more-connections")


def with_more_connections(make_run: MakeRun, times: float, **facts: Any) -> Run:
    """A run with an arm that differs in its connections alone: 8 instead of 4, and answers so many times as much."""
    facts = {"arms": MORE, "rounds": 4, "workloads": ("get-user",), "host_cpu": USED_UP, "changes": SCATTERED} | facts
    return make_run(rates={("get-user", MORE[1]): 1000.0 * times}, **facts)


def test_an_arm_with_more_connections_is_heard_as_the_comparison_of_arms_is(make_run: MakeRun) -> None:
    """The short rounds alone show nothing (SCATTERED), while the head says that more connections answered more."""
    run = with_more_connections(make_run, 1.2)
    more = next(
        sentence for sentence in findings.verdicts(run) if "connections" in sentence and " more get" in sentence
    )
    (said,) = re.findall(r"95 % interval (.+? %)", more)
    limit, reason = on_the_primary(run)
    assert limit == "pool"
    assert reason.startswith("8 connections instead of 4 (+")
    assert f"95 % interval {said}, 4 measured rounds) raised throughput, with 1.95 of 2 cores" in reason
    assert bottleneck(run)["limit"].tolist() == ["pool", "unknown"], "nothing was tried on the arm that has them"
    row = tables.bottleneck(run).loc[("get-user", arm_words(MORE[0]))]
    assert row["more connections, in the measured rounds"].startswith("4 → 8: +")
    assert row["connections doubled"].startswith("+1"), "the short rounds stay in sight"
    assert on_the_primary(with_more_connections(make_run, 1.2, changes={}))[0] == "pool", "without short rounds too"


def test_an_arm_whose_connections_cost_throughput_speaks_for_the_short_rounds(make_run: MakeRun) -> None:
    cost = {**CROWDED, "connections doubled": 1.4}
    assert on_the_primary(make_run(host_cpu=USED_UP, changes=cost))[0] == "pool", "which those alone would name"
    limit, reason = on_the_primary(with_more_connections(make_run, 0.72, changes=cost))
    assert limit == "host"
    assert "nothing that was tried gains 10 %: 8 connections instead of 4 −2" in reason
    assert ", 4 measured rounds), half the users" in reason
    assert "twice the connections" not in reason
    limit, reason = on_the_primary(with_more_connections(make_run, 0.72, changes={}))
    assert (limit, reason) == (
        "unknown",
        "nothing but connections was changed here to find out; raise `interventions_s`",
    )
    # Two rounds give no interval: then the short rounds are heard.
    limit, reason = on_the_primary(with_more_connections(make_run, 1.2, rounds=2, changes=CROWDED))
    assert limit == "host"
    assert "twice the connections" in reason


def test_nothing_is_told_from_more_connections_on_a_machine_that_others_used(make_run: MakeRun) -> None:
    run = with_more_connections(make_run, 1.5)
    shared = a_host_cpu(others=0.98, idle=0.02)
    run.update(blocks=[b.changed(host_cpu=shared) if b.arm == MORE[1] else b for b in run.blocks])
    said = "other programs used 0.98 of 2 cores while more connections were measured"
    assert on_the_primary(run) == ("unknown", said)


def test_a_rate_that_was_answered_is_its_own_limit(make_run: MakeRun) -> None:
    limit, reason = on_the_primary(make_run(offered_per_s=1000.0, host_cpu=a_host_cpu()))
    assert limit == "offered"
    assert re.fullmatch(r"1,000 requests/s were asked for, (99\d|1,00\d) were answered", reason), (
        "as many as there were"
    )
    limit, _ = on_the_primary(make_run(offered_per_s=1500.0, host_cpu=a_host_cpu()))
    assert limit == "unknown", "a third of it was not answered"


def test_users_who_think_are_their_own_limit_unless_the_machine_is(make_run: MakeRun) -> None:
    thinking: dict[str, Any] = {"vus": 50, "think_s": 0.048}  # 1,000/s of at most 1,042/s
    limit, reason = on_the_primary(make_run(**thinking, host_cpu=a_host_cpu()))
    assert limit == "offered"
    assert "users who think 0.048 s ask for 1,042 requests/s at most" in reason
    assert on_the_primary(make_run(**thinking, host_cpu=USED_UP))[0] == "unknown"
    assert on_the_primary(make_run(vus=50, think_s=0.03, host_cpu=a_host_cpu()))[0] == "unknown", "they wait as well"


def test_requests_that_were_dropped_were_not_answered() -> None:
    met = a_load(vus=None, offered_per_s=100.0, measured=100, requests=100)
    assert offered.limit([met]) is not None
    assert offered.limit([met.changed(dropped=1)]) is None
    assert offered.limit([a_load(vus=4.0)]) is None, "users who do not think ask as fast as they are answered"


def test_a_fifth_that_was_not_answered_is_no_chance_though_requests_are_few() -> None:
    """200 requests/s for 1.3 s, 0.3 s of it warm-up: three blocks that answered 162/s, as a busy machine did."""
    facts = {"vus": None, "offered_per_s": 200.0, "arrival": "poisson", "requests": 260}
    facts |= {"warm_until_ns": 300_000_000, "to_ns": 1_300_000_000}
    assert offered.limit([a_load(**facts, measured=162)] * 3) is None
    assert offered.limit([a_load(**facts, measured=195)] * 3) == "200 requests/s were asked for, 195 were answered"
    fewer = facts | {"requests": 230}  # by chance fewer came, and all of them were answered
    assert offered.limit([a_load(**fewer, measured=176)] * 3) is not None
