"""What measuring-honestly found: tables, sentences, verdicts."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from labkit.analysis import frames
from labkit.analysis.frames.recorded import Block, groups, measured, percentiles
from labkit.analysis.frames.rows import each
from labkit.analysis.report import tables
from labkit.analysis.statistics import compare
from labkit.analysis.statistics.intervals import most_by_chance
from labkit.analysis.words import Sentences, count, not_valid, number, percent
from labkit.checkers.comparisons import CLOSED, OPEN, SELF
from labkit.errors import RunUnreadable
from labkit.percentiles import percentile
from labkit.percentiles import percentiles as of_values
from labkit.run.schema.events import Stall
from labkit.run.store import Run

headline = frames.headline
validity = frames.validity


def table(run: Run) -> pd.DataFrame:
    """Every arm but those of the comparisons with itself."""
    found = headline(run)
    found = found[~found["arm"].isin(SELF)]
    return pd.DataFrame(
        {
            "arm": found["arm"],
            **tables.figures(found, "requests_per_s", "p50_ms", "p99_ms", "max_ms", "service_p99_ms", "errors"),
        }
    ).set_index("arm")


WARM_AFTER_S = 1.0
"""How long the cold start is told apart from what follows it."""


def cold_table(run: Run) -> pd.DataFrame:
    """The first second after the restart beside the rest of that block: latencies, and what share of them was slow."""
    parts = list(_block(run, COLD).rows())
    latency = np.concatenate([rows.right("latency") for rows in parts])
    asked_s = np.concatenate([rows.asked_s[rows.ok] for rows in parts])
    rows = {}
    for name, mine in (
        (f"first {WARM_AFTER_S:g} s", latency[asked_s < WARM_AFTER_S]),
        ("after it", latency[asked_s >= WARM_AFTER_S]),
    ):
        p50, p99, slowest = of_values(mine, 50, 99, 100).tolist()
        rows[name] = {"requests": number(len(mine))} | {
            label: number(value) for label, value in (("p50, ms", p50), ("p99, ms", p99), ("max, ms", slowest))
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def averaged_table(run: Run) -> pd.DataFrame:
    """What averaging percentiles makes of the open workload's p99."""
    found = averaged(run, OPEN)
    return pd.DataFrame(
        {
            "span, s": found["span_s"].map("{:g}".format),
            "mean of the spans' p99, ms": found["averaged_ms"].map(number),
            "p99 of all requests, ms": found["pooled_ms"].map(number),
        }
    ).set_index("span, s")


def verdicts(run: Run) -> Sentences:
    """What a closed loop did not see, and how often a comparison of equals found a difference."""
    found = lead(run)
    if not _missing(run):
        found += [_service(run), _averaging(run), *_accounted(run), *_equals(run)]
    return Sentences([*found, *not_valid(validity(run))])


def lead(run: Run) -> Sentences:
    """What the stall showed, after what casts doubt on it."""
    return Sentences([*frames.disturbances(run), _stalled(run)])


def _missing(run: Run) -> list[str]:
    """Which of the two workloads that are compared were not measured, as in a run that was cut off."""
    there = {block.facts.arm for block in measured(run)}
    return [arm for arm in (CLOSED, OPEN) if arm not in there]


def _stalled(run: Run) -> str:
    """What each workload shows of a stall."""
    if unmeasured := _missing(run):
        return f"Nothing can be said of a stall: the run was cut off before its {' and its '.join(unmeasured)}."
    stalls = {arm: stall(run, arm) for arm in (OPEN, CLOSED)}
    if missing := [arm for arm, when in stalls.items() if when is None]:
        return f"No stall fell into the measured part of {' and '.join(missing)}, so nothing can be said of one."
    lasted = [1e3 * (end - begin) for begin, end in filter(None, stalls.values())]
    head = {row.arm: row for row in each(frames.headline(run))}
    closed, opened = head[CLOSED], head[OPEN]
    slow_ms = min(lasted) / 10
    slow = {
        arm: sum(int((rows.right("latency") > slow_ms).sum()) for rows in _block(run, arm).rows()) for arm in stalls
    }
    return (
        f"The server stood still once under each workload, for {' and '.join(map(number, lasted))} ms. The open "
        f"workload's p99 was {number(opened.p99_ms)} ms, the closed loop's {number(closed.p99_ms)} ms: "
        f"{slow[OPEN]:,} of the open workload's {opened.requests:,} requests took longer than {number(slow_ms)} ms, "
        f"and {slow[CLOSED]:,} of the loop's {closed.requests:,}, whose users ask for nothing while they wait."
    )


def _service(run: Run) -> str:
    """What is left of it without the wait for a connection."""
    (opened,) = (row for row in each(frames.headline(run)) if row.arm == OPEN)
    return (
        f"The open workload's p99 was {number(opened.p99_ms)} ms of latency and {number(opened.service_p99_ms)} ms of "
        "service time, which counts from when a request was sent."
    )


def _averaging(run: Run) -> str:
    worst = max(each(averaged(run, OPEN)), key=lambda row: abs(math.log(row.averaged_ms / row.pooled_ms)))
    return (
        f"Averaging the p99 of {worst.span_s:g} s spans would have said {number(worst.averaged_ms)} ms "
        f"instead of {number(worst.pooled_ms)} ms."
    )


