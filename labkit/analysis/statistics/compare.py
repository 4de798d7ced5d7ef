"""Differences with their uncertainty: the arms of one run in paired rounds, or two runs.

What is compared is what `frames.headline` shows: figures of all requests of all rounds pooled. Their 95 % intervals
come from drawing whole rounds again (with both arms' rounds of a pair drawn together), pooling the requests of the
drawn rounds and taking the figure of those; see the module bootstrap. So percentiles are never averaged. For that, the
requests of a round are kept as counts in latency classes 1 % wide.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit.analysis.frames import headline
from labkit.analysis.frames.per_run_cache import once_a_run
from labkit.analysis.frames.recorded import Block, groups
from labkit.analysis.frames.requests import figures
from labkit.analysis.frames.rows import each
from labkit.analysis.statistics import bootstrap
from labkit.analysis.statistics.bootstrap import Vector
from labkit.checkers.comparisons import comparisons as of_blocks
from labkit.errors import BadInput
from labkit.names import PRIMARY_ONLY, REPLICAS
from labkit.run.schema import Comparison, LoadBlock
from labkit.run.store import Run

ARMS = (PRIMARY_ONLY, REPLICAS)  # those of the original report, the baseline first
METRICS = ("requests_per_s", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "errors")
_PERCENTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99}
_CLASS = np.log(1.01)  # width of a latency class
FIELDS = list(bootstrap.Difference.__dataclass_fields__)


@dataclass(frozen=True)
class _Rounds:
    """Sums over the requests of each round: what pooled figures are made of. Vectors have one value per round."""

    seconds: Vector
    right: Vector
    errors: Vector
    total_ms: Vector
    classes: npt.NDArray[np.float64]  # (rounds, classes): right answers in each latency class
    edges_ms: Vector  # (classes + 1,)

    @classmethod
    def of(cls, blocks: Sequence[Block], span_ms: tuple[float, float]) -> _Rounds:
        count = int(np.ceil(np.log(span_ms[1] / span_ms[0]) / _CLASS)) + 1
        edges = span_ms[0] * np.exp(_CLASS * np.arange(count + 1))
        return cls(
            seconds=np.array([block.measured_s for block in blocks]),
            right=np.array([float(block.right) for block in blocks]),
            errors=np.array([float(block.requests - block.right) for block in blocks]),
            total_ms=np.array([block.right_latency_ms for block in blocks]),
            classes=np.array([_in_classes(block, span_ms[0], count) for block in blocks], dtype=np.float64),
            edges_ms=edges,
        )

    def resampled(self, metrics: Sequence[str], seed: int) -> dict[str, Vector]:
        """The pooled figures of every resample of these rounds, by metric."""
        pieces = [self._pooled(metrics, drawn) for drawn in bootstrap.draws(len(self.seconds), seed)]
        return {metric: np.concatenate([piece[metric] for piece in pieces]) for metric in pieces[0]}

    def _pooled(self, metrics: Sequence[str], drawn: Vector) -> dict[str, Vector]:
        right = drawn @ self.right
        upto = np.cumsum(drawn @ self.classes, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # resamples without a right answer have no latency
            found = {
                "requests_per_s": right / (drawn @ self.seconds),
                "mean_ms": drawn @ self.total_ms / right,
                "errors": drawn @ self.errors,
            }
            for metric in _PERCENTILES.keys() & set(metrics):
                found[metric] = self._percentile(_PERCENTILES[metric] * right, upto)
        return found

    def _percentile(self, wanted: Vector, upto: npt.NDArray[np.float64]) -> Vector:
        """The latency that `wanted` requests did not exceed: linear between the edges of the class that holds it."""
        place = (upto < wanted[:, None]).sum(axis=1).clip(max=upto.shape[1] - 1)
        row = np.arange(len(place))
        below = np.where(place > 0, upto[row, place - 1], 0.0)
        within = (wanted - below) / (upto[row, place] - below)
        return np.asarray(self.edges_ms[place] + within * np.diff(self.edges_ms)[place])


def _in_classes(block: Block, lowest_ms: float, count: int) -> Vector:
    """How many right answers of a block lie in each of `count` latency classes."""
    found = np.zeros(count)
    for rows in block.rows():
        number = (np.log(rows.right("latency").astype(np.float64) / lowest_ms) / _CLASS).astype(np.int64)
        found += np.bincount(number.clip(0, count - 1), minlength=count)
    return found


def _compared(
    before: Sequence[Block], after: Sequence[Block], metrics: Sequence[str], *, as_pairs: bool
) -> list[dict[str, Any]]:
    """One row per metric: `after` against `before`, rounds drawn together if they are pairs."""
    answered = [block for block in (*before, *after) if block.right]
    fastest_ms = min((block.fastest_ms for block in answered), default=1.0)
    slowest_ms = max((block.slowest_ms for block in answered), default=2.0)
    span_ms = (max(fastest_ms, 1e-3), max(slowest_ms, 2e-3))
    sides = [_Rounds.of(side, span_ms) for side in (before, after)]
    observed = [figures(side) for side in (before, after)]
    n = min(len(before), len(after))
    seeds = (0, 0 if as_pairs else 1)  # the same seed draws the same rounds
    drawn = [side.resampled(metrics, seed) if n > 1 else {} for side, seed in zip(sides, seeds, strict=True)]
    rows = []
    for metric in metrics:
        # Bootstrap says nothing about extremes, so max_ms has no interval: no resample can show a slower request.
        resampled = (drawn[0][metric], drawn[1][metric]) if metric in drawn[0] else None
        found = bootstrap.difference(float(observed[0][metric]), float(observed[1][metric]), resampled, n)
        rows.append({"metric": metric, **asdict(found)})
    return rows


def paired(before: Sequence[Block], after: Sequence[Block], metrics: Sequence[str] = METRICS) -> list[dict[str, Any]]:
    """`after` against `before`, blocks that are pairs: one dictionary per metric, with `FIELDS`."""
    return _compared(before, after, metrics, as_pairs=True)


def comparisons(run: Run) -> list[Comparison]:
    """Which arms the run compares, and what differs between them; derived from its blocks if it does not say so."""
    return list(run.record.comparisons) or of_blocks(run.experiment, run.blocks)


def arms(run: Run, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Every arm against the one that it is compared with, see `comparisons`, in paired rounds.

    One row per workload, arm and metric. workload, arm, against, metric: str; baseline, other, difference, low, high:
    float, in the metric's unit; relative, relative_low, relative_high: float, shares; n: int, pairs. A round that an
    arm did not finish makes no pair and is left out of all of this.
    """
    every = _all_arms(run)
    wanted = every[every["metric"].isin(list(metrics))]
    return wanted.reset_index(drop=True)


