"""A run in the formats of other tools: HdrHistogram's log, the summary of k6, a table of trials."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogWriter

from labkit.analysis.frames import trials
from labkit.analysis.frames.recorded import Block, groups, measured
from labkit.analysis.frames.requests import figures
from labkit.errors import BadInput
from labkit.run.schema import LoadBlock
from labkit.run.store import Run

LOWEST_NS, HIGHEST_NS, DIGITS = 1_000, 3_600_000_000_000, 3  # a microsecond to an hour, 0.1 % wide at most
SPAN_S = 1.0


def hlog(run: Run, file: TextIO) -> None:
    """Write the latencies of all right answers as an HdrHistogram log.

    One interval histogram for every second of measured time, in order of time, tagged with workload and arm
    (`get-user.primary-only`). Values are nanoseconds and maxima milliseconds, as HdrHistogram's own tools have them;
    the log's times are seconds since the run began, which it notes as its base time.
    """
    began = dt.datetime.fromisoformat(run.record.epoch.utc)
    writer = HistogramLogWriter(file)
    writer.output_comment(f"labkit run {run.id}; latencies in nanoseconds")
    writer.output_log_format_version()
    writer.output_base_time(1e3 * began.timestamp())
    # The package's own writer of this line fails on every call.
    writer.output_comment(f"[StartTime: {began.timestamp():f} (seconds since epoch), {began.isoformat(' ')}]")
    writer.output_legend()
    for block in measured(run):
        tag = f"{block.facts.workload}.{block.facts.arm}".replace(",", "-").replace(" ", "-")
        begins_s = block.facts.warm_until_ns / 1e9
        for number, rows in block.spans(SPAN_S):
            latency_ns = rows.right("latency").astype(np.float64) * 1e6
            if not len(latency_ns):
                continue
            file.write(f"Tag={tag},")  # begins the line that follows; the package reads tags but writes none
            start_s, end_s = number * SPAN_S, min((number + 1) * SPAN_S, block.measured_s)
            writer.output_interval_histogram(_histogram(latency_ns), begins_s + start_s, begins_s + end_s)


def _histogram(latency_ns: Any) -> HdrHistogram:
    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    # Rounded to a microsecond, many are the same: recording is a call of Python each.
    rounded = (np.round(latency_ns / 1e3).astype(np.int64) * 1000).clip(LOWEST_NS, HIGHEST_NS)
    values, counts = np.unique(rounded, return_counts=True)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(value, count)
    return histogram


def k6(run: Run, file: TextIO) -> None:
    """Write the run's summary as k6 gives it to `handleSummary`: metrics with type, contains and values.

    k6's names for what has no HTTP in it: iterations, iteration_duration (ms, percentiles interpolated linearly as in
    k6), checks, dropped_iterations, vus. Each for the whole run and, as k6's submetrics, for every workload and arm:
    `iteration_duration{workload:get-user,arm:primary-only}`.
    """
    blocks = measured(run)
    metrics = _metrics(blocks, "")
    for workload, arm, mine in groups(run):
        metrics |= _metrics(mine, f"{{workload:{workload},arm:{arm}}}")
    duration_ms = 1e3 * sum(block.measured_s for block in blocks)
    content = {
        "root_group": {"name": "", "path": "", "id": "", "groups": [], "checks": []},
        "options": {"summaryTrendStats": ["avg", "min", "med", "max", "p(90)", "p(95)", "p(99)"]},
        "state": {"isStdOutTTY": False, "isStdErrTTY": False, "testRunDurationMs": duration_ms},
        "metrics": metrics,
    }
    json.dump(content, file, indent=2)
    file.write("\n")


def _metrics(blocks: list[Block], tags: str) -> dict[str, Any]:
    found = figures(blocks)
    answered, errors, seconds = found["requests"] - found["dropped"], found["errors"], found["measured_s"]
    right = answered - (errors - found["dropped"])
    values = {
        "iterations": _counter(answered, seconds),
        "dropped_iterations": _counter(found["dropped"], seconds),
        "checks": {
            "type": "rate",
            "contains": "default",
            "values": {
                "rate": right / answered if answered else 0.0,
                "passes": right,
                "fails": answered - right,
            },
        },
    }
    if right:
        values["iteration_duration"] = {
            "type": "trend",
            "contains": "time",
            "values": {
                "avg": found["mean_ms"],
                "min": min(block.fastest_ms for block in blocks),
                "med": found["p50_ms"],
                "max": found["max_ms"],
                "p(90)": found["p90_ms"],
                "p(95)": found["p95_ms"],
                "p(99)": found["p99_ms"],
            },
        }
    users = [block.facts.vus for block in blocks if block.facts.vus is not None]
    if users:
        values["vus"] = {
            "type": "gauge",
            "contains": "default",
            "values": {"value": users[-1], "min": min(users), "max": max(users)},
        }
    return {name + tags: metric for name, metric in values.items()}


def _counter(count: int, seconds: float) -> dict[str, Any]:
    return {"type": "counter", "contains": "default", "values": {"count": count, "rate": count / seconds}}


def trials_csv(run: Run, file: TextIO) -> None:
    """Write a CSV row per trial of a durability matrix: the run's id, the columns of `frames.trials`."""
    rows = trials.trials(run)
    rows.insert(0, "run", run.path.name)
    rows.to_csv(file, index=False, float_format="%.3f")


FORMATS: dict[str, tuple[str, Callable[[Run, TextIO], None]]] = {
    "hlog": (".hlog", hlog),
    "k6": (".json", k6),
    "trials": (".csv", trials_csv),
}


def export(run: Run, name: str, path: Path | None = None) -> Path:
    """Write a run in the format of that name, to derived/ unless told otherwise; gives the path.

    Raises BadInput if a run of this experiment does not hold what the format tells.
    """
    suffix, write = FORMATS[name]
    if name == "trials" and run.experiment != "durability-matrix":
        raise BadInput(f"format: {run.id} is a run of {run.experiment}; trials are those of a durability-matrix")
    if name != "trials" and not all(isinstance(block, LoadBlock) for block in run.blocks):
        raise BadInput(f"format: {run.id} is a run of {run.experiment}, which has no arms to tell latencies of")
    path = path or run.derived / f"{name}{suffix}"
    with path.open("w", encoding="utf-8") as file:
        write(run, file)
    return path
