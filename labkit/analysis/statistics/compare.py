"""Differences with their uncertainty: the arms of one run in paired rounds, or runs of one experiment.

What is compared are figures of rounds (or of runs): how many times one arm's figure is the other's in the same round.
A difference is the geometric mean of these ratios, less one, and its 95 % interval is Student's t over their
logarithms; see the module intervals. It is not the difference of the two arms' pooled figures, which `frames.headline`
shows: a slow round weighs as much as any other here. No percentile is averaged: what is averaged are ratios of two
percentiles, measured one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from labkit.analysis import frames
from labkit.analysis.frames.per_run_cache import once_a_run
from labkit.analysis.frames.recorded import Block, groups
from labkit.analysis.frames.requests import distribution, figures
from labkit.analysis.statistics import intervals
from labkit.analysis.statistics.intervals import FEWEST as FEWEST
from labkit.checkers.comparisons import comparisons as of_blocks
from labkit.errors import BadInput
from labkit.names import PRIMARY_ONLY, REPLICAS
from labkit.run.schema import Comparison, LoadBlock
from labkit.run.store import Run, open_run
from labkit.run.store import runs as recorded

ARMS = (PRIMARY_ONLY, REPLICAS)  # those of the original report, the baseline first
METRICS = ("requests_per_s", "mean_ms", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms", "errors")
FIELDS = ["baseline", "other", "relative", "relative_low", "relative_high", "n"]

Side = Sequence[Run]


def _compared(
    before: Sequence[Sequence[Block]],
    after: Sequence[Sequence[Block]],
    metrics: Sequence[str],
    ratio: Callable[[Any, Any], intervals.Limits],
) -> list[dict[str, Any]]:
    """One row per metric: `after` against `before`, each a sequence of what counts as one value: a round, a run."""
    parts = [pd.DataFrame([figures(unit) for unit in side]) for side in (before, after)]
    pooled = [figures([block for unit in side for block in unit]) for side in (before, after)]
    n = min(len(before), len(after))
    rows = []
    for metric in metrics:
        relative = [float(limit) - 1 for limit in ratio(*(part[metric].to_numpy() for part in parts))]
        if n < FEWEST:
            relative[0] = np.nan  # without an interval a difference says nothing
        found = [float(pooled[0][metric]), float(pooled[1][metric]), *relative, n]
        rows.append({"metric": metric} | dict(zip(FIELDS, found, strict=True)))
    return rows


def paired(before: Sequence[Block], after: Sequence[Block], metrics: Sequence[str] = METRICS) -> list[dict[str, Any]]:
    """`after` against `before`, blocks that are pairs: one dictionary a metric, with `FIELDS` (see `arms`)."""
    units_before, units_after = ([[block] for block in side] for side in (before, after))
    return _compared(units_before, units_after, metrics, intervals.ratio_of_pairs)


def comparisons(run: Run) -> list[Comparison]:
    """Which arms the run compares, and what differs between them; derived from its blocks if it does not say so."""
    return list(run.record.comparisons) or of_blocks(run.experiment, run.blocks)


def arms(run: Run, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """Every arm against the one that it is compared with, see `comparisons`, in paired rounds.

    One row per workload, arm and metric. workload, arm, against, metric: str; baseline, other: float, the pooled
    figures of the paired rounds, in the metric's unit; relative, relative_low, relative_high: float, shares: the
    geometric mean of the rounds' ratios less one, with its 95 % interval; NaN for fewer than three rounds, or where a
    round's figure is not above zero. n: int, pairs. A round that an arm did not finish makes no pair and is left out.
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


def sides(runs_a: str, runs_b: str) -> tuple[list[Run], list[Run]]:
    """The runs of both sides by their names, separated by commas.

    `previous` on side A is the newest run of the same experiment before those of B. Raises BadInput, RunNotFound,
    RunUnreadable.
    """
    b = _by_names(runs_b)
    a = [_before(b)] if runs_a.strip() == "previous" and b else _by_names(runs_a)
    comparable(a, b)
    return a, b


def _by_names(names: str) -> list[Run]:
    return [open_run(name.strip()) for name in names.split(",") if name.strip()]


def _before(side: Side) -> Run:
    first = min(run.path.name for run in side)
    earlier = [path for path in recorded() if path.parent.name == side[0].path.parent.name and path.name < first]
    if not earlier:
        raise BadInput(f"there is no run of {side[0].experiment} before {first}; name the runs to compare with")
    return open_run(earlier[-1])


def runs(a: Side, b: Side, metrics: Sequence[str] = METRICS) -> pd.DataFrame:
    """The runs b against the runs a, for each workload and arm that all have; columns as in `arms`.

    `against` is "run A". A run is one value, whatever its rounds: they share the machine's mood, and what one run has
    in common with no other is part of the noise between runs. n: int, the runs of the smaller side; with fewer than
    three a side there is no difference to tell. The intervals are those of `intervals.ratio`.
    """
    blocks = [_by_arm(side) for side in (a, b)]
    rows = [
        {"workload": workload, "arm": arm, "against": "run A", **row}
        for workload, arm in _common([*a, *b])
        for row in _compared(blocks[0][workload, arm], blocks[1][workload, arm], metrics, intervals.ratio)
    ]
    return pd.DataFrame(rows, columns=["workload", "arm", "against", "metric", *FIELDS])


def _by_arm(side: Side) -> dict[tuple[str, str], list[list[Block]]]:
    found: dict[tuple[str, str], list[list[Block]]] = {}
    for run in side:
        for workload, arm, blocks in groups(run):
            found.setdefault((workload, arm), []).append(blocks)
    return found


