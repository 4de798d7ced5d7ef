"""Comparisons of arms and of runs: what they are made of, what they say, and when they say nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from fix_records import a_host_cpu

from labkit.analysis import frames, plots, words
from labkit.analysis.report import sentences, tables
from labkit.analysis.statistics import compare
from labkit.errors import BadInput
from labkit.experiments.read_scaling import findings as conclusions
from labkit.run.store import Run

MakeRun = Callable[..., Run]
RunsAt = Callable[[Sequence[float], int, int], list[Run]]
SHORT = {"workloads": ("get-user",), "block_s": 1.0, "warmup_s": 0.1, "rate": 500.0}


def test_arms_are_compared_round_by_round_beside_the_figures_of_the_headline(make_run: MakeRun) -> None:
    run = make_run(rates={("get-user", "replicas-round-robin"): 900.0}, rounds=5)
    compared = compare.arms(run).set_index(["workload", "metric"])
    headline = frames.headline(run).set_index(["workload", "arm"])
    for metric in compare.METRICS:
        for side, arm in (("baseline", "primary-only"), ("other", "replicas-round-robin")):
            assert compared.loc[("get-user", metric), side] == pytest.approx(headline.loc[("get-user", arm), metric])
    by_round = frames.rounds(run).query("workload == 'get-user'").pivot(index="round", columns="arm")
    for metric in ("requests_per_s", "p99_ms"):
        ratios = by_round[metric]["replicas-round-robin"] / by_round[metric]["primary-only"]
        row = compared.loc[("get-user", metric)]
        assert row["relative"] == pytest.approx(np.exp(np.log(ratios).mean()) - 1)
        assert row["relative_low"] < row["relative"] < row["relative_high"]
    rate = compared.loc[("get-user", "requests_per_s")]
    assert rate["relative_low"] < -0.1 + 0.02
    assert rate["relative_high"] < 0
    assert rate["n"] == 5


def test_table_sentence_and_figure_tell_the_same_difference(make_run: MakeRun) -> None:
    run = make_run(**SHORT, rates={("get-user", "replicas-round-robin"): 900.0}, rounds=4)
    row = compare.arms(run, ["requests_per_s"]).iloc[0]
    shown, limits = words.percent(row["relative"]), words.interval(row["relative_low"], row["relative_high"])
    table = tables.headline(run).loc[("get-user", "requests/s")]
    assert (table["paired difference"], table["95 % interval"]) == (shown, limits)
    assert shown.strip("−+") in conclusions.verdicts(run)[0]
    assert limits in conclusions.verdicts(run)[0]
    lines = plots.differences(compare.arms(run)).axes[0].get_lines()
    point = next(line for line in lines if line.get_marker() == "o")
    assert point.get_xdata() == pytest.approx([100 * row["relative"]])


def test_intervals_of_percentiles_hold_the_difference_that_was_made(make_run: MakeRun) -> None:
    compared = compare.arms(make_run(rates={("get-user", "replicas-round-robin"): 800.0}, rounds=6))
    latency = compared[compared["metric"].isin(["mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms"])]
    assert (latency["relative_low"] <= latency["relative"]).all()
    assert (latency["relative"] <= latency["relative_high"]).all()
    slower = latency[latency["workload"] == "get-user"]
    assert slower["relative"].to_numpy() == pytest.approx(0.25, abs=0.05)
    assert (slower["relative_low"] > 0.15).all()


def test_a_round_that_one_arm_did_not_finish_makes_no_pair(make_run: MakeRun) -> None:
    run = make_run(rounds=3, workloads=("get-user",))
    run.update(blocks=run.blocks[:-1])
    assert set(compare.arms(run)["n"]) == {2}
    run = make_run(rounds=3, workloads=("get-user",))
    run.update(blocks=run.blocks[:1])
    assert compare.arms(run).empty
    assert any("nothing to compare" in sentence for sentence in conclusions.verdicts(run))


def test_an_arm_without_one_right_answer_gives_no_interval_and_does_not_break(make_run: MakeRun) -> None:
    run = make_run(failures={("get-user", "replicas-round-robin"): 10**6}, rounds=3, workloads=("get-user",))
    compared = compare.arms(run).set_index("metric")
    assert compared.loc["requests_per_s", "other"] == 0
    assert compared.loc[["requests_per_s", "p99_ms"], "relative_low"].isna().all()
    said = conclusions.verdicts(run)
    assert (
        "The p99 latency of get-user, the replicas against the primary alone: in some round there was nothing"
        in str(said)
    )
    assert any("not one right answer" in sentence for sentence in conclusions.verdicts(run))


def test_a_difference_is_a_sentence_with_its_size_and_interval(make_run: MakeRun) -> None:
    run = make_run(rates={("get-user", "replicas-round-robin"): 900.0}, rounds=6)
    fewer, original, *_ = conclusions.verdicts(run)
    assert fewer.startswith("The replicas answered ")
    assert "% fewer get-user requests per second than the primary alone (95 % interval −" in fewer
    assert original.startswith("The original report saw −6.6 % there")


def test_no_difference_and_no_interval_are_said_as_such(make_run: MakeRun) -> None:
    same = conclusions.lead(make_run(rounds=6, seed=3))
    said = "In get-user requests per second, the replicas and the primary alone cannot be told apart ("
    assert any(sentence.startswith(said) and "95 % interval" in sentence for sentence in same)
    assert "no difference" not in str(same).lower()


@pytest.mark.parametrize(("rounds", "gives"), [(1, "1 round gives"), (2, "2 rounds give")])
def test_one_round_and_two_say_nothing_and_name_no_figure(make_run: MakeRun, rounds: int, gives: str) -> None:
    run = make_run(**SHORT, rates={("get-user", "replicas-round-robin"): 500.0}, rounds=rounds)
    compared = compare.arms(run)
    assert compared[["relative", "relative_low", "relative_high"]].isna().all(axis=None)
    said = conclusions.verdicts(run)[:2]
    assert said[0] == (
        f"Get-user requests per second, the replicas against the primary alone: {gives} no interval, so nothing can be "
        "concluded: at least 3 are needed."
    )
    assert f"{gives} no interval" in said[1] or said[1].startswith("The original report saw")
    table = tables.headline(run).loc[("get-user", "requests/s")]
    assert (table["paired difference"], table["95 % interval"]) == (words.UNKNOWN, words.UNKNOWN)
    sheet = plots.differences(compared)
    assert not [x for line in sheet.axes[0].get_lines() if line.get_marker() == "o" for x in line.get_xdata() if x == x]
    assert "fewer than 3" in sheet.svg()


def test_the_validity_problems_of_a_run_are_among_its_verdicts(make_run: MakeRun) -> None:
    assert "Not valid: get-user, primary-only: 3 answers were wrong." in conclusions.verdicts(make_run(wrong=3))


def test_sentences_carry_no_markup_into_a_report() -> None:
    assert "<script>" not in words.Sentences(["<script>alert(1)</script>"])._repr_html_()


@pytest.fixture
def runs_at(make_run: MakeRun) -> RunsAt:
    """Runs of so many requests per second each, of so many rounds."""

    def make(rates: Sequence[float], rounds: int, seed: int) -> list[Run]:
        return [make_run(**SHORT | {"rate": rate}, rounds=rounds, seed=seed + i) for i, rate in enumerate(rates)]

    return make


def test_runs_are_one_value_each_however_many_rounds_they_have(runs_at: RunsAt) -> None:
    a, b = (runs_at(rates, 4, 10 * side) for side, rates in SIDES)
    compared = compare.runs(a, b, ["requests_per_s"])
    assert len(compared) == 2
    assert set(compared["n"]) == {3}
    assert compared["relative"].to_numpy() == pytest.approx(0.2, abs=0.03)
    assert (compared["relative_low"] > 0).all()
    said = sentences.two_runs(a, b)
    assert "Side B answered" in said[0]
    assert "more get-user requests per second on the primary alone than side A (95 % interval +" in said[0]
    assert "3 runs a side" in said[0]
    assert said[-1].startswith("No parameter differs")


SIDES = ((0, (490.0, 500.0, 510.0)), (1, (590.0, 600.0, 610.0)))


def test_the_machine_s_mood_between_runs_is_no_difference(runs_at: RunsAt) -> None:
    """Rounds of a run agree with each other within 1 %, runs of equal parameters only within 40 %."""
    moods = ((500.0, 325.0, 450.0), (350.0, 500.0, 400.0))
    a, b = (runs_at(moods[side], 3, 10 * side) for side in (0, 1))
    compared = compare.runs(a, b)
    known = compared[compared["relative"].notna()]
    assert len(known)
    assert (known["relative_low"] <= 0).all()
    assert (known["relative_high"] >= 0).all()


@pytest.mark.parametrize("several", [1, 2])
def test_with_fewer_than_three_runs_a_side_nothing_is_claimed(make_run: MakeRun, several: int) -> None:
    a = [make_run(**SHORT, rounds=6, seed=i) for i in range(several)]
    b = [make_run(**SHORT | {"rate": 300.0}, rounds=6, seed=10 + i) for i in range(several)]
    (said, *_) = sentences.two_runs(a, b)
    assert said.startswith(f"Whether A and B differ cannot be known from {words.count(several, 'run')} a side")
    assert "%" not in str(sentences.two_runs(a, b))
    table = tables.two_runs(a, b)
    table = table.drop(index="requests", level=2)
    assert set(table["difference"]) == set(table["95 % interval"]) == {words.UNKNOWN}
    assert table.loc[("get-user", "primary alone", "requests/s"), "B"].startswith(("29", "30", "31"))


@pytest.mark.parametrize("others", [0.9, None])
def test_runs_that_others_may_have_disturbed_are_named_and_prove_no_difference(
    runs_at: RunsAt, others: float | None
) -> None:
    a, b = (runs_at(rates, 4, 10 * side) for side, rates in SIDES)
    b[1].update(blocks=[block.changed(host_cpu=a_host_cpu(others=others, idle=0.0)) for block in b[1].blocks])
    named, unknown, *more = sentences.two_runs(a, b)
    assert named.startswith(f"B ({b[1].id}): ")
    what = "this run carries no account of other programs' CPU" if others is None else "disturbed: in 8 of 8 blocks"
    assert what in named
    assert unknown.startswith("Whether A and B differ is unknown")
    assert not any("%" in said or "No parameter differs" in said for said in more)


def test_what_was_asked_differently_and_what_makes_a_side_no_side(make_run: MakeRun) -> None:
    four, six = make_run(**SHORT, rounds=4), make_run(**SHORT, rounds=6, seed=2)
    assert compare.parameters([four], [six]).set_index("parameter").loc["rounds"].tolist() == [4, 6]
    assert tables.parameters([four], [make_run(**SHORT, rounds=4, seed=3)]).to_numpy().tolist() == [["none"]]
    assert "rounds" in next(
        said for said in sentences.two_runs([four, six], [six]) if said.startswith("Runs of one side")
    )


def test_runs_that_cannot_be_compared_are_refused(make_run: MakeRun) -> None:
    a, b = make_run(**SHORT), make_run(**SHORT | {"workloads": ("search-users",)}, seed=2)
    with pytest.raises(BadInput, match="no workload and arm in common"):
        compare.comparable([a], [b])
    with pytest.raises(BadInput, match="named twice"):
        compare.comparable([a], [a])
    moved = Run(a.path.with_name("elsewhere"), a.record)
    again = Run(a.path.with_name("edited"), a.record.model_copy(update={"epoch": b.record.epoch}))
    for copy in (moved, again):
        with pytest.raises(BadInput, match="copies of one run") as refused:
            compare.comparable([a, make_run(**SHORT, seed=2)], [copy])
        assert f"{a.path} and {copy.path}" in str(refused.value)
    with pytest.raises(BadInput, match="a run on each side"):
        compare.comparable([], [a])
    b.update(experiment="failover")
    with pytest.raises(BadInput, match="different experiments"):
        compare.comparable([a], [b])


def test_the_defaults_compare_the_newest_run_with_the_one_before(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (make_run(**SHORT, rounds=1, seed=seed) for seed in (1, 2))
    monkeypatch.setattr("labkit.paths.runs", lambda: first.path.parents[1])
    older, newer = sorted((first, second), key=lambda run: run.path.name)
    with pytest.raises(BadInput, match="no run of read-scaling before"):
        compare.sides("previous", older.id)
    a, b = compare.sides("previous", "latest")
    assert (a[0].path, b[0].path) == (older.path, newer.path)


def test_runs_of_a_side_are_joined_end_to_end(make_run: MakeRun) -> None:
    a, b = [make_run(**SHORT, rounds=2, seed=i) for i in (1, 2)], [make_run(**SHORT, rounds=2, seed=3)]
    seconds = compare.together(frames.per_second, a, b).query("workload == 'get-user' and arm == 'primary-only'")
    joined = seconds[seconds["run"] == "A"]
    assert joined["second"].is_monotonic_increasing
    assert list(joined["round"].unique()) == [0, 1, 2, 3]
    assert joined["second"].max() == pytest.approx(2 * seconds.loc[seconds["run"] == "B", "second"].max(), abs=0.51)
    curve = compare.latencies(a, b).query("workload == 'get-user' and arm == 'primary-only' and run == 'A'")
    pooled = compare.pooled(a, b).set_index(["side", "workload", "arm"]).loc[("A", "get-user", "primary-only")]
    assert curve.set_index("share").loc[0.99, "latency_ms"] == pytest.approx(pooled["p99_ms"])
