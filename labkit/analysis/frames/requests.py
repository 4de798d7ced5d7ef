"""What the requests say: rates and latency distributions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit.analysis.frames.per_run_cache import once_a_run
from labkit.errors import RunUnreadable
from labkit.run.schema import DROPPED, LoadBlock
from labkit.run.store import Run

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

_COLUMNS = ("block", "start_ns", "wait_ns", "latency_ns", "outcome", "sqlstate")


@dataclass(frozen=True)
class Block:
    """The measured requests of one block, in columns of equal length: 13 bytes a request."""

    facts: LoadBlock
    begins_s: float  # where its measured part begins on its arm's time axis
    done_s: Floats  # when the answer came, since the end of the warm-up
    latency_ms: Floats
    wait_ms: Floats
    ok: Flags
    errors: Counter[str]  # SQLSTATE -> requests that were not answered rightly

    @property
    def measured_s(self) -> float:
        return self.facts.measured_s


def timeline(blocks: Sequence[LoadBlock]) -> list[float]:
    """Where each block's measured part begins, in seconds, when the rounds of its workload and arm are joined."""
    ends: dict[tuple[str, str], float] = {}
    begins = []
    for facts in blocks:
        group = (facts.workload, facts.arm)
        begins.append(ends.get(group, 0.0))
        ends[group] = begins[-1] + facts.measured_s
    return begins


# A run that has been read is kept as long as its Run object lives: every frame begins with the same columns.
_READ: WeakKeyDictionary[Run, list[Block]] = WeakKeyDictionary()


def measured(run: Run) -> list[Block]:
    """The blocks that count, with their measured requests, in the order they ran. Raises RunUnreadable if there are
    none."""
    if run in _READ:
        return _READ[run]
    facts = counted(run)
    if not facts:
        raise RunUnreadable(f"{run.id} has no finished block: it was cut off before anything was measured")
    blocks = _with_requests(facts, run.batches("ops", _COLUMNS))
    if run.status != "started":
        _READ[run] = blocks
    return blocks


def counted(run: Run) -> list[LoadBlock]:
    """The blocks that figures are made of: no short rounds, none that another one stands for."""
    return [block for block in run.blocks_of(LoadBlock) if block.counts]


def short_rounds(run: Run) -> list[Block]:
    """The blocks after the measured ones, in each of which one thing was changed, or nothing."""
    facts = [block for block in run.blocks_of(LoadBlock) if block.intervention]
    return _with_requests(facts, (batch for block in facts for batch in run.batches("ops", _COLUMNS, block.block)))


def _with_requests(facts: Sequence[LoadBlock], batches: Iterable[pd.DataFrame]) -> list[Block]:
    by_number = {block.block: block for block in facts}
    pieces: dict[int, list[tuple[Any, ...]]] = {number: [] for number in by_number}
    errors: dict[int, Counter[str]] = {number: Counter() for number in by_number}
    for batch in batches:
        numbers = batch["block"].to_numpy()
        # Requests of a block that was cut off have no measured part to belong to.
        for number in by_number.keys() & {int(number) for number in np.unique(numbers)}:
            mine = (numbers == number) & _in_measured_part(batch, by_number[number])
            columns = _columns(batch, mine, by_number[number])
            pieces[number].append(columns)
            errors[number].update(batch["sqlstate"].to_numpy()[mine][~columns[-1]].tolist())
    blocks = []
    for block, begins_s in zip(facts, timeline(facts), strict=True):
        found = pieces.pop(block.block)
        done_s, latency_ms, wait_ms, ok = map(np.concatenate, zip(_no_rows(), *found, strict=True))
        blocks.append(Block(block, begins_s, done_s, latency_ms, wait_ms, ok, errors[block.block]))
    return blocks


def _in_measured_part(batch: pd.DataFrame, facts: LoadBlock) -> Flags:
    done_ns = batch["start_ns"].to_numpy() + batch["latency_ns"].to_numpy()
    inside: Flags = (done_ns >= facts.warm_until_ns) & (done_ns < facts.to_ns)
    return inside


def _columns(batch: pd.DataFrame, mine: Flags, facts: LoadBlock) -> tuple[Any, ...]:
    latency_ns = batch["latency_ns"].to_numpy()[mine]
    done_ns = batch["start_ns"].to_numpy()[mine] + latency_ns
    return (
        ((done_ns - facts.warm_until_ns) / 1e9).astype(np.float32),
        (latency_ns / 1e6).astype(np.float32),
        (batch["wait_ns"].to_numpy()[mine] / 1e6).astype(np.float32),
        (batch["outcome"] == "ok").to_numpy()[mine],
    )


def _no_rows() -> tuple[Floats, Floats, Floats, Flags]:
    return (*(np.empty(0, np.float32) for _ in range(3)), np.empty(0, np.bool_))  # type: ignore[return-value]


