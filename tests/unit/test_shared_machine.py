"""A machine that others used: every experiment accounts for it, says so first, and draws no conclusion on times."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fix_records import a_host_cpu

from labkit import paths
from labkit.analysis import frames
from labkit.analysis.report import findings as in_short
from labkit.experiments import stage
from labkit.experiments.catalogue import EXPERIMENTS
from labkit.lab.sampling import Sampler
from labkit.run.schema import BLOCKS, Block, HostCpu
from labkit.run.store import Run, RunStore, read_run

SECOND = 1_000_000_000
QUIET, BUSY = a_host_cpu(), a_host_cpu(others=0.9, idle=0.0)
WITHHELD = {
    # experiment -> what it concludes from times or rates on a quiet machine only, what it says in their place, and what
    # is a fact that does not depend on other programs
    "quorum-commit": ("A commit takes from", "What a commit costs at each level", "a commit waited beyond"),
    "streaming-replication": ("found at once from", "and how many rows a client", "was cancelled"),
    "failover": (
        "(RTO, as the writers saw it)",
        "How long an outage lasts is unknown",
        "synchronous_commit = ",
    ),
    "durability-matrix": ("RTO over", "unknown, as other programs disturbed every trial", "Acknowledged commits that"),
}


def sample(experiment: str, account: Callable[[Block], HostCpu | None]) -> Run:
    """A recorded sample in memory; its blocks note these accounts."""
    path = sorted((paths.sample_runs() / experiment).iterdir())[-1]
    run = read_run(path)
    run.record.blocks = [_noting(block, account(block)) for block in run.blocks]
    return run


def _noting(block: Block, account: HostCpu | None) -> Block:
    return block.changed(host_cpu=account, disturbed=account and account.disturbed)


def said(run: Run) -> tuple[str, str]:
    """The head of its report, and all that it says."""
    kind = EXPERIMENTS[run.experiment].findings
    return "\n".join(in_short.head(run, kind)), "\n".join(in_short.verdicts(run, kind))


@pytest.mark.parametrize("experiment", WITHHELD)
def test_others_are_named_first_and_no_time_is_concluded_from(experiment: str) -> None:
    concluded, instead, fact = WITHHELD[experiment]
    quiet_head, quiet = said(sample(experiment, lambda _: QUIET))
    assert "Disturbed" not in quiet
    assert "no account of other programs" not in quiet_head
    assert concluded in quiet_head + quiet
    assert fact in quiet
    run = sample(experiment, lambda _: BUSY)
    head, every = said(run)
    (named,) = frames.disturbances(run)
    measured = sum(1 for block in run.blocks if block.measured_ns)
    assert named.startswith(f"Disturbed: in {measured} of {measured} block")
    assert "other programs used 0.90 of 2 cores" in named
    assert head.startswith(named)
    assert every.startswith(named)
    assert fact in every
    if concluded:
        assert concluded not in head + every
        assert instead in head + every


def test_of_a_matrix_only_disturbed_trials_are_left_out_of_the_times_and_none_of_the_verdicts() -> None:
    quiet = sample("durability-matrix", lambda _: QUIET)
    run = sample("durability-matrix", lambda block: BUSY if block.block % 2 else QUIET)
    _, every = said(run)
    half = len(run.blocks) // 2
    assert f"Disturbed: in {half} of {len(run.blocks)} blocks" in every
    assert f"Times are told of the {half} trials that nothing disturbed." in every
    assert "RTO over" in every
    rows = "Acknowledged commits that"
    assert [line for line in every.split("\n") if line.startswith(rows)] == [
        line for line in said(quiet)[1].split("\n") if line.startswith(rows)
    ]


@pytest.mark.parametrize("experiment", WITHHELD)
def test_a_run_of_before_there_was_an_account_says_so_once(experiment: str) -> None:
    for text in said(sample(experiment, lambda _: None)):
        assert text.count("This run carries no account of other programs' CPU: whether they disturbed it is un") == 1
        assert "Disturbed" not in text


def test_a_run_that_was_killed_says_that_it_carries_no_account(make_run: Callable[..., Run]) -> None:
    run = make_run(status="started", host_cpu=None)
    (run.path / "samples" / "sampler.parquet").unlink()
    assert run.record.digests is not None
    run.record.digests = {part: digest for part, digest in run.record.digests.items() if "sampler" not in part}
    run.update(blocks=run.blocks)
    assert run.state == "cut off"
    head, every = said(read_run(run.path))
    told = "no account of other programs' CPU (the process that drove it was killed): whether they disturbed it is un"
    assert told in head
    assert told in every
    run.update(blocks=[block.changed(host_cpu=QUIET) for block in run.blocks[:8]] + list(run.blocks[8:]))
    assert "CPU in 4 of 12 blocks (the process that drove it was killed)" in said(read_run(run.path))[0]


def test_where_servers_on_this_machine_cannot_be_measured_it_is_unknown(make_run: Callable[..., Run]) -> None:
    run = make_run(host_cpu=a_host_cpu(servers=None, others=None))
    assert frames.disturbances(run) == []
    assert len(frames.unaccounted(run)) == 1


def _sampler(used: Callable[[int, int], HostCpu]) -> Any:
    return SimpleNamespace(sample_now=lambda: None, account=lambda: SimpleNamespace(of=used))


@pytest.mark.parametrize("experiment", sorted(BLOCKS.keys() - {"promotion-crash"}))
def test_blocks_of_every_experiment_that_times_anything_are_accounted_for_in_one_way(
    experiment: str, tmp_path: Path
) -> None:
    asked = []

    def used(from_ns: int, to_ns: int) -> HostCpu:
        asked.append((from_ns, to_ns))
        return BUSY

    run = RunStore(tmp_path).create(experiment, {})
    run.update(blocks=sample(experiment, lambda _: None).blocks[:4])
    stage.note_host_cpu(run, _sampler(used))
    assert asked == [block.measured_ns for block in run.blocks]
    assert all(to_ns > from_ns for from_ns, to_ns in asked)
    noted = read_run(run.path).blocks
    assert all((block.host_cpu, block.disturbed) == (BUSY, True) for block in noted)
    asked.clear()
    stage.note_host_cpu(run, _sampler(used))
    assert asked == [], "an account that is noted stays"


def test_of_a_trial_what_counts_is_the_time_before_its_fault() -> None:
    (trial,) = sample("failover", lambda _: None).blocks_of(BLOCKS["failover"])
    assert trial.measured_ns == (trial.from_ns, trial.fault_ns)  # type: ignore[attr-defined]


def test_whether_a_promotion_crashes_does_not_depend_on_other_programs() -> None:
    run = sample("promotion-crash", lambda _: None)
    assert {block.measured_ns for block in run.blocks} == {None}
    assert frames.disturbances(run) + frames.unaccounted(run) == []


def test_blocks_of_less_than_a_second_are_too_short_to_be_judged_alone(tmp_path: Path) -> None:
    """A few ticks more or less make one of them look disturbed."""
    run = RunStore(tmp_path).create("quorum-commit", {})
    run.update(blocks=sample("quorum-commit", lambda _: None).blocks)
    first = run.blocks[0]
    assert first.measured_s < 1
    assert first.measured_ns is not None
    begun_ns = first.measured_ns[0]
    stage.note_host_cpu(run, _sampler(lambda from_ns, _: a_host_cpu(others=0.3) if from_ns == begun_ns else QUIET))
    assert run.blocks[0].host_cpu is not None
    assert run.blocks[0].host_cpu.disturbed
    assert not any(block.disturbed for block in run.blocks)
    assert frames.disturbances(run) == []


def test_a_sampler_of_cpu_alone_writes_nothing_and_accounts_for_all(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("sampling", {})
    with Sampler([], run, 0.1, cpu_only=True) as sampler:
        began, until = run.now_ns(), time.monotonic() + 0.3
        while time.monotonic() < until:
            pass
        sampler.sample_now()
        used = sampler.account().of(began, run.now_ns())
    assert (sampler.rows, run.has("samples")) == (0, False)
    assert used is not None
    assert used.lab is not None
    assert used.lab > 0.05
