"""What limited a run, and whether its figures can be believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from labkit.analysis.frames.requests import Block, errors, groups, headline
from labkit.analysis.frames.rows import each
from labkit.analysis.frames.samples import resources
from labkit.run.schema import WRONG_ANSWER, LoadBlock
from labkit.run.store import Run

GENERATOR_LIMIT = 90.0  # percent of the one core that the load generator's event loop can use
HOST_LIMIT = 90.0  # percent of all cores
THROTTLED_LIMIT = 5.0  # percent of the time that a CPU limit kept a server waiting
POOL_LIMIT = 0.9  # share of connection time in use
WAIT_LIMIT = 0.5  # share of the latency spent waiting for a connection
ERROR_LIMIT = 0.01  # share of requests
DEVIATION_LIMIT = 5.0  # percent


def bottleneck(run: Run) -> pd.DataFrame:
    """One row per workload and arm: how busy everything was, and what was at its limit.

    workload, arm: str. client_cpu_percent: float, the load generator, percent of one core. <node>_cpu_percent: float,
    each server, percent of one core; servers_cpu_percent: their sum. host_cpu_percent: float, percent of all cores,
    whichever process used them. throttled_percent: float, the largest share of time a CPU limit held a server back.
    pool_busy: float, share of connection time in use, 0 to 1. wait_share: float, waiting for a connection as a share
    of latency, 0 to 1. limit: str. reason: str, a sentence. What was not measured is NaN.

    The first rule that holds gives `limit`:

    client   the generator used more than 90 % of a core: it measured itself, the servers could have done more
    host     more than 90 % of all cores were busy: servers and generator competed for them
    servers  a CPU limit kept a server waiting for more than 5 % of the time
    pool     connections were busy more than 90 % of the time and waiting for one was more than half of the latency
    none     nothing that was measured was at its limit: if that is all, more users or a higher rate would give more
    """
    usage = resources(run)
    rows = []
    for workload, arm, blocks in groups(run):
        mine = usage[(usage["workload"] == workload) & (usage["arm"] == arm)]
        mean = mine.groupby(["metric", "node"])["value"].mean()
        servers = {node: value for node, value in _of(mean, "cpu_percent").items() if node not in _NO_SERVER}
        row: dict[str, Any] = {
            "workload": workload,
            "arm": arm,
            "client_cpu_percent": _weighted(blocks, lambda facts: facts.generator_cpu_percent),
            "servers_cpu_percent": sum(servers.values()) if servers else np.nan,
            "host_cpu_percent": _of(mean, "cpu_percent").get("host", np.nan),
            "throttled_percent": max(_of(mean, "throttled_percent").values(), default=np.nan),
            "pool_busy": _weighted(blocks, lambda facts: facts.pool_busy_fraction),
            "wait_share": _wait_share(blocks),
        }
        row |= {f"{node}_cpu_percent": value for node, value in sorted(servers.items())}
        limit, reason = _limit(row)
        rows.append(row | {"limit": limit, "reason": reason})
    return pd.DataFrame(rows)


_NO_SERVER = ("host", "generator")


def _of(mean: Any, metric: str) -> dict[str, float]:
    return dict(mean[metric]) if metric in mean.index.get_level_values("metric") else {}


def _weighted(blocks: list[Block], fact: Callable[[LoadBlock], float | None]) -> float:
    """The mean of a fact over the blocks that have it, by their length."""
    known = [(value, block.measured_s) for block in blocks if (value := fact(block.facts)) is not None]
    return float(np.average([v for v, _ in known], weights=[s for _, s in known])) if known else float("nan")


def _wait_share(blocks: list[Block]) -> float:
    latency = sum(float(block.latency_ms[block.ok].sum(dtype=np.float64)) for block in blocks)
    wait = sum(float(block.wait_ms[block.ok].sum(dtype=np.float64)) for block in blocks)
    return wait / latency if latency else float("nan")


_UNSEEN = "the CPU of the servers was not measured"


def _limit(row: dict[str, Any]) -> tuple[str, str]:
    client, host, throttled = row["client_cpu_percent"], row["host_cpu_percent"], row["throttled_percent"]
    servers = row["servers_cpu_percent"]
    if client > GENERATOR_LIMIT:
        return "client", f"the load generator used {client:.0f} % of its core: it measured itself"
    if host > HOST_LIMIT:
        busy = f"{host:.0f} % of all cores were busy"
        if np.isnan(servers):
            return "host", f"{busy} where the load generator ran ({client:.0f} % of a core); {_UNSEEN}"
        shares = f"servers {servers:.0f} %, load generator {client:.0f} % of a core"
        return "host", f"{busy} ({shares}): they competed for the same CPU"
    if throttled > THROTTLED_LIMIT:
        return "servers", f"a CPU limit kept a server waiting {throttled:.0f} % of the time"
    if row["pool_busy"] > POOL_LIMIT and row["wait_share"] > WAIT_LIMIT:
        return "pool", f"{row['wait_share']:.0%} of the latency was waiting for a connection, all of them in use"
    if np.isnan(servers):
        return "none", f"nothing that was measured was at its limit; {_UNSEEN}"
    return "none", "nothing was at its limit: more users, or a higher rate, would give more throughput"


def littles_law(run: Run) -> pd.DataFrame:
    """One row per closed workload and arm: throughput × mean time of a request = users.

    workload, arm: str. vus: float, virtual users. answers_per_s: float, right and wrong. mean_s: float, mean latency
    of both, seconds, and the time that a user thinks. in_flight: float, their product. deviation_percent: float, of
    in_flight from vus. ok: bool, within 5 %. An open workload has no users, so it has no row. J. D. C. Little, "A
    Proof for the Queuing Formula L = λW", Operations Research 9 (1961).
    """
    rows = []
    for workload, arm, mixed in groups(run):
        blocks = [block for block in mixed if block.facts.vus is not None]
        if not blocks:
            continue
        seconds = sum(block.measured_s for block in blocks)
        answered = sum(len(block.latency_ms) for block in blocks)
        total_s = sum(float(block.latency_ms.sum(dtype=np.float64)) for block in blocks) / 1e3
        total_s += sum(len(block.latency_ms) * block.facts.think_s for block in blocks)
        vus = _weighted(blocks, lambda facts: facts.vus)
        deviation = (total_s / seconds / vus - 1) * 100
        rows.append(
            {"workload": workload, "arm": arm, "vus": vus, "answers_per_s": answered / seconds}
            | {"mean_s": total_s / answered if answered else np.nan, "in_flight": total_s / seconds}
            | {"deviation_percent": deviation, "ok": abs(deviation) <= DEVIATION_LIMIT}
        )
    return pd.DataFrame(rows, columns=_LITTLE)


_LITTLE = ["workload", "arm", "vus", "answers_per_s", "mean_s", "in_flight", "deviation_percent", "ok"]


def validity(run: Run) -> list[str]:
    """What makes the measurement worthless, one sentence each; empty if nothing does.

    What `spoiled` finds, more than 1 % of errors, or a workload that got no right answer on some arm.
    """
    found = spoiled(run)
    for row in each(headline(run)):
        where = f"{row.workload}, {row.arm}"
        if not row.requests_per_s:
            found.append(f"{where}: not one right answer was measured")
        elif (share := row.errors / row.requests) > ERROR_LIMIT:
            found.append(f"{where}: {share:.1%} of the requests were errors, more than {ERROR_LIMIT:.0%}")
    return found


def spoiled(run: Run) -> list[str]:
    """What spoils a run of any kind, one sentence each: a wrong answer, or an end that did not come."""
    found = []
    if run.status == "failed":
        found.append(f"the run did not come to its end: {run.problem or 'no reason was recorded'}")
    went_wrong = errors(run)
    for row in each(went_wrong[went_wrong["sqlstate"] == WRONG_ANSWER]):
        found.append(f"{row.workload}, {row.arm}: {row.requests} answers were wrong")
    return found
