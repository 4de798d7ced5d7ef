"""The highest rate that keeps the p99 latency under a limit, found by doubling and bisection."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from typing import Any

from labkit.checkers import offered
from labkit.experiments.max_throughput.parameters import MaxThroughput
from labkit.experiments.stage import on_cluster, reading, recorded
from labkit.lab.load.arrivals import Open
from labkit.lab.load.blocks import latencies_ms
from labkit.lab.workloads import workload
from labkit.percentiles import percentile
from labkit.run.schema import DROPPED, Cell, LoadBlock
from labkit.run.store import Run
from labkit.units import number


def max_throughput(parameters: MaxThroughput, executor: Executor | None = None) -> Run:
    """Search the highest rate whose p99 latency stays within the limit: doubling, bisection, then confirmation.

    A rate holds if p99 ≤ limit, nothing was dropped or failed, and the answers keep up with what was asked. The run
    notes every trial as a block, and what was found as `found_per_s` (None if not even `rate_low` holds). Raises
    LabkitError; the run is then marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p)
    halvings = math.log2(math.log(2) / math.log1p(p.precision))
    trials = math.log2(p.rate_high / p.rate_low) / 2 + halvings + p.confirm
    seconds = trials * (p.warmup_s + p.trial_s)
    with (
        on_cluster(p) as (run, cluster),
        reading(p, run, cluster, [p.arm], seconds, p.processes, executor) as reads,
    ):
        load = workload(p.workload, reads.data)

        def holds(rate: float, phase: str) -> bool:
            cell = Cell(workload=p.workload, arm=str(p.arm), round=len(run.blocks), phase=phase)
            asked = Open(rate, p.arrival, p.max_in_flight)
            block = reads.blocks.drive(load, reads.serving[p.arm], asked, p.trial_s, cell)
            reasons = _why_not(run, block, p.p99_limit_ms)
            run.note_block(block.changed(holds=not reasons, reasons=reasons))
            return not reasons

        found = _search(holds, p)
        run.update(found_per_s=found)
    return run


def _why_not(run: Run, block: LoadBlock, limit_ms: float) -> list[str]:
    """Why a trial did not hold its rate; empty if it did."""
    latency, asked_per_s = latencies_ms(run, block), block.offered_per_s
    assert asked_per_s is not None
    reasons = []
    if not len(latency):
        reasons.append("no right answer")
    elif (p99 := percentile(latency, 99)) > limit_ms:
        reasons.append(f"p99 {number(p99)} ms")
    if block.dropped:
        reasons.append(f"{block.dropped:,} dropped")
    failed = sum(count for state, count in block.sqlstates.items() if state != DROPPED)
    if failed:
        reasons.append(f"{failed:,} failed")
    if not offered.met(len(latency), asked_per_s, block.measured_s):
        reasons.append(f"answered {len(latency) / block.measured_s:,.0f}/s of {asked_per_s:,.0f}/s")
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
