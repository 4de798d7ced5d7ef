"""Intervals: what they must always do, and how often they hold the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from labkit.analysis import frames, words
from labkit.analysis.report import sentences
from labkit.analysis.statistics import bootstrap, compare
from labkit.errors import BadInput
from labkit.experiments.read_scaling import findings as conclusions
from labkit.run.store import Run

MakeRun = Callable[..., Run]
rates = st.floats(1.0, 1e5)
pairs = st.lists(st.tuples(rates, rates), min_size=2, max_size=12)


def paired(baseline: Sequence[float], other: Sequence[float], seeds: tuple[int, int] = (0, 0)) -> bootstrap.Difference:
    """The difference of two means; the same seed draws the same rounds."""
    a, b = np.asarray(baseline), np.asarray(other)
    drawn = (bootstrap.resampled_mean(a, seeds[0]), bootstrap.resampled_mean(b, seeds[1])) if len(a) > 1 else None
    return bootstrap.difference(float(a.mean()), float(b.mean()), drawn, len(a))


def unpaired(baseline: Sequence[float], other: Sequence[float]) -> bootstrap.Difference:
    return paired(baseline, other, (0, 1))


@settings(max_examples=60, deadline=None)
@given(pairs, st.floats(-1e4, 1e4))
def test_moving_one_side_moves_the_interval_as_far(values: list[tuple[float, float]], shift: float) -> None:
    a, b = (list(side) for side in zip(*values, strict=True))
    plain, moved = paired(a, b), paired(a, [value + shift for value in b])
    assert moved.difference == pytest.approx(plain.difference + shift, abs=1e-6)
    assert moved.low == pytest.approx(plain.low + shift, abs=1e-6)
    assert moved.high == pytest.approx(plain.high + shift, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_the_interval_holds_the_difference_itself(values: list[tuple[float, float]]) -> None:
    a, b = (list(side) for side in zip(*values, strict=True))
    for found in (paired(a, b), unpaired(a, b)):
        assert found.low - 1e-6 <= found.difference <= found.high + 1e-6


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_swapping_the_sides_turns_the_difference_round(values: list[tuple[float, float]]) -> None:
    a, b = (list(side) for side in zip(*values, strict=True))
    there, back = paired(a, b), paired(b, a)
    assert (back.low, back.high) == (pytest.approx(-there.high, abs=1e-6), pytest.approx(-there.low, abs=1e-6))


@settings(max_examples=40, deadline=None)
@given(pairs, st.floats(0.1, 10))
def test_the_relative_difference_does_not_know_units(values: list[tuple[float, float]], factor: float) -> None:
    a, b = (list(side) for side in zip(*values, strict=True))
    plain = paired(a, b)
    scaled = paired([v * factor for v in a], [v * factor for v in b])
    assume(plain.relative_high < 1e6)
    assert scaled.relative_low == pytest.approx(plain.relative_low, rel=1e-6, abs=1e-9)
    assert scaled.relative_high == pytest.approx(plain.relative_high, rel=1e-6, abs=1e-9)


def test_the_expanded_tail_is_that_of_the_paper() -> None:
    # Φ(−√(6/5) · 2.5706) and, for many values, the plain 2.5 %.
    assert bootstrap.expanded_tail(6) == pytest.approx(0.00243, abs=1e-5)
    assert bootstrap.expanded_tail(10_000) == pytest.approx(0.025, abs=1e-4)


@pytest.mark.parametrize(("n", "kind"), [(6, paired), (6, unpaired), (12, paired)])
def test_intervals_of_few_rounds_hold_the_truth_about_as_often_as_they_say(
    n: int, kind: Callable[..., bootstrap.Difference]
) -> None:
    rng = np.random.default_rng(7)
    trials = 400
    held = 0
    for _ in range(trials):
        machine = rng.normal(0, 20, n) if kind is paired else 0.0  # what both sides of a pair have in common
        a, b = (rng.normal(1000 + effect, 10, n) + machine for effect in (0, 30))
        found = kind(a, b)
        held += found.low <= 30 <= found.high
    assert 0.90 <= held / trials <= 0.99


def test_one_round_gives_no_interval() -> None:
    found = paired([100.0], [110.0])
    assert found.relative == pytest.approx(0.1)
    assert math.isnan(found.low)
    assert math.isnan(found.relative_high)
    assert all(math.isnan(limit) for limit in bootstrap.mean_interval([5.0]))


def test_arms_are_compared_by_the_figures_that_the_headline_shows(make_run: MakeRun) -> None:
    run = make_run(rates={("get-user", "replicas-round-robin"): 900.0}, rounds=5)
    compared = compare.arms(run).set_index(["workload", "metric"])
    headline = frames.headline(run).set_index(["workload", "arm"])
    for metric in compare.METRICS:
        for side, arm in (("baseline", "primary-only"), ("other", "replicas-round-robin")):
            assert compared.loc[("get-user", metric), side] == pytest.approx(headline.loc[("get-user", arm), metric])
    rate = compared.loc[("get-user", "requests_per_s")]
    assert rate["relative_low"] < -0.1 + 0.02
    assert rate["relative_high"] < 0
    assert rate["n"] == 5


def test_intervals_of_percentiles_hold_the_pooled_difference(make_run: MakeRun) -> None:
    compared = compare.arms(make_run(rates={("get-user", "replicas-round-robin"): 800.0}, rounds=6))
    latency = compared[compared["metric"].isin(["mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms"])]
    assert (latency["relative_low"] <= latency["relative"]).all()
    assert (latency["relative"] <= latency["relative_high"]).all()
    slower = latency[latency["workload"] == "get-user"]
    assert slower["relative"].to_numpy() == pytest.approx(0.25, abs=0.05)
    assert (slower["relative_low"] > 0.15).all()
    assert compared.loc[compared["metric"] == "max_ms", "low"].isna().all()


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
    assert math.isnan(compared.loc["p99_ms", "low"])
    assert any("not one right answer" in sentence for sentence in conclusions.verdicts(run))


def test_a_difference_is_a_sentence_with_its_size_and_interval(make_run: MakeRun) -> None:
    run = make_run(rates={("get-user", "replicas-round-robin"): 900.0}, rounds=6)
    fewer, original, *_ = conclusions.verdicts(run)
    assert fewer.startswith("The replicas answered ")
    assert "% fewer get-user requests per second than the primary alone (95 % interval −" in fewer
    assert original.startswith("The original report saw −6.6 % there")


def test_no_difference_and_no_interval_are_said_as_such(make_run: MakeRun) -> None:
    same = conclusions.lead(make_run(rounds=6, seed=3))
    assert any(sentence.startswith("No difference in get-user requests per second could be shown") for sentence in same)
    once = conclusions.lead(make_run(rounds=1))
    assert all("one round gives no interval" in sentence for sentence in once)


def test_the_validity_problems_of_a_run_are_among_its_verdicts(make_run: MakeRun) -> None:
    assert "Not valid: get-user, primary-only: 3 answers were wrong." in conclusions.verdicts(make_run(wrong=3))


def test_sentences_carry_no_markup_into_a_report() -> None:
    assert "<script>" not in words.Sentences(["<script>alert(1)</script>"])._repr_html_()


def test_two_runs_are_compared_round_against_round_without_pairs(make_run: MakeRun) -> None:
    a, b = make_run(rounds=4), make_run(rounds=6, rate=1200.0, seed=2)
    compared = compare.runs(a, b, ["requests_per_s"])
    assert len(compared) == 4
    assert set(compared["n"]) == {4}
    assert compared["relative"].to_numpy() == pytest.approx(0.2, abs=0.03)
    assert (compared["low"] > 0).all()
    assert compare.parameters(a, b).set_index("parameter").loc["rounds"].tolist() == [4, 6]
    assert "run B answered" in str(sentences.two_runs(a, b)).lower().replace("run b", "run B")


def test_runs_with_nothing_in_common_are_refused(make_run: MakeRun) -> None:
    a, b = make_run(workloads=("get-user",)), make_run(workloads=("search-users",))
    with pytest.raises(BadInput, match="no workload and arm in common"):
        compare.same_experiment(a, b)
    b.update(experiment="failover")
    with pytest.raises(BadInput, match="different experiments"):
        compare.same_experiment(a, b)
