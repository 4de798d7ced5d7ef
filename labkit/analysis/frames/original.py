"""The figures that the lab compares itself with."""

from __future__ import annotations

import pandas as pd

from labkit import paths
from labkit.errors import RunUnreadable
from labkit.run.store import Run

_LATENCY = {"mean": "mean_ms", "p50": "p50_ms", "p90": "p90_ms", "p95": "p95_ms", "p99": "p99_ms", "max": "max_ms"}

_UNKNOWN = ("service_p50_ms", "service_p99_ms", "dropped", "offered_per_s")


def reference(run: Run | None = None) -> pd.DataFrame:
    """The original report's read tests in the shape of `headline`: one row per workload and arm.

    None to stand beside a run on attached servers: what it says is about one machine that all servers share.

    Its latency is k6's `http_req_duration`: an HTTP backend between the user and the database. k6's default
    summary holds no p99, so p99_ms is NaN. Each arm was run once, so there is no interval either.
    Raises RunUnreadable if data/reference/original_report.csv is missing.
    """
    if run is not None and run.record.provider == "attach":
        return reference().iloc[:0]
    file = paths.reference() / "original_report.csv"
    try:
        figures = pd.read_csv(file)
    except OSError as error:
        raise RunUnreadable(f"the original report's figures cannot be read from {file}: {error}") from error
    read_tests = figures[figures["metric"].isin(["http_reqs", "http_req_duration", "checks"])]
    rows = []
    for (workload, arm), group in read_tests.groupby(["workload", "arm"], sort=False):
        values = group.set_index(["metric", "stat"])["value"]
        latency = {
            name: float(values.get(("http_req_duration", stat), float("nan"))) for stat, name in _LATENCY.items()
        }
        rows.append(
            {
                "workload": workload,
                "arm": arm,
                "measured_s": values["http_reqs", "count"] / values["http_reqs", "rate"],
                "requests": int(values["http_reqs", "count"]),
                "requests_per_s": float(values["http_reqs", "rate"]),
                **latency,
                "errors": int(values["checks", "failed"]),
                **dict.fromkeys(_UNKNOWN, float("nan")),
            }
        )
    return pd.DataFrame(rows)
