"""The composer of the experiments about load itself; the rest is in `labkit.experiments`."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any, Literal, cast

import numpy as np

from labkit.errors import BadInput
from labkit.experiments.declared import ConcurrencySweep, MaxThroughput, MeasuringHonestly, as_list
from labkit.experiments.stage import CATCHUP_S, check_connections, cluster_of, new_run, recorded
from labkit.lab import dataset, routing
from labkit.lab.cluster.cluster import Cluster, Node
from labkit.lab.cluster.powers import Killable
from labkit.lab.load.arrivals import Closed, Open
from labkit.lab.load.blocks import Blocks, latencies_ms
from labkit.lab.load.records import DROPPED
from labkit.lab.load.shards import Generators
from labkit.lab.sampling.sampler import Sampler
from labkit.lab.workloads import Workload, workload
from labkit.progress import Progress
from labkit.run.store import Run

_READY_S = 60.0
_LATE = 0.99  # of the rate that was asked for: below it, requests pile up


@dataclasses.dataclass
class _Stage:
    """A run with everything that its blocks need."""

    run: Run
    cluster: Cluster
    load: Workload
    blocks: Blocks


@contextlib.contextmanager
def _stage(
    name: str,
    p: MaxThroughput | ConcurrencySweep | MeasuringHonestly,
    arms: list[str],
    seconds: float,
    processes: int = 1,
    executor: Executor | None = None,
) -> Iterator[_Stage]:
    """A run with its cluster up and seeded, its generators and sampler running, and a bar of so many seconds."""
    with new_run(name, p.as_dict()) as run, cluster_of(p, run) as cluster:
        check_connections([routing.nodes_for(arm, cluster) for arm in arms], p.connections)
        data = dataset.DatasetSpec(p.users, p.locale, p.seed)
        with Generators(processes, executor) as generators:
            seeded = dataset.seed(cluster, data)
            run.update(dataset=dataclasses.asdict(seeded), replication=cluster.replication())
            cluster.wait_for_catchup(CATCHUP_S)
            sampler = Sampler(cluster.nodes, run, p.sample_interval_s, pids={"generator": generators.pids})
            with sampler, Progress("measuring", seconds, "s") as bar:
                yield _Stage(run, cluster, workload(p.workload, data), Blocks(run, generators, bar, p))
            run.update(not_measured=sampler.not_measured, sampler=sampler.summary())
            run.mark("measured")


def max_throughput(parameters: MaxThroughput, executor: Executor | None = None) -> Run:
    """Search the highest rate whose p99 latency stays within the limit: doubling, bisection, then confirmation.

    A rate holds if p99 ≤ limit, nothing was dropped or failed, and the answers keep up with what was asked. The run
    notes every trial as a block, and what was found as `found_per_s` (None if not even `rate_low` holds). Raises
    LabkitError; the run is then marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p.run_id, "max-throughput")
    halvings = math.log2(math.log(2) / math.log1p(p.precision))
    trials = math.log2(p.rate_high / p.rate_low) / 2 + halvings + p.confirm
    with _stage("max-throughput", p, [p.arm], trials * (p.warmup_s + p.trial_s), p.processes, executor) as stage:
        nodes = routing.nodes_for(p.arm, stage.cluster)

        def holds(rate: float, phase: str) -> bool:
            facts = {"workload": p.workload, "arm": p.arm, "round": len(stage.run.blocks), "phase": phase}
            kind = cast(Literal["constant", "poisson"], p.arrival)
            block = stage.blocks.drive(stage.load, nodes, Open(rate, kind, p.max_in_flight), p.trial_s, facts)
            reasons = _why_not(stage.run, block, p.p99_limit_ms)
            blocks = stage.run.blocks
            stage.run.update(blocks=[*blocks[:-1], block | {"holds": not reasons, "reasons": reasons}])
            return not reasons

        found = _search(holds, p)
        stage.run.update(found_per_s=found)
    return stage.run


def _why_not(run: Run, block: dict[str, Any], limit_ms: float) -> list[str]:
    """Why a trial did not hold its rate; empty if it did."""
    latency = latencies_ms(run, block)
    seconds = (block["to_ns"] - block["warm_until_ns"]) / 1e9
    reasons = []
    p99 = float(np.percentile(latency, 99)) if len(latency) else math.inf
    if p99 > limit_ms:
        reasons.append(f"p99 {p99:.3g} ms")
    if block["dropped"]:
        reasons.append(f"{block['dropped']} dropped")
    failed = sum(count for state, count in block["sqlstates"].items() if state != DROPPED)
    if failed:
        reasons.append(f"{failed} failed")
    # A Poisson count strays by its square root: five of them are no chance.
    expected = block["offered_per_s"] * seconds
    if len(latency) < _LATE * expected - 5 * math.sqrt(expected):
        reasons.append(f"answered {len(latency) / seconds:.0f}/s of {block['offered_per_s']:.0f}/s")
    return reasons


