"""Another program beside a run, and short rounds after it, on real servers: what the run says of the machine."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import labkit
from labkit.analysis import frames
from labkit.analysis.statistics.bottleneck import WORDS
from labkit.checkers.host_cpu import pooled
from labkit.experiments.interventions import LEAST_ROUNDS, ROUNDS
from labkit.lab import procfs
from labkit.lab.cluster.cluster import Cluster
from labkit.run.schema import LoadBlock
from labkit.run.schema import blocks as schema
from labkit.run.store import Run

pytestmark = pytest.mark.skipif(not procfs.HERE, reason="only Linux says who used its CPU")
BUSY_FOR_S = 90
SHORT: dict[str, Any] = {"cluster": "shared", "keep_cluster": True, "users": 2000, "vus": 16, "connections": 4}
SHORT |= {"workloads": "get-user", "arms": "primary-only,replicas-round-robin", "rounds": 3, "duration_s": 1.8}
SHORT |= {"warmup_s": 0.2, "sample_interval_s": 0.2}


@contextlib.contextmanager
def another_program() -> Iterator[None]:
    """A quarter of the cores, one at least, is kept busy by processes that are no children of this one."""
    # Its parent ends at once, so that it is a program of its own; it is ended by its pid, or by itself.
    burn = "import os, sys, time\nif os.fork(): os._exit(0)\nos.setsid()\nos.sched_setaffinity(0, {int(sys.argv[1])})\n"
    burn += (
        "print(os.getpid(), flush=True)\nend = time.monotonic() + int(sys.argv[2])\nwhile time.monotonic() < end: pass"
    )
    cores = sorted(os.sched_getaffinity(0))
    pids = []
    try:
        for core in cores[: math.ceil(len(cores) / 4)]:
            argv = [sys.executable, "-c", burn, str(core), str(BUSY_FOR_S)]
            with subprocess.Popen(argv, stdout=subprocess.PIPE) as parent:
                assert parent.stdout is not None
                pids.append(int(parent.stdout.readline()))
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)


def accounts_are_whole(run: Run) -> None:
    """The parts of every block are all cores; of short ones together, as the kernel counts in ticks."""
    blocks = run.blocks_of(LoadBlock)
    accounts = [(block.host_cpu, block.measured_s) for block in blocks if block.host_cpu is not None]
    assert len(accounts) == len(blocks)
    short = [each for each, block in zip(accounts, blocks, strict=True) if block.intervention]
    measured = [each for each, block in zip(accounts, blocks, strict=True) if not block.intervention]
    for used in [*(account for account, _ in measured), *([pooled(short)] if short else [])]:
        assert used.servers is not None
        assert used.servers.keys() == {"pg1", "pg2", "pg3"}
        parts = [*used.servers.values(), used.generator, used.lab, used.kernel, used.others, used.idle, used.stolen]
        assert sum(part or 0.0 for part in parts) == pytest.approx(used.cores, rel=0.1)
    assert (frames.utilisation(run)["generator_cores"] > 0).all()


def test_another_program_is_named_at_the_head_and_leaves_no_verdict(cluster: Cluster) -> None:
    assert cluster.nodes
    with another_program():
        run = labkit.read_scaling(labkit.ReadScaling.build(SHORT | {"repeat_disturbed": 1, "interventions_s": 10}))
    blocks = run.blocks_of(LoadBlock)
    accounts_are_whole(run)
    assert any(block.disturbed for block in blocks)
    assert len(blocks) == 6 + 2, "one round was measured again, on both arms, and nothing was tried"
    (named,) = frames.disturbances(run)
    assert named.startswith("Disturbed: in ")
    assert labkit.verdicts(run)[0] == named
    assert {(row.limit, row.reason.split(" used ")[0]) for row in labkit.bottleneck(run).itertuples()} == {
        ("unknown", "other programs")
    }


def test_short_rounds_say_what_the_limit_was_and_are_in_no_figure(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.nodes
    monkeypatch.setattr(schema, "SHARE_THAT_MATTERS", 10.0)  # of all cores: what runs beside this test is not asked
    run = labkit.read_scaling(labkit.ReadScaling.build(SHORT | {"interventions_s": 10}))
    blocks = run.blocks_of(LoadBlock)
    short = [block for block in blocks if block.intervention]
    accounts_are_whole(run)
    assert len(blocks) - len(short) == 6
    assert {block.arm for block in short} == {"primary-only"}
    assert {block.intervention for block in short} == {
        *("nothing", "connections doubled", "users halved", "one load generator more"),
    }
    by_change = {block.intervention: block for block in short}
    assert by_change["connections doubled"].connections == {"pg1": 8}
    assert by_change["users halved"].vus == 8
    assert len(by_change["one load generator more"].shards) == 2
    assert (short[-1].to_ns - short[0].from_ns) / 1e9 < 3 * 10, "about ten seconds, on a busy machine too"
    assert set(frames.rounds(run)["block"]) == set(range(6))
    assert frames.headline(run)["measured_s"].tolist() == pytest.approx([1.8, 1.8], rel=0.01)
    changes = labkit.interventions(run).set_index("intervention")
    assert set(changes.loc[["connections doubled", "users halved"], "n"]) <= {LEAST_ROUNDS, ROUNDS}
    assert changes.loc[["connections doubled", "users halved"], "low"].notna().all()
    assert set(labkit.bottleneck(run)["limit"]) <= WORDS.keys()
    assert frames.littles_law(run)["vus"].tolist() == [16, 16]
