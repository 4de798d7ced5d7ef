"""Shards in any executor: a real Dask scheduler with two workers, each a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fix_load import DATA, with_connections

from labkit.experiments.read_scaling.drive import read_scaling
from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.lab.load.arrivals import Closed
from labkit.lab.load.clocks import Clock, host_id
from labkit.lab.load.shards import Generators, run_elsewhere
from labkit.lab.load.spec import LoadSpec, merge
from labkit.run.parts import Tables


@pytest.fixture
def dask_executor(tmp_path: Path) -> Iterator[Executor]:
    """An executor of a Dask client; scheduler and workers are processes that only this test knows."""
    distributed = pytest.importorskip("distributed")
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> None:
        command = [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]]
        started.append(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    file = tmp_path / "scheduler.json"
    try:
        start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        for _ in range(2):
            start("dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--no-nanny")
        with distributed.Client(scheduler_file=str(file), timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.get_executor()
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=20)


@pytest.mark.alone
@pytest.mark.slow
def test_two_workers_of_a_distributed_engine_make_one_run(dask_executor: Executor, load: LoadSpec) -> None:
    """Within a minute: shards begin together, all records come back, and every user was there."""
    with Generators(2, dask_executor) as generators:
        shards = generators.load(
            replace(load, arrivals=Closed(7), targets=with_connections(load, 5))
        )  # which two cannot share evenly
    ops = Tables(load.part.parent.parent).table("ops")
    whole = merge(shards)
    assert len(shards) == 2
    assert all(shard.host and shard.requests > 100 for shard in shards)
    assert whole.requests == len(ops)
    assert max(s.from_ns for s in shards) - min(s.from_ns for s in shards) < 0.2e9
    done = ops["start_ns"] + ops["latency_ns"]
    inside = ops[(done >= whole.warm_until_ns) & (done < whole.to_ns)]
    assert len(inside) * inside["latency_ns"].mean() / (whole.to_ns - whole.warm_until_ns) == pytest.approx(7, rel=0.1)

    p = ReadScaling.build(
        {"cluster": "shared", "users": DATA.users, "locale": DATA.locale, "vus": 8, "connections": 4, "processes": 2}
        | {"duration_s": 1, "rounds": 1, "warmup_s": 0.3, "workloads": "get-user", "keep_cluster": True}
        | {"repeat_disturbed": 0, "interventions_s": 0, "arms": "primary-only,replicas-round-robin"}
    )
    run = read_scaling(p, dask_executor)
    assert [len(block.shards) for block in run.blocks] == [2, 2]
    assert [sum(block.connections.values()) for block in run.blocks] == [4, 4]
    assert len(run.table("ops")) == sum(block.requests for block in run.blocks)


def test_times_of_a_distant_clock_are_translated(load: LoadSpec) -> None:
    """A worker whose clock is said to be an hour behind is given its own times and answers in those of this machine."""
    hour_ns = 3_600_000_000_000
    ahead = replace(load, epoch_ns=load.epoch_ns + hour_ns, start_ns=time.monotonic_ns() + hour_ns + 3_000_000_000)
    with ThreadPoolExecutor(1) as executor:
        result, part = executor.submit(run_elsewhere, ahead, {host_id(): Clock(-hour_ns, 1234)}).result(timeout=30)
    load.part.parent.mkdir(parents=True)
    load.part.write_bytes(part)
    ops = Tables(load.part.parent.parent).table("ops")
    assert (result.clock_offset_ns, result.clock_bound_ns) == (-hour_ns, 1234)
    assert result.from_ns == pytest.approx(ahead.start_ns - ahead.epoch_ns, abs=1e9)  # not an hour
    assert ops["start_ns"].min() >= result.from_ns
    assert np.all(ops["start_ns"] + ops["latency_ns"] < result.to_ns + load.timeout_s * 1e9)
    assert len(ops) == result.requests