@once_a_run
def _all_arms(run: Run) -> pd.DataFrame:
    found = {(workload, arm): blocks for workload, arm, blocks in groups(run)}
    workloads = dict.fromkeys(workload for workload, _ in found)
    rows = []
    for workload, pair in itertools.product(workloads, comparisons(run)):
        before, after = _pairs(*(found.get((workload, arm), []) for arm in (pair.against, pair.arm)))
        if before:
            names = {"workload": workload, "arm": pair.arm, "against": pair.against}
            rows += [names | row for row in paired(before, after)]
    return pd.DataFrame(rows, columns=["workload", "arm", "against", "metric", *FIELDS])


def _pairs(before: Sequence[Block], after: Sequence[Block]) -> tuple[list[Block], list[Block]]:
    by_round = [{block.facts.round: block for block in side} for side in (before, after)]
    both = [number for number in by_round[0] if number in by_round[1]]
    return [by_round[0][number] for number in both], [by_round[1][number] for number in both]


def runs(a: Run, b: Run, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Run b against run a, for each workload and arm that both have; columns as in `arms`, `against` is "run A".

    Rounds of different runs are no pairs: each run's are drawn on their own, and n is the smaller number of them.
    """
    others = {(workload, arm): blocks for workload, arm, blocks in groups(b)}
    rows = [
        {"workload": workload, "arm": arm, "against": "run A", **row}
        for workload, arm, blocks in groups(a)
        if (workload, arm) in others
        for row in _compared(blocks, others[workload, arm], metrics, as_pairs=False)
    ]
    return pd.DataFrame(rows, columns=["workload", "arm", "against", "metric", *FIELDS])


def parameters(a: Run, b: Run) -> pd.DataFrame:
    """What the two runs were asked to do differently: parameter, a, b; empty if nothing."""
    left, right = a.parameters, b.parameters
    names = [name for name in {**left, **right} if left.get(name) != right.get(name) and name != "run_id"]
    rows = [{"parameter": name, "A": left.get(name), "B": right.get(name)} for name in names]
    return pd.DataFrame([*rows, *_opened(a, b)], columns=["parameter", "A", "B"], dtype=object)


def _opened(a: Run, b: Run) -> list[dict[str, Any]]:
    """Arms with other connections although the same were asked for: in older runs each node had as many."""
    if a.parameters.get("connections") != b.parameters.get("connections"):
        return []
    first, second = (
        {block.arm: sum(block.connections.values()) for block in run.blocks if isinstance(block, LoadBlock)}
        for run in (a, b)
    )
    return [
        {"parameter": f"connections of {arm}", "A": first[arm], "B": second[arm]}
        for arm in first
        if arm in second and first[arm] != second[arm]
    ]


def together(frame_of: Callable[[Run], pd.DataFrame], a: Run, b: Run) -> pd.DataFrame:
    """The same frame of both runs, told apart by the column run: "A" or "B"."""
    return pd.concat([frame_of(a).assign(run="A"), frame_of(b).assign(run="B")], ignore_index=True)


def same_experiment(a: Run, b: Run) -> None:
    """Refuse to lay runs of different experiments, or with nothing in common, side by side. Raises BadInput."""
    if a.experiment != b.experiment:
        raise BadInput(f"{a.id} and {b.id} are runs of different experiments; only runs of the same one compare")
    measured = [{(row.workload, row.arm) for row in each(headline(run))} for run in (a, b)]
    if not measured[0] & measured[1]:
        raise BadInput(f"{a.id} and {b.id} have no workload and arm in common")
