"""What is said of a search for the highest rate that was cut off, and of why a trial failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from fix_records import a_host_cpu
from fix_runs import Recipe, build

from labkit.analysis.report.findings import head
from labkit.experiments.max_throughput import findings
from labkit.experiments.max_throughput.parameters import MaxThroughput
from labkit.run.store import Run, read_run

REASONS = ["p99 1.23e+03 ms", "12345 dropped", "678 failed", "answered 1234/s of 100000/s"]


@pytest.fixture
def search(tmp_path: Path) -> Run:
    """Three trials: one held, one did not, and the third was interrupted."""
    run = build(tmp_path / "runs", Recipe(rounds=3, workloads=("get-user",), offered_per_s=500.0, status="failed"))
    trials = [block for block in run.blocks if block.arm == "primary-only"]
    run.update(experiment="max-throughput", parameters=MaxThroughput().as_dict())  # type: ignore[call-arg]
    run.update(
        blocks=[
            trials[0].changed(phase="doubling"),
            trials[1].changed(phase="doubling", offered_per_s=1000.0, holds=False, reasons=REASONS),
            trials[2].changed(phase="bisection", offered_per_s=700.0, interrupted=True),
        ]
    )
    return run


def test_a_search_that_was_cut_off_says_how_far_it_came_and_not_that_nothing_held(search: Run) -> None:
    first, why = findings.verdicts(search)
    assert first == (
        "The search for get-user on the primary alone was cut off: of the 3 trials until then, the highest rate that "
        "held a p99 latency of at most 20 ms was 500 requests per second; nothing confirmed it."
    )
    assert why == (
        "Not valid: the run did not come to its end: the load was interrupted; a block of get-user, primary-only was "
        "cut short after 2 s, and its figures are of these; it has 2 finished blocks."
    )
    assert findings.table(search)["holds"].tolist() == ["yes", "no", "no"]
    assert findings.table(search)["because of"].tolist()[-1] == "interrupted"
    search.update(blocks=search.blocks[-1:])
    assert "none held a p99 latency of at most 20 ms" in findings.verdicts(read_run(search.path))[0]


def test_one_that_came_to_its_end_without_a_rate_says_that_none_held(search: Run) -> None:
    search.mark("complete")
    said = findings.verdicts(search)
    assert said[0].startswith("No rate from 500 requests per second on held "), "it held once, and was not confirmed"
    assert said[0].endswith("in most of its trials.")
    assert said[-1].startswith("Not valid: no rate held, so there is no result")
    search.update(blocks=[block.changed(holds=False, reasons=["p99 30 ms"]) for block in search.blocks])
    assert findings.verdicts(read_run(search.path))[0].startswith("Not even 500 requests per second held ")


def test_a_rate_held_in_so_many_of_its_trials_and_the_next_one_in_so_few(search: Run) -> None:
    search.mark("complete")
    held, failed, other = search.blocks
    again = [held.changed(block=9, phase="confirmation"), held.changed(block=10, phase="confirmation", holds=False)]
    other = other.changed(interrupted=False, offered_per_s=700.0, holds=False, reasons=["p99 30 ms"])
    search.update(
        blocks=[held, failed, other, other.changed(block=11, holds=True, reasons=[]), *again], found_per_s=500.0
    )
    found, higher = findings.verdicts(search)
    held_at = "get-user on the primary alone held a p99 latency of at most 20 ms at 500 requests per second"
    assert found == f"{held_at} in 2 of 3 trials of 4 s."
    assert higher == "The next higher rate that was tried, 700/s, failed in 1 of 2 trials: p99 30 ms."


def test_a_rate_is_found_again_although_its_trials_noted_it_with_an_error_of_rounding(search: Run) -> None:
    search.mark("complete")
    held, failed, _ = search.blocks
    rate, noted = 7336.032345637371, 7336.032345637372
    search.update(blocks=[held.changed(offered_per_s=noted), failed.changed(offered_per_s=8000.0)], found_per_s=rate)
    found, higher = findings.verdicts(search)
    assert "at 7,336 requests per second in 1 of 1 trial" in found
    assert higher.startswith("The next higher rate that was tried, 8,000/s, failed in 1 of 1 trial")
    assert len(findings.headline(search)) == 1


def test_what_casts_doubt_on_a_search_leads_it(search: Run) -> None:
    disturbed = a_host_cpu(others=0.9, idle=0.0)
    search.update(blocks=[block.changed(host_cpu=disturbed, disturbed=True) for block in search.blocks])
    first, second, third = head(search, findings)  # type: ignore[arg-type]
    assert first.startswith("Not valid: the run did not come to its end")
    assert second.startswith("Disturbed: ")
    assert third.startswith("The search for get-user")


def test_the_reasons_of_a_trial_are_shown_whole(search: Run) -> None:
    assert ", ".join(REASONS) in findings.table(search)._repr_html_()


def test_interrupted_before_its_warm_up_was_over_a_trial_has_no_figures(search: Run) -> None:
    (last,) = search.blocks[-1:]
    search.update(blocks=[*search.blocks[:-1], last.changed(to_ns=last.warm_until_ns - 1)])
    assert len(findings.table(search)) == 2
