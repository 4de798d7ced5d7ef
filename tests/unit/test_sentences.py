"""No sentence claims more than was measured: what its interval, its rounds or its trials allow."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fix_records import a_host_cpu

from labkit import paths
from labkit.analysis.report.findings import head, summary
from labkit.experiments.catalogue import EXPERIMENTS
from labkit.experiments.concurrency_sweep import findings as sweep
from labkit.experiments.cpu_budget import findings as budget
from labkit.experiments.durability_matrix import findings as durability
from labkit.experiments.failover import findings as failover
from labkit.experiments.measuring_honestly import findings as honestly
from labkit.experiments.measuring_honestly.parameters import MeasuringHonestly
from labkit.experiments.promotion_crash import findings as promotion
from labkit.experiments.quorum_commit import findings as quorum
from labkit.experiments.read_scaling import findings as reads
from labkit.run.schema import AttemptBlock, CostBlock, LoadBlock, TrialBlock
from labkit.run.schema.events import Stall
from labkit.run.store import Run, read_run

MakeRun = Callable[..., Run]
Sample = Callable[[str], Run]


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """A copy of the first shipped run of an experiment."""

    def copied(experiment: str) -> Run:
        first = min((paths.sample_runs() / experiment).iterdir())
        return read_run(Path(shutil.copytree(first, tmp_path / experiment / first.name)))

    return copied


@pytest.fixture
def honest(make_run: MakeRun) -> Run:
    """A stall under both loads, 50 users, and two comparisons of a server with itself, each of three pairs."""
    run = make_run(rounds=8, workloads=("get-user",), host_cpu=a_host_cpu(others=0.9, idle=0.0))
    closed, opened, users, _, *others = run.blocks_of(LoadBlock)
    blocks = [
        closed.changed(arm="closed loop"),
        opened.changed(arm="open, constant rate", vus=None, offered_per_s=1000.0, arrival="constant"),
        users.changed(arm="50 users"),
        *(block.changed(arm=("A", "A again")[i % 2], round=i // 2) for i, block in enumerate(others)),
    ]
    p = MeasuringHonestly().as_dict()  # type: ignore[call-arg]
    run.update(experiment="measuring-honestly", parameters=p | {"pairs": 3, "comparisons": 2}, blocks=blocks)
    run.mark("measured")
    for block in blocks[:2]:
        middle = block.warm_until_ns + 10**9
        run.note(Stall(node="pg1", from_ns=middle, to_ns=middle + 500_000_000))
    run.mark("complete")
    return read_run(run.path)


@pytest.mark.parametrize("name", [path.name for path in sorted(paths.sample_runs().iterdir()) if path.is_dir()])
def test_what_makes_a_run_worthless_begins_its_report_and_is_among_its_verdicts(
    name: str, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, findings = sample(name), EXPERIMENTS[name].findings
    monkeypatch.setattr(findings, "validity", lambda _: ["nothing was right"])
    assert head(run, findings)[0] == "Not valid: nothing was right."
    assert head(run, findings).count("Not valid: nothing was right.") == 1
    assert "Not valid: nothing was right." in findings.verdicts(run)


def test_a_disturbed_stall_is_told_with_its_measured_length(honest: Run) -> None:
    first, second = head(honest, honestly)  # type: ignore[arg-type]
    assert first.startswith("Disturbed: in 15 of 15 blocks other programs used 0.90 of 2 cores")
    assert second.startswith("The server stood still once under each workload, for 500 and 500 ms.")
    assert "Little's law held within " in str(honestly.verdicts(honest))


def test_a_stall_that_was_not_measured_shows_nothing(honest: Run) -> None:
    honest.record.events = None  # as of a run of before, in which they cannot be missed
    honest.update(blocks=[b.changed(round=3) if b.arm == "A" else b for b in honest.blocks_of(LoadBlock)])
    (honest.path / "events.jsonl").unlink()
    said = honestly.lead(read_run(honest.path))[1]
    assert said == (
        "No stall fell into the measured part of open, constant rate and closed loop, so nothing can be said of one."
    )


def test_a_law_that_did_not_hold_is_not_said_to_hold(honest: Run) -> None:
    honest.update(blocks=[b.changed(vus=60.0) if b.arm == "50 users" else b for b in honest.blocks_of(LoadBlock)])
    assert "Little's law did not hold: it was off by up to 1" in str(honestly.verdicts(read_run(honest.path)))


@pytest.mark.parametrize(("wrong", "said"), [(1, "and up to"), (30, "these intervals promise too much here")])
def test_more_wrong_comparisons_than_chance_makes_are_no_chance(
    honest: Run, monkeypatch: pytest.MonkeyPatch, wrong: int, said: str
) -> None:
    same = honestly.self_comparisons(honest).iloc[[0] * 40].assign(differs=[True] * wrong + [False] * (40 - wrong))
    monkeypatch.setattr(honestly, "self_comparisons", lambda _: same)
    (sentence,) = (one for one in honestly.verdicts(honest) if one.startswith("Of 40 comparisons"))
    assert said in sentence


def test_an_interval_around_one_does_not_say_that_nodes_make_no_difference(make_run: MakeRun) -> None:
    run = make_run(rounds=6, workloads=("get-user",), seed=3)
    run.update(experiment="cpu-budget")
    said = budget.verdicts(run)
    assert said[0].startswith("get-user: the replicas and the primary alone cannot be told apart (")
    assert "times as many answers; 95 % interval" in said[0]
    assert said[1].startswith("With CPU shared several nodes could not be shown to answer more")
    assert "mutex" not in said[1], "this run has none to take away"


def test_two_arms_that_share_no_round_are_not_one_arm(make_run: MakeRun) -> None:
    run = make_run(rounds=2, workloads=("get-user",))
    apart = [b for b in run.blocks_of(LoadBlock) if (b.arm == "primary-only") == (b.round == 0)]
    run.update(blocks=apart)
    assert "No round was measured on two arms, so there is nothing to compare." in reads.verdicts(run)


def test_confounded_arms_are_named_before_the_answer(make_run: MakeRun) -> None:
    first, *_ = reads.lead(make_run(pools_to_each_node=True, rounds=3))
    assert first.startswith("2 things differ between the replicas and the primary alone")


def test_shares_of_errors_are_written_as_all_others(make_run: MakeRun) -> None:
    (said,) = reads.validity(make_run(failures={("get-user", "primary-only"): 100}, rounds=1))
    assert said.endswith(" % of the requests were errors, more than 1 %")


@pytest.mark.parametrize("experiment", sorted(EXPERIMENTS))
def test_a_run_that_was_cut_off_early_has_a_head_and_a_summary(sample: Sample, experiment: str) -> None:
    run = sample(experiment)
    blocks = list(run.blocks)
    for kept in sorted({1, min(2, len(blocks)), len(blocks) // 2} - {0}):
        run.update(blocks=blocks[:kept], status="failed", problem="interrupted by SIGTERM")
        cut = read_run(run.path)
        assert head(cut, EXPERIMENTS[experiment].findings)[0].startswith("Not valid: the run did not come to its end")
        assert summary(cut, EXPERIMENTS[experiment].findings).valid is False


def test_prices_of_a_commit_have_intervals_and_steps_that_may_cost_nothing_are_not_priced(sample: Sample) -> None:
    run = sample("quorum-commit")
    lead = quorum.lead(run)
    assert lead[0].count("95 % interval") == 2
    blocks = run.blocks_of(CostBlock)
    took = dict(zip((0, 1, 2), (1.0, 1.1, 0.9), strict=True))
    local = [b for b in blocks if (b.mode, b.level) == ("async", "local") and b.round < 3]
    waits = [
        b.changed(
            block=1000 + b.block, mode="ANY 1", level="on", commit_p50_ms=(b.commit_p50_ms or 1.0) * took[b.round]
        )
        for b in local
    ]
    run.update(blocks=[*local, *waits], comparisons=[])
    said = quorum.verdicts(read_run(run.path))
    assert "which cannot be told apart" in said[1]
    (same,) = (one for one in said if one.startswith("Steps that cannot be told apart"))
    assert "async/local → ANY 1/on × 0.9" in same
    assert " … " in same
    assert "in 3 paired rounds: none." in str(said)


def test_steps_that_cost_are_told_with_their_intervals(sample: Sample) -> None:
    (said,) = (one for one in quorum.verdicts(sample("quorum-commit")) if one.startswith("Steps shown to cost"))
    assert said.count("×") == said.count(" … ")


def with_trials(run: Run, *facts: dict[str, Any]) -> Run:
    """The same with its first trial, so many times, each with other facts."""
    first = run.blocks_of(TrialBlock)[0]
    run.update(blocks=[first.changed(block=i, **fact) for i, fact in enumerate(facts)])
    return read_run(run.path)


def test_trials_without_a_verdict_are_not_trials_that_lost_nothing(sample: Sample) -> None:
    run = with_trials(sample("durability-matrix"), {"verdict": "unknown"}, {"verdict": "unknown"})
    said = str(durability.verdicts(run))
    assert "cannot be judged; 2 trials have no verdict" in said
    assert "survived" not in said
    assert "lost nothing" not in said
    assert "no trial lost anything" not in said
    assert durability.table(run)["that lost"].tolist() == ["–"]
    assert said.count("Not valid: 2 trials have no verdict.") == 1


def test_one_trial_has_no_median(sample: Sample) -> None:
    said = str(durability.verdicts(with_trials(sample("durability-matrix"), {"rto_ms": 70.0})))
    assert "RTO of the one trial of kill in which commits" in said
    assert ": 70 ms." in said
    assert "p50 70" not in said


def test_rules_of_which_one_refuses_do_not_all_agree(sample: Sample) -> None:
    run = sample("failover")
    (block,) = run.blocks_of(TrialBlock)
    assert f"All {len(block.choices)} rules, labkit's and those of managers, would promote " in str(
        failover.verdicts(run)
    )
    *others, last = block.choices
    run.update(blocks=[block.changed(choices=block.choices | {last: None})])
    said = str(failover.verdicts(read_run(run.path)))
    assert f"The rules differ: {others[0]} " in said
    assert f"{last} would refuse" in said


def test_set_ups_of_which_none_crashed_do_not_all_crash_with_a_message(sample: Sample) -> None:
    run = sample("promotion-crash")
    calm = {"promoted": True, "crashed": False, "client": "", "repaired": None}
    tried = [block.changed(**calm) for block in run.blocks_of(AttemptBlock) if block.tried]
    run.update(blocks=tried[:1])
    said = promotion.verdicts(read_run(run.path))
    assert said[0] == "pg_promote() crashed in none of 1 set-up."
    assert "all 0" not in str(said)


def test_the_law_says_percent_as_all_others_do() -> None:
    misses = {"fits": False, "missed": 0.3, "missed_at": 1, "scatter": 0.02}
    said = sweep._of_law(SimpleNamespace(arm="primary-only", determined=True, **misses))
    assert "with 1 user the fitted law is 30.0 % above what was measured. No more than 10.0 % is allowed" in said
    said = sweep._of_law(SimpleNamespace(arm="primary-only", determined=True, **misses | {"scatter": 0.4}))
    assert "No more than 25.0 % is allowed" in said, "however much the rounds scatter"
