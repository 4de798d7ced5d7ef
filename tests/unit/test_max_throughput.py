"""What is said of a search for the highest rate that was cut off, and of why a trial failed."""

from __future__ import annotations

from pathlib import Path

import pytest
from fix_runs import Recipe, build

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
        "The search for get-user on primary only was cut off: of the 3 trials until then, the highest rate that held "
        "a p99 latency of at most 20 ms was 500 requests per second; nothing confirmed it."
    )
    assert why == "Not valid: the run did not come to its end: the load was interrupted."
    assert findings.table(search)["holds"].tolist() == ["yes", "no", "no"]
    assert findings.table(search)["because of"].tolist()[-1] == "interrupted"
    search.update(blocks=search.blocks[-1:])
    assert "none held a p99 latency of at most 20 ms" in findings.verdicts(read_run(search.path))[0]


def test_one_that_came_to_its_end_without_a_rate_says_that_none_held(search: Run) -> None:
    search.mark("complete")
    assert findings.verdicts(search)[0].startswith("Not even 500 requests per second held ")


def test_the_reasons_of_a_trial_are_shown_whole(search: Run) -> None:
    assert ", ".join(REASONS) in findings.table(search)._repr_html_()


def test_interrupted_before_its_warm_up_was_over_a_trial_has_no_figures(search: Run) -> None:
    (last,) = search.blocks[-1:]
    search.update(blocks=[*search.blocks[:-1], last.changed(to_ns=last.warm_until_ns - 1)])
    assert len(findings.table(search)) == 2