def _common(every: Side) -> list[tuple[str, str]]:
    """The workloads and arms that all of these runs have, in the order of the first."""
    measured = [[(workload, arm) for workload, arm, _ in groups(run)] for run in every]
    return [key for key in measured[0] if all(key in other for other in measured[1:])]


def pooled(a: Side, b: Side) -> pd.DataFrame:
    """The figures of `headline` of each side, all its runs pooled: side ("A", "B"), workload, arm and the figures."""
    return pd.DataFrame(
        [
            {"side": name, "workload": key[0], "arm": key[1]} | figures([block for run in blocks for block in run])
            for name, side in (("A", a), ("B", b))
            for key, blocks in _by_arm(side).items()
            if key in _common([*a, *b])
        ]
    )


def disturbances(a: Side, b: Side) -> list[str]:
    """Which of the runs other programs disturbed, or of which that is not known: a sentence for each of them."""
    return [
        f"{name} ({run.id}): {said[0].lower()}{said[1:]}"
        for name, side in (("A", a), ("B", b))
        for run in side
        for said in (*frames.disturbances(run), *frames.unaccounted(run))
    ]


_NO_CONDITION = ("run_id", "cluster", "keep_cluster")


def parameters(a: Side, b: Side) -> pd.DataFrame:
    """What the runs were asked to do differently: parameter, A, B; empty if nothing.

    A and B are the value of a side, or a text that lists its values if its runs differ among themselves.
    """
    rows = []
    for name in dict.fromkeys(name for run in (*a, *b) for name in run.parameters):
        values = [list(dict.fromkeys(run.parameters.get(name) for run in side)) for side in (a, b)]
        if name not in _NO_CONDITION and len({*values[0], *values[1]}) > 1:
            shown = [found[0] if len(found) == 1 else " or ".join(map(str, found)) for found in values]
            rows.append({"parameter": name, "A": shown[0], "B": shown[1]})
    return pd.DataFrame([*rows, *_opened(a, b)], columns=["parameter", "A", "B"], dtype=object)


def _opened(a: Side, b: Side) -> list[dict[str, Any]]:
    """Arms with other connections although the same were asked for: in older runs each node had as many."""
    if len({run.parameters.get("connections") for run in (*a, *b)}) > 1:
        return []
    first, second = (
        {
            block.arm: sum(block.connections.values())
            for run in side
            for block in run.blocks
            if isinstance(block, LoadBlock)
        }
        for side in (a, b)
    )
    return [
        {"parameter": f"connections of {arm}", "A": first[arm], "B": second[arm]}
        for arm in first
        if arm in second and first[arm] != second[arm]
    ]


def mixed(a: Side, b: Side) -> list[str]:
    """The parameters in which runs of one side differ among themselves: that side is not one thing measured often."""
    return [
        name
        for name in parameters(a, b)["parameter"]
        if name != "seed" and any(len({run.parameters.get(name) for run in side}) > 1 for side in (a, b))
    ]


def together(frame_of: Callable[[Run], pd.DataFrame], a: Side, b: Side) -> pd.DataFrame:
    """The same frame over time of all runs, the runs of a side joined end to end, told apart by the column run: A or B.

    `frame_of` gives workload, arm, round and second, as `per_second` and `resources` do.
    """
    frames = []
    for name, side in (("A", a), ("B", b)):
        ends: dict[tuple[str, str], float] = {}
        rounds = 0
        for run in side:
            frame = frame_of(run)
            begins = [ends.get(key, 0.0) for key in zip(frame["workload"], frame["arm"], strict=True)]
            frames.append(frame.assign(second=frame["second"] + begins, round=frame["round"] + rounds, run=name))
            for workload, arm, blocks in groups(run):
                ends[workload, arm] = ends.get((workload, arm), 0.0) + sum(block.measured_s for block in blocks)
            rounds += 1 + max(block.facts.round for _, _, blocks in groups(run) for block in blocks)
    return pd.concat(frames, ignore_index=True)


def latencies(a: Side, b: Side) -> pd.DataFrame:
    """`frames.ecdf` of each side, all its runs pooled, told apart by the column run: "A" or "B"."""
    found = [
        distribution([block for run in blocks for block in run]).assign(workload=key[0], arm=key[1], run=name)
        for name, side in (("A", a), ("B", b))
        for key, blocks in _by_arm(side).items()
        if any(block.right for run in blocks for block in run)
    ]
    return pd.concat(found, ignore_index=True)


def comparable(a: Side, b: Side) -> None:
    """Refuse sides that cannot be compared: empty ones, one run twice, by its id or as a copy in another folder, runs
    of different experiments, or with nothing in common. Raises BadInput."""
    every = [*a, *b]
    if not a or not b:
        raise BadInput("a comparison needs a run on each side: name at least one for A and one for B")
    if problems := [problem for one, other in itertools.combinations(every, 2) if (problem := _one_run(one, other))]:
        raise BadInput(problems, subject="comparison")
    for other in every[1:]:
        if other.experiment != every[0].experiment:
            raise BadInput(
                f"{every[0].id} and {other.id} are runs of different experiments; only runs of the same one compare"
            )
    if not _common(every):
        raise BadInput(f"{', '.join(run.id for run in every)} have no workload and arm in common")


def _one_run(one: Run, other: Run) -> str | None:
    """Why the two are one run; None if they are two. A copy began at the same moment, and its tables are the same."""
    if one.path == other.path:
        return f"{one.id} is named twice; a run differs from itself in nothing"
    same = one.record.epoch == other.record.epoch or (one.record.digests and one.record.digests == other.record.digests)
    if not same:
        return None
    return f"{one.path} and {other.path} are copies of one run, begun at {one.record.epoch.utc}; name one of them"
