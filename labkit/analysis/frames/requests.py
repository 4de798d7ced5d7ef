"""What the requests say: rates and latency distributions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from labkit.analysis.frames.per_run_cache import once_a_run
from labkit.analysis.frames.recorded import (
    Block,
    Column,
    Rows,
    counted,
    groups,
    measured,
    widths,
)
from labkit.analysis.frames.recorded import percentiles as of_blocks
from labkit.percentiles import percentiles
from labkit.run.schema import DROPPED
from labkit.run.store import Run


@once_a_run
def headline(run: Run) -> pd.DataFrame:
    """One row per workload and arm, over all rounds pooled.

    workload, arm: str. measured_s: float, seconds. requests: int, those that came to an end, rightly or not.
    requests_per_s: float, right answers a second. mean_ms, p50_ms, p90_ms, p95_ms, p99_ms, max_ms: float,
    latency of right answers from the moment the user wanted to ask, waiting for a connection included; NaN if
    there was none. errors: int, answers that were refused, wrong or unknown, and requests that were dropped.
    service_p50_ms, service_p99_ms: float, latency without waiting for a connection: all that a closed loop with as
    many users as connections would see. dropped: int, requests of an open workload that were never sent.
    offered_per_s: float, the rate at which an open workload asked; NaN for a closed one.
    """
    return pd.DataFrame([{"workload": w, "arm": a, **figures(blocks)} for w, a, blocks in groups(run)])


@once_a_run
def rounds(run: Run) -> pd.DataFrame:
    """One row per block: the figures of `headline` for that block alone, in the order the blocks ran.

    Adds block, round: int. wait_p50_ms, wait_p99_ms: float, waiting for a connection.
    """
    rows = [
        {"block": block.facts.block, "workload": block.facts.workload, "arm": block.facts.arm}
        | {"round": block.facts.round, **_with_waits([block])}
        for block in measured(run)
    ]
    return pd.DataFrame(rows)


def figures(blocks: Sequence[Block]) -> dict[str, Any]:
    """The figures of `headline` for the requests of some blocks, pooled."""
    return {name: value for name, value in _with_waits(blocks).items() if not name.startswith("wait_")}


def _with_waits(blocks: Sequence[Block]) -> dict[str, Any]:
    seconds = sum(block.measured_s for block in blocks)
    requests, right = (sum(getattr(block, name) for block in blocks) for name in ("requests", "right"))
    of = of_blocks(blocks, {"latency": [50, 90, 95, 99], "service": [50, 99], "wait": [50, 99]})
    p50, p90, p95, p99 = of["latency"]
    service_p50, service_p99 = of["service"]
    wait_p50, wait_p99 = of["wait"]
    return {
        "measured_s": seconds,
        "requests": requests,
        "requests_per_s": right / seconds,
        "mean_ms": sum(block.right_latency_ms for block in blocks) / right if right else np.nan,
        "p50_ms": p50,
        "p90_ms": p90,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": max(block.slowest_ms for block in blocks) if right else np.nan,
        "errors": requests - right,
        "service_p50_ms": service_p50,
        "service_p99_ms": service_p99,
        "dropped": sum(block.errors[DROPPED] for block in blocks),
        "offered_per_s": _offered(blocks),
        "wait_p50_ms": wait_p50,
        "wait_p99_ms": wait_p99,
    }


def _offered(blocks: Sequence[Block]) -> float:
    rates = [block.facts.offered_per_s for block in blocks]
    return float(np.mean([np.nan if rate is None else rate for rate in rates]))


def is_open(run: Run) -> bool:
    """Whether requests were asked for at a rate, so that throughput is what was asked and not a result."""
    return any(facts.offered_per_s is not None for facts in counted(run))


def errors(run: Run) -> pd.DataFrame:
    """One row per workload, arm and SQLSTATE of the requests that were not answered rightly; empty if all were.

    workload, arm, sqlstate: str; states that begin with LK are the load generator's own, LK003 is a wrong answer.
    requests: int. message: str, the first one that came with the state, "" if none was noted.
    """
    rows = []
    for workload, arm, blocks in groups(run):
        counted = sum((block.errors for block in blocks), Counter[str]())
        first: dict[str, str] = {}
        for block in blocks:
            first = block.facts.problems | first
        rows += [
            {"workload": workload, "arm": arm, "sqlstate": state, "requests": count, "message": first.get(state, "")}
            for state, count in counted.most_common()
        ]
    return pd.DataFrame(rows, columns=["workload", "arm", "sqlstate", "requests", "message"])


def per_second(run: Run) -> pd.DataFrame:
    """One row per second of measured time, the rounds of an arm joined end to end; 600 at most, of longer spans then.

    A block is cut into equal bins as near to that length as they can be, so that no bin is a remainder and none spans
    two rounds.

    workload, arm: str. round: int. second: float, the middle of the bin on the arm's own time axis.
    requests_per_s: float, right answers. errors_per_minute: float. p50_ms, p90_ms, p99_ms: float, latency.
    wait_p50_ms, wait_p99_ms: float, waiting for a connection. service_p50_ms, service_p99_ms: float, latency
    without that wait. NaN where a bin has no right answer.
    """
    rows = []
    for workload, arm, blocks in groups(run):
        for block, aim_s in zip(blocks, widths([block.facts for block in blocks]), strict=True):
            bins = max(1, round(block.measured_s / aim_s))
            width_s = block.measured_s / bins
            found = dict.fromkeys(range(bins), _second(Rows.joined([]), width_s))
            found |= {number: _second(mine, width_s) for number, mine in block.spans(width_s, bins)}
            rows += [
                {"workload": workload, "arm": arm, "round": block.facts.round}
                | {"second": block.begins_s + (number + 0.5) * width_s, **second}
                for number, second in found.items()
            ]
    return pd.DataFrame(rows)


def _second(rows: Rows, width_s: float) -> dict[str, float]:
    right = int(rows.ok.sum())
    found = {"requests_per_s": right / width_s, "errors_per_minute": (len(rows.ok) - right) / width_s * 60}
    columns: dict[str, Column] = {"": "latency", "wait_": "wait", "service_": "service"}
    for prefix, column in columns.items():
        values = percentiles(rows.right(column), 50, 90, 99).tolist()
        found |= {f"{prefix}p{q}_ms": value for q, value in zip((50, 90, 99), values, strict=True)}
    return found


def ecdf(run: Run, points: int = 300) -> pd.DataFrame:
    """The distribution of latencies, dense in its tail.

    workload, arm: str. share: float, part of the right answers that took at most latency_ms: float, which is the
    percentile 100·share: those of `headline` are among them. `points` rows at most for each workload and arm, from the
    fastest to the slowest request.
    """
    found = [
        distribution(blocks, points).assign(workload=workload, arm=arm)
        for workload, arm, blocks in groups(run)
        if any(block.right for block in blocks)
    ]
    columns = ["workload", "arm", "latency_ms", "share"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


_NAMED_SHARES = (0.5, 0.9, 0.95, 0.99)


def distribution(blocks: Sequence[Block], points: int = 300) -> pd.DataFrame:
    """`ecdf` of the right answers of some blocks, pooled: latency_ms, share."""
    count = sum(block.right for block in blocks)
    tail = 1 - np.logspace(-1, -6, points // 2)
    body = np.linspace(0, 0.9, points - len(tail) - len(_NAMED_SHARES) - 1, endpoint=False)
    # Between the two slowest requests there is nothing to see.
    tail = tail[(1 - tail) * (count - 1) >= 1]
    share = np.unique(np.concatenate([body, tail, _NAMED_SHARES, [1.0]]))
    latency = of_blocks(blocks, {"latency": (100 * share).tolist()})["latency"]
    return pd.DataFrame({"latency_ms": latency, "share": share})
