"""How busy everything was in a run, and whether its figures can be believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from labkit.analysis.frames.host_cpu import account_of, in_cores
from labkit.analysis.frames.recorded import Block, groups
from labkit.analysis.frames.requests import errors, headline
from labkit.analysis.frames.rows import each
from labkit.analysis.frames.samples import resources
from labkit.analysis.words import percent
from labkit.checkers import evidence
from labkit.run.schema import WRONG_ANSWER, LoadBlock
from labkit.run.store import Run
from labkit.units import count

GENERATOR_LIMIT = 90.0  # percent of the one core that the load generator's event loop can use
ERROR_LIMIT = 0.01  # share of requests
DEVIATION_LIMIT = 5.0  # percent


def utilisation(run: Run) -> pd.DataFrame:
    """One row per workload and arm: how busy everything was. What limited it is for interventions to say.

    workload, arm: str. In cores of the machine that drove the run: generator_cores: float, all load generators.
    <node>_cores: float, each server. lab_cores, kernel_cores, others_cores, idle_cores, stolen_cores: float, see
    `host_cpu`; together they are the machine's, if its servers ran on it. throttled_percent: float, the largest share
    of time a CPU limit held a server back. pool_busy: float, share of connection time in use, 0 to 1. wait_share:
    float, waiting for a connection as a share of latency, 0 to 1. What was not measured is NaN.
    """
    usage = resources(run)
    rows = []
    for workload, arm, blocks in groups(run):
        mine = usage[(usage["workload"] == workload) & (usage["arm"] == arm)]
        mean = mine.groupby(["metric", "node"])["value"].mean()
        account = account_of(run, [block.facts for block in blocks])
        row: dict[str, Any] = {"workload": workload, "arm": arm}
        if account is None:
            known = {node: value / 100 for node, value in _of(mean, "cpu_percent").items() if node != "host"}
            row |= {f"{node}_cores": value for node, value in sorted(known.items())}
        else:
            row |= {f"{name}_cores": value for name, value in in_cores(account).items() if name != "cores"}
        row |= {
            "throttled_percent": max(_of(mean, "throttled_percent").values(), default=np.nan),
            "pool_busy": _weighted(blocks, lambda facts: facts.pool_busy_fraction),
            "wait_share": _wait_share(blocks),
        }
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*frame.columns, *(name for name in _PARTS if name not in frame)])


_PARTS = ("generator_cores", "lab_cores", "kernel_cores", "others_cores", "idle_cores", "stolen_cores")


def _of(mean: Any, metric: str) -> dict[str, float]:
    return dict(mean[metric]) if metric in mean.index.get_level_values("metric") else {}


def _weighted(blocks: list[Block], fact: Callable[[LoadBlock], float | None]) -> float:
    """The mean of a fact over the blocks that have it, by their length."""
    known = [(value, block.measured_s) for block in blocks if (value := fact(block.facts)) is not None]
    return float(np.average([v for v, _ in known], weights=[s for _, s in known])) if known else float("nan")


def _wait_share(blocks: list[Block]) -> float:
    latency = sum(block.right_latency_ms for block in blocks)
    return sum(block.right_wait_ms for block in blocks) / latency if latency else float("nan")


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
        answered = sum(block.requests for block in blocks)
        total_s = sum(block.latency_ms for block in blocks) / 1e3
        total_s += sum(block.requests * block.facts.think_s for block in blocks)
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

    What `validity_problems` finds, more than 1 % of errors, or a workload that got no right answer on some arm.
    """
    found = validity_problems(run)
    for row in each(headline(run)):
        where = f"{row.workload}, {row.arm}"
        if not row.requests_per_s:
            found.append(f"{where}: not one right answer was measured")
        elif (share := row.errors / row.requests) > ERROR_LIMIT:
            were = f"{percent(share, signed=False)} of the requests were errors"
            found.append(f"{where}: {were}, more than {100 * ERROR_LIMIT:g} %")
    return found


def validity_problems(run: Run) -> list[str]:
    """What spoils a run of any kind, one sentence each: what is missing of it or damaged, or a wrong answer."""
    found = evidence.problems(run)
    went_wrong = errors(run)
    for row in each(went_wrong[went_wrong["sqlstate"] == WRONG_ANSWER]):
        found.append(f"{row.workload}, {row.arm}: {count(row.requests, 'answer was wrong', 'answers were wrong')}")
    return found