def _search(holds: Any, p: MaxThroughput) -> float | None:
    """Doubling up to the first rate that fails, bisection (of the logarithm) down to `precision`, confirmation."""
    if not holds(p.rate_low, "doubling"):
        return None
    good, bad = p.rate_low, math.inf
    while good < p.rate_high and bad == math.inf:
        rate = min(2 * good, p.rate_high)
        if holds(rate, "doubling"):
            good = rate
        else:
            bad = rate
    while bad < math.inf and bad / good > 1 + p.precision:
        rate = math.sqrt(good * bad)
        if holds(rate, "bisection"):
            good = rate
        else:
            bad = rate
    # A single trial may have held by luck: most of some more must hold too, or the next lower rate is tried.
    while sum(holds(good, "confirmation") for _ in range(p.confirm)) * 2 <= p.confirm:
        good /= 1 + p.precision
        if good < p.rate_low:
            return None
    return good


def concurrency_sweep(parameters: ConcurrencySweep, executor: Executor | None = None) -> Run:
    """Measure a closed load at every number of users on every arm, in rounds that go up and down.

    Raises LabkitError; the run is then marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p.run_id, "concurrency-sweep")
    arms = as_list(p.arms)
    seconds = len(arms) * len(p.user_levels) * p.rounds * (p.warmup_s + p.step_s)
    with _stage("concurrency-sweep", p, arms, seconds, p.processes, executor) as stage:
        nodes = {arm: routing.nodes_for(arm, stage.cluster) for arm in arms}
        for r in range(p.rounds):
            back = r % 2 == 1  # so that neither an arm nor a level always comes first
            for users in p.user_levels[::-1] if back else p.user_levels:
                for arm in arms[::-1] if back else arms:
                    facts = {"workload": p.workload, "arm": arm, "round": r}
                    stage.blocks.drive(stage.load, nodes[arm], Closed(users), p.step_s, facts)
    return stage.run


def measuring_honestly(parameters: MeasuringHonestly) -> Run:
    """Record what goes wrong in measuring: a cold start, a stall under both kinds of load, Little's law, noise.

    The primary alone serves. It is restarted once, and stopped with SIGSTOP for `stall_s` in the middle of two
    blocks. Raises LabkitError; the run is then marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p.run_id, "measuring-honestly")
    levels = [int(word) for word in as_list(p.little_levels)]
    seconds = 3 * p.block_s + len(levels) * p.block_s / 2 + p.comparisons * p.pairs * 2 * (p.pair_block_s + 0.1)
    with _stage("measuring-honestly", p, ["primary-only"], seconds) as stage:
        primary = stage.cluster.primary()
        paced = Open(p.rate, "constant")
        primary.control.stop()
        primary.control.start()
        primary.wait_ready(_READY_S)
        cold = stage.blocks.on_terms(p.replace(warmup_s=0))
        cold.drive(stage.load, [primary], paced, p.block_s, _facts(p, "cold start", 0))
        warm = cold.on_terms(p)
        for arm, when in (("closed loop", Closed(p.vus)), ("open, constant rate", paced)):
            with _stall(primary, p.warmup_s + p.block_s / 2, p.stall_s, stage.run):
                warm.drive(stage.load, [primary], when, p.block_s, _facts(p, arm, 0))
        for users in levels:
            warm.drive(
                stage.load, [primary], Closed(users, think_s=0.01), p.block_s / 2, _facts(p, f"{users} users", 0)
            )
        short = warm.on_terms(p.replace(warmup_s=min(p.warmup_s, 0.1)))
        for r in range(p.comparisons * p.pairs):
            for arm in ("A", "A again") if r % 2 == 0 else ("A again", "A"):
                short.drive(stage.load, [primary], Closed(p.vus), p.pair_block_s, _facts(p, arm, r))
    return stage.run


def _facts(p: MeasuringHonestly, arm: str, r: int) -> dict[str, Any]:
    return {"workload": p.workload, "arm": arm, "round": r}


@contextlib.contextmanager
def _stall(node: Node, after_s: float, for_s: float, run: Run) -> Iterator[None]:
    """Stop a node `after_s` seconds from now, for so long, while the with-block runs. Raises BadInput."""
    control = node.control
    if not isinstance(control, Killable):
        raise BadInput(f"{node.name}: its provider cannot pause a server, so there is no stall to measure")
    ended = threading.Event()

    def stall() -> None:
        if ended.wait(after_s):
            return
        control.pause()
        began_ns = run.now_ns()
        try:
            time.sleep(for_s)  # the length of the stall is what is measured
        finally:
            control.resume()
        run.event("stall", node=node.name, from_ns=began_ns, to_ns=run.now_ns())

    thread = threading.Thread(target=stall, name="labkit-stall")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