def groups(run: Run) -> Iterator[tuple[str, str, list[Block]]]:
    """Workload, arm and their blocks, workloads first, in the order in which they first ran."""
    blocks = measured(run)
    workloads = list(dict.fromkeys(block.facts.workload for block in blocks))
    arms = list(dict.fromkeys(block.facts.arm for block in blocks))
    for workload in workloads:
        for arm in arms:
            chosen = [b for b in blocks if b.facts.workload == workload and b.facts.arm == arm]
            if chosen:
                yield workload, arm, chosen


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
    rows = []
    for block in measured(run):
        facts, waits = block.facts, block.wait_ms[block.ok]
        wait_p50, wait_p99 = np.percentile(waits, [50, 99]) if len(waits) else (np.nan, np.nan)
        rows.append(
            {"block": facts.block, "workload": facts.workload, "arm": facts.arm, "round": facts.round}
            | figures([block])
            | {"wait_p50_ms": float(wait_p50), "wait_p99_ms": float(wait_p99)}
        )
    return pd.DataFrame(rows)


def figures(blocks: Sequence[Block]) -> dict[str, Any]:
    """The figures of `headline` for the requests of some blocks, pooled."""
    seconds = sum(block.measured_s for block in blocks)
    answered = sum(len(block.ok) for block in blocks)
    latency = np.concatenate([block.latency_ms[block.ok] for block in blocks])
    found: dict[str, Any] = {
        "measured_s": seconds,
        "requests": answered,
        "requests_per_s": len(latency) / seconds,
        **dict.fromkeys(("mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms"), np.nan),
        "errors": answered - len(latency),
        "service_p50_ms": np.nan,
        "service_p99_ms": np.nan,
        "dropped": sum(block.errors[DROPPED] for block in blocks),
        "offered_per_s": _offered(blocks),
    }
    if len(latency):
        p50, p90, p95, p99 = (float(value) for value in np.percentile(latency, [50, 90, 95, 99]))
        found |= {"mean_ms": float(latency.mean(dtype=np.float64)), "p50_ms": p50, "p90_ms": p90}
        found |= {"p95_ms": p95, "p99_ms": p99, "max_ms": float(latency.max())}
        service = latency - np.concatenate([block.wait_ms[block.ok] for block in blocks])
        found |= dict(zip(("service_p50_ms", "service_p99_ms"), np.percentile(service, [50, 99]).tolist(), strict=True))
    return found


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
    """One row per second of measured time, the rounds of an arm joined end to end.

    A block is cut into equal bins as near to one second as they can be, so that no bin is a remainder and none
    spans two rounds.

    workload, arm: str. round: int. second: float, the middle of the bin on the arm's own time axis.
    requests_per_s: float, right answers. errors_per_minute: float. p50_ms, p90_ms, p99_ms: float, latency.
    wait_p50_ms, wait_p99_ms: float, waiting for a connection. service_p50_ms, service_p99_ms: float, latency
    without that wait. NaN where a bin has no right answer.
    """
    rows = []
    for workload, arm, blocks in groups(run):
        for block in blocks:
            bins = max(1, round(block.measured_s))
            width_s = block.measured_s / bins
            number = np.minimum((block.done_s / width_s).astype(np.int32), bins - 1)
            order = np.argsort(number, kind="stable")
            edges = np.searchsorted(number[order], np.arange(bins + 1))
            for i in range(bins):
                mine = order[edges[i] : edges[i + 1]]
                rows.append(
                    {"workload": workload, "arm": arm, "round": block.facts.round}
                    | {"second": block.begins_s + (i + 0.5) * width_s}
                    | _second(block, mine, width_s)
                )
    return pd.DataFrame(rows)


def _second(block: Block, mine: npt.NDArray[np.intp], width_s: float) -> dict[str, float]:
    right = mine[block.ok[mine]]
    latency, wait = block.latency_ms[right], block.wait_ms[right]
    figures = {
        "requests_per_s": len(right) / width_s,
        "errors_per_minute": (len(mine) - len(right)) / width_s * 60,
    }
    for prefix, values in (("", latency), ("wait_", wait), ("service_", latency - wait)):
        percentiles = np.percentile(values, [50, 90, 99]) if len(right) else [np.nan] * 3
        figures |= {f"{prefix}p{q}_ms": float(value) for q, value in zip((50, 90, 99), percentiles, strict=True)}
    return figures


def ecdf(run: Run, points: int = 300) -> pd.DataFrame:
    """The empirical distribution of latencies, dense in its tail.

    workload, arm: str. share: float, part of the right answers that took at most latency_ms: float. `points` rows
    at most for each workload and arm, from the fastest to the slowest request.
    """
    tail = 1 - np.logspace(-1, -6, points // 2)
    wanted = np.concatenate([np.linspace(0, 0.9, points - len(tail) - 1, endpoint=False), tail, [1.0]])
    frames = []
    for workload, arm, blocks in groups(run):
        latency = np.sort(np.concatenate([block.latency_ms[block.ok] for block in blocks]))
        if not len(latency):
            continue
        at = np.unique(np.ceil(wanted * len(latency)).astype(np.int64).clip(1, len(latency))) - 1
        frames.append(
            pd.DataFrame({"latency_ms": latency[at].astype(np.float64), "share": (at + 1) / len(latency)}).assign(
                workload=workload, arm=arm
            )
        )
    columns = ["workload", "arm", "latency_ms", "share"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
