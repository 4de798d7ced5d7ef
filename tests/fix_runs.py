"""Synthetic run directories whose truths are known, written through the store as an experiment writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fix_records import a_host, a_load, a_sampling, a_server

from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.lab.load.records import WRONG_ANSWER
from labkit.run.schema import OUTCOMES, Facts, Follower, HostCpu, Intervention, LoadBlock, Postgresql
from labkit.run.store import Run, RunStore

SECOND = 1_000_000_000
ARMS = ("primary-only", "replicas-round-robin")
MORE_ARMS = tuple(f"{arm}-more-connections" for arm in ARMS)
SERVING = {
    "primary-only": {"pg1": 4},
    "replicas-round-robin": {"pg2": 2, "pg3": 2},
    "primary-only-more-connections": {"pg1": 8},
    "replicas-round-robin-more-connections": {"pg2": 4, "pg3": 4},
}
UNMEASURED = "the network is not accounted for by process"


@dataclass
class Recipe:
    """What a synthetic run should hold. Rates are requests per second, latencies milliseconds."""

    workloads: tuple[str, ...] = ("get-user", "search-users")
    arms: tuple[str, ...] = ARMS
    pools_to_each_node: bool = False  # as runs had them before connections were shared out
    rounds: int = 3
    block_s: float = 2.0
    warmup_s: float = 1.0
    gap_s: float = 0.5
    vus: int = 50
    rates: Mapping[tuple[str, str], float] = field(default_factory=dict)  # (workload, arm) -> requests per second
    rate: float = 1000.0
    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)  # (workload, arm) -> in each block
    wrong: int = 0  # wrong answers in the first block
    host_cpu_percent: float = 50.0
    generator_cpu_percent: float = 40.0
    pool_busy_fraction: float = 0.5
    wait_share: float = 0.2
    server_cpu_percent: float = 60.0  # of one core, every server all the time
    sqlstate: str = "57P01"  # of the failures
    offered_per_s: float | None = None  # the requests per second that an open workload asked for
    think_s: float = 0.0
    host_cpu: HostCpu | None = None  # what every block notes of it
    # of short rounds -> the rate, as a factor, or one for each round
    changes: Mapping[Intervention, float | tuple[float, ...]] = field(default_factory=dict)
    short_rounds: int = 4
    status: str = "complete"
    seed: int = 1


def build(root: Path, recipe: Recipe) -> Run:
    """Write the run: users / rate is each request's mean latency, so that Little's law holds."""
    rng = np.random.default_rng(recipe.seed)
    parameters = ReadScaling(
        workloads=",".join(recipe.workloads),
        arms=",".join(recipe.arms),
        rounds=recipe.rounds,
        duration_s=recipe.rounds * recipe.block_s,
        vus=recipe.vus,
    )
    run = RunStore(root).create("read-scaling", parameters.as_dict(), **_facts())
    blocks: list[LoadBlock] = []
    now = SECOND
    with run.writer("ops", "load") as ops:
        for workload in recipe.workloads:
            for turn in range(recipe.rounds):
                for arm in recipe.arms if turn % 2 == 0 else recipe.arms[::-1]:
                    block = _block(recipe, len(blocks), workload, arm, turn, now)
                    now = block.to_ns + int(recipe.gap_s * SECOND)
                    rows = _requests(recipe, block, rng)
                    ops.write(rows)
                    blocks.append(_with_counts(block, rows))
    now = _short_rounds(run, recipe, rng, blocks, now)
    with run.writer("samples", "sampler") as samples:
        samples.write(_samples(recipe, now))
    run.update(blocks=blocks)
    run.mark(recipe.status, "the load was interrupted" if recipe.status == "failed" else None)
    return run


def _short_rounds(run: Run, recipe: Recipe, rng: np.random.Generator, blocks: list[LoadBlock], now: int) -> int:
    """After the measured rounds: in each, one of the changes or none, on the first arm of every workload."""
    changes = {"nothing": 1.0, **recipe.changes} if recipe.changes else {}
    for workload in recipe.workloads:
        for turn in range(recipe.short_rounds):
            for change, factor in changes.items():
                times = factor[turn] if isinstance(factor, tuple) else factor
                rate = times * recipe.rates.get((workload, ARMS[0]), recipe.rate)
                slower = replace(recipe, block_s=0.4, warmup_s=0.2, rates={(workload, ARMS[0]): rate})
                block = _block(slower, len(blocks), workload, ARMS[0], turn, now)
                block = block.changed(phase="intervention", intervention=change)
                rows = _requests(slower, block, rng)
                with run.writer("ops", block.block) as ops:
                    ops.write(rows)
                blocks.append(_with_counts(block, rows))
                now = block.to_ns + SECOND // 10
    return now


def _with_counts(block: LoadBlock, rows: dict[str, Any]) -> LoadBlock:
    done = rows["start_ns"] + rows["latency_ns"]
    measured = int(((done >= block.warm_until_ns) & (done < block.to_ns)).sum())
    sent = int((rows["start_ns"] < block.to_ns).sum())  # a load sends nothing after its end
    return block.changed(requests=sent, measured=measured)


def _facts() -> Facts:
    row = Follower(application_name="pg2", state="streaming", sync_state="async", replay_lsn="0/5000060")
    return {
        "versions": {"labkit": "0.1.0", "python": "3.11", "psycopg": "3.2"},
        "postgresql": Postgresql(version="18.6", binaries="/usr/lib/postgresql/18/bin"),
        "git": None,
        "host": a_host(),
        "provider": "embedded",
        "cluster": "test",
        "nodes": [a_server(name, role) for name, role in (("pg1", "primary"), ("pg2", "replica"), ("pg3", "replica"))],
        "replication": [row, row.changed(application_name="<script>alert(1)</script>")],
        "replication_after": [row],
        "not_measured": {name: {"received_bytes_total": UNMEASURED, "sent_bytes_total": UNMEASURED} for name in NODES},
        "sampler": a_sampling(),
    }


NODES = ("pg1", "pg2", "pg3")


def _block(recipe: Recipe, number: int, workload: str, arm: str, turn: int, now: int) -> LoadBlock:
    warm = now + int(recipe.warmup_s * SECOND)
    return a_load(
        block=number,
        workload=workload,
        arm=arm,
        round=turn,
        from_ns=now,
        warm_until_ns=warm,
        to_ns=warm + int(recipe.block_s * SECOND),
        vus=None if recipe.offered_per_s else recipe.vus,
        think_s=recipe.think_s,
        host_cpu=recipe.host_cpu,
        disturbed=recipe.host_cpu and recipe.host_cpu.disturbed,
        offered_per_s=recipe.offered_per_s,
        connections=dict.fromkeys(SERVING[arm], 4) if recipe.pools_to_each_node else SERVING[arm],
        generator_cpu_percent=recipe.generator_cpu_percent,
        pool_busy_fraction=recipe.pool_busy_fraction,
        nodes=list(SERVING[arm]),
    )


def _requests(recipe: Recipe, block: LoadBlock, rng: np.random.Generator) -> dict[str, Any]:
    key = (block.workload, block.arm)
    rate = recipe.rates.get(key, recipe.rate) * rng.normal(1, 0.01)
    # Answers come evenly from the start of the warm-up until after the end of the block.
    done = np.arange(block.from_ns, block.to_ns + SECOND // 4, SECOND / rate).astype(np.int64)
    mean_s = recipe.vus / rate - recipe.think_s
    latency = rng.gamma(20, mean_s / 20 * SECOND, len(done)).astype(np.int64)
    outcome = np.zeros(len(done), np.int32)
    sqlstate = np.zeros(len(done), np.int32)
    inside = np.flatnonzero((done >= block.warm_until_ns) & (done < block.to_ns))
    outcome[inside[: recipe.failures.get(key, 0)]] = OUTCOMES.index("fail")
    sqlstate[inside[: recipe.failures.get(key, 0)]] = 1
    if block.block == 0:
        outcome[inside[: recipe.wrong]] = OUTCOMES.index("fail")
        sqlstate[inside[: recipe.wrong]] = 2
    nodes = block.nodes
    return {
        "block": np.full(len(done), block.block, np.int32),
        "node": (np.arange(len(done), dtype=np.int32) % len(nodes), nodes),
        "start_ns": done - latency,
        "wait_ns": (latency * recipe.wait_share).astype(np.int64),
        "latency_ns": latency,
        "outcome": (outcome, OUTCOMES),
        "sqlstate": (sqlstate, ["", recipe.sqlstate, WRONG_ANSWER]),
        "rows": np.ones(len(done), np.int32),
    }


def _samples(recipe: Recipe, end: int) -> dict[str, Any]:
    times = np.arange(0, end, SECOND // 2)
    rows: list[tuple[int, str, str, float]] = []
    for t in times.tolist():
        elapsed = t / SECOND
        for node in NODES:
            rows += [
                (t, node, "cpu_seconds_total", elapsed * recipe.server_cpu_percent / 100),
                (t, node, "memory_bytes", 2e8),
                (t, node, "data_directory_bytes", (100 + elapsed) * 2**20),
                (t, node, "read_bytes_total", elapsed * 2**20),
                (t, node, "connections_active", 3.0),
                (t, node, "connections_idle", 1.0),
            ]
        rows += [(t, node, metric, v) for node in NODES[1:] for metric, v in (("lag_bytes", 4096.0), ("lag_s", 0.01))]
        rows += [
            (t, "host", "cpu_percent", recipe.host_cpu_percent),
            *[(t, "host", f"load{minutes}", 1.5) for minutes in (1, 5, 15)],
            (t, "generator", "cpu_seconds_total", elapsed * recipe.generator_cpu_percent / 100),
        ]
    columns = list(zip(*rows, strict=True))
    return {
        "t_ns": np.array(columns[0], np.int64),
        "node": list(columns[1]),
        "metric": list(columns[2]),
        "value": np.array(columns[3]),
    }


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """`make_run(rounds=4, …)`: a run directory with the truths of that `Recipe`."""

    def make(**changes: Any) -> Run:
        return build(tmp_path / "runs", Recipe(**changes))

    return make


@pytest.fixture(scope="session")
def recorded_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One ordinary run for tests that only read."""
    return build(tmp_path_factory.mktemp("recorded") / "runs", Recipe())