def _accounted(run: Run) -> list[str]:
    """Whether users = throughput × time, for the blocks with few users and with many."""
    found = frames.littles_law(run)
    found = found[found["arm"].str.fullmatch(r"[0-9,]+ users?")]
    if found.empty:
        return []
    most = percent(float(found["deviation_percent"].abs().max()) / 100, signed=False)
    held = f"held within {most}" if found["ok"].all() else f"did not hold: it was off by up to {most}"
    return [f"Little's law {held} for {_listed(found['vus'])}."]


def _listed(users: pd.Series[float]) -> str:
    *others, last = (float(value) for value in users)
    return ", ".join([*map(number, others), count(last, "user")])


def _equals(run: Run) -> list[str]:
    """How often a server differed from itself, and what that noise hides."""
    same = self_comparisons(run)
    if same.empty:
        return ["No comparison of the server with itself was finished."]
    wrong, likely = int(same["differs"].sum()), most_by_chance(len(same))
    usual = (
        f"and up to {likely} of {len(same)} are no surprise"
        if wrong <= likely
        else f"and more than {likely} of {len(same)} are no chance: these intervals promise too much here"
    )
    return [
        f"Of {count(len(same), 'comparison')} of the server with itself {wrong} found a difference "
        f"({percent(wrong / len(same), signed=False)}); 5 % are expected, {usual}.",
        noise(same),
    ]


def noise(same: pd.DataFrame) -> str:
    """How small a difference is missed, from comparisons of equals: half of the width of their intervals."""
    half = float((same["relative_high"] - same["relative_low"]).median()) / 2
    return (
        f"Half of the intervals reached further than ±{percent(half, signed=False)} from their middle: with "
        f"{count(int(same['n'].iloc[0]), 'pair')} a comparison, a difference of that size would be found about every "
        "second time here, a smaller one less often."
    )


COLD = "cold start"


def _block(run: Run, arm: str) -> Block:
    for block in measured(run):
        if block.facts.arm == arm:
            return block
    raise RunUnreadable(f"{run.id} was cut off before its {arm} was measured")


def moments(run: Run, arm: str, width_s: float = 0.05) -> pd.DataFrame:
    """Short spans of one block, by when the requests were asked for.

    second: float, the middle of the span. requests: int. p50_ms, max_ms: float, latency; service_max_ms: float,
    the same without waiting for a connection. They are NaN in spans in which nothing was asked for.
    """
    found = []
    for span, rows in _block(run, arm).spans(width_s, asked=True):
        latency, service = rows.right("latency"), rows.right("service")
        if len(latency):
            figures = (float(np.median(latency)), float(latency.max()), float(service.max()))
            found.append((span, len(latency), *figures))
    frame = pd.DataFrame(found, columns=["span", "requests", "p50_ms", "max_ms", "service_max_ms"]).set_index("span")
    frame = frame.reindex(range(int(frame.index.max()) + 1)) if len(frame) else frame
    frame["requests"] = frame["requests"].fillna(0).astype(np.int64)
    frame.insert(0, "second", (frame.index + 0.5) * width_s)
    return frame.reset_index(drop=True)


def averaged(run: Run, arm: str) -> pd.DataFrame:
    """What becomes of a p99 when the p99s of spans are averaged instead of pooling their requests.

    One row per width: span_s: float. averaged_ms: float, the mean of the spans' p99. pooled_ms: float, the p99 of all
    requests, the same in every row.
    """
    block, rows = _block(run, arm), []
    (pooled_ms,) = percentiles([block], {"latency": [99]})["latency"]
    for width_s in (0.1, 0.25, 0.5, 1.0):
        spans = (span.right("latency") for _, span in block.spans(width_s) if span.ok.any())
        averaged_ms = float(np.mean([percentile(latency, 99) for latency in spans]))
        rows.append({"span_s": width_s, "averaged_ms": averaged_ms, "pooled_ms": pooled_ms})
    return pd.DataFrame(rows)


def stall(run: Run, arm: str = OPEN) -> tuple[float, float] | None:
    """When the server stood still in a block, in seconds of its measured part; None if it did not."""
    facts = _block(run, arm).facts
    for event in run.events_of(Stall):
        if facts.warm_until_ns <= event.from_ns < facts.to_ns:
            begin, end = ((at - facts.warm_until_ns) / 1e9 for at in (event.from_ns, event.to_ns))
            return begin, end
    return None


def self_comparisons(run: Run, metric: str = "requests_per_s") -> pd.DataFrame:
    """One row per comparison of the server with itself: the difference and its 95 % interval, by `compare.paired`.

    The difference is the mean (geometric) of the pairs' ratios, less one.

    comparison: int. relative, relative_low, relative_high: float, shares. n: int, pairs. differs: bool, the interval
    leaves zero out, which is wrong: there is no difference.
    """
    sides = {arm: blocks for _, arm, blocks in groups(run) if arm in SELF}
    size = run.parameter("pairs", int)
    comparisons = min(len(blocks) for blocks in sides.values()) // size if len(sides) == 2 else 0
    rows = []
    for i in range(comparisons):
        before, after = (blocks[i * size : (i + 1) * size] for blocks in sides.values())
        (row,) = compare.paired(before, after, [metric])
        rows.append({"comparison": i, **row, "differs": row["relative_low"] > 0 or row["relative_high"] < 0})
    return pd.DataFrame(rows, columns=["comparison", "metric", *compare.FIELDS, "differs"])
