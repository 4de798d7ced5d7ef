"""What the samples say: gauges as they are, counters as rates within a block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from labkit.analysis.frames.recorded import counted, timeline, widths
from labkit.run.schema import LoadBlock
from labkit.run.store import Run

# Counter -> name and factor of the rate that is made of it.
_RATES = {
    "cpu_seconds_total": ("cpu_percent", 100.0),
    "cpu_busy_seconds_total": ("cpu_busy_cores", 1.0),
    "cpu_idle_seconds_total": ("cpu_idle_cores", 1.0),
    "cpu_stolen_seconds_total": ("cpu_stolen_cores", 1.0),
    "throttled_seconds_total": ("throttled_percent", 100.0),
    "read_bytes_total": ("read_bytes_per_s", 1.0),
    "written_bytes_total": ("written_bytes_per_s", 1.0),
    "received_bytes_total": ("received_bytes_per_s", 1.0),
    "sent_bytes_total": ("sent_bytes_per_s", 1.0),
}
_SAMPLED = ("t_ns", "node", "metric", "value")
_LEAST = 20  # samples of a block that are kept, if it has as many
_AT_ONCE = 32  # pieces
_COLUMNS = ["workload", "arm", "round", "second", "node", "metric", "value"]


def resources(run: Run) -> pd.DataFrame:
    """Samples on the time axis of their arm, the rounds joined end to end.

    workload, arm: str. round: int. second: float, measured seconds of the arm; a rate stands at the middle of its
    interval. node: str, a server, `host`, `generator` or `lab`. metric: str, with its unit in the name: cpu_percent
    of a server, the generator or the lab is percent of one core, of the host percent of all its cores;
    cpu_percent_of_limit is percent of what a server may use; lag_bytes, lag_s, memory_bytes, read_bytes_per_s …
    value: float. What was not measured has no rows.

    A rate is made of two neighbouring samples of one block, never of two blocks. A counter that fell (the server
    was restarted) gives no rate for that interval. Of an arm that took more than ten minutes one sample in every
    600th part of that time is taken.
    """
    blocks = counted(run)
    if not run.has("samples") or not blocks:
        return _empty()
    samples = _thinned(run, blocks)
    times = samples["t_ns"].to_numpy()
    frames = []
    for facts, begins_s in zip(blocks, timeline(blocks), strict=True):
        first, last = np.searchsorted(times, [facts.from_ns, facts.to_ns])
        inside = _as_rates(samples.iloc[first:last])
        inside = inside[inside["t_ns"] >= facts.warm_until_ns]
        second = begins_s + (inside["t_ns"] - facts.warm_until_ns) / 1e9
        frames.append(inside.assign(workload=facts.workload, arm=facts.arm, round=facts.round, second=second)[_COLUMNS])
    joined: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return joined


def _thinned(run: Run, blocks: Sequence[LoadBlock]) -> pd.DataFrame:
    """The samples in order of time; of a long arm only the last of each series in every span, read piece by piece."""
    spans_s = [min(width_s, facts.measured_s / _LEAST) for facts, width_s in zip(blocks, widths(blocks), strict=True)]
    if max(widths(blocks)) == 1:
        return run.table("samples", _SAMPLED).sort_values("t_ns", kind="stable")
    begins = np.array([facts.from_ns for facts in blocks])
    spans_ns = np.array(spans_s) * 1e9
    known: dict[str, dict[str, int]] = {"node": {}, "metric": {}}  # name -> its number, which takes less memory
    kept: list[pd.DataFrame] = []
    for batch in run.batches("samples", _SAMPLED):
        for column, numbers in known.items():
            names = [numbers.setdefault(name, len(numbers)) for name in batch[column].cat.categories]
            batch[column] = np.array(names, np.int16)[batch[column].cat.codes]
        block = np.searchsorted(begins, batch["t_ns"], side="right") - 1
        span = (batch["t_ns"] - begins[block]) // spans_ns[block]
        kept.append(batch.assign(block=block.astype(np.int32), span=span.astype(np.int32))[block >= 0])
        if len(kept) == _AT_ONCE:
            kept = [_last_of_each(kept)]
    samples = _last_of_each(kept)[list(_SAMPLED)]
    for column, numbers in known.items():
        samples[column] = pd.Categorical.from_codes(samples[column].to_numpy(), pd.Index(list(numbers)))
    return samples


def _last_of_each(samples: Sequence[pd.DataFrame]) -> pd.DataFrame:
    every = pd.concat(samples, ignore_index=True).sort_values("t_ns", kind="stable")
    return every.drop_duplicates(["block", "span", "node", "metric"], keep="last")


def _as_rates(samples: pd.DataFrame) -> pd.DataFrame:
    samples = samples.astype({"node": str, "metric": str, "t_ns": float})
    is_counter = samples["metric"].isin(list(_RATES))
    counters = samples[is_counter]
    before = counters.groupby(["node", "metric"], sort=False)[["t_ns", "value"]].shift()
    seconds = (counters["t_ns"] - before["t_ns"]) / 1e9
    change = counters["value"] - before["value"]
    # A block that no sample fell into has an empty column of text here, with which nothing can be multiplied.
    factor = counters["metric"].map({name: factor for name, (_, factor) in _RATES.items()}).astype(float)
    rates = counters.assign(
        t_ns=(counters["t_ns"] + before["t_ns"]) / 2,
        metric=counters["metric"].map({name: rate for name, (rate, _) in _RATES.items()}),
        value=change / seconds * factor,
    )[(change >= 0) & (seconds > 0)]
    limits = samples[samples["metric"] == "cpu_limit_cores"].groupby("node", sort=False)["value"].median()
    of_limit = rates[(rates["metric"] == "cpu_percent") & rates["node"].isin(list(limits.index))]
    of_limit = of_limit.assign(
        metric="cpu_percent_of_limit", value=of_limit["value"] / of_limit["node"].map(limits).astype(float)
    )
    return pd.concat([samples[~is_counter], rates, of_limit])


def _empty() -> pd.DataFrame:
    kinds = {"round": "int64", "second": "float64", "value": "float64"}
    return pd.DataFrame({name: pd.Series(dtype=kinds.get(name, "str")) for name in _COLUMNS})


def disk_space(run: Run) -> pd.DataFrame:
    """What each server occupied at the first and at the last sample of the run; these are taken rarely.

    node: str. metric: str, data_directory_bytes or pg_wal_bytes, which is part of it. first, last: float, bytes.
    Empty if nothing was sampled.
    """
    columns = ["node", "metric", "first", "last"]
    if not run.has("samples"):
        return pd.DataFrame(columns=columns)
    rare = ["data_directory_bytes", "pg_wal_bytes"]
    pieces = (batch[batch["metric"].isin(rare)] for batch in run.batches("samples", _SAMPLED))
    chosen = pd.concat([piece.astype({"node": str, "metric": str}) for piece in pieces]).sort_values("t_ns")
    return chosen.groupby(["node", "metric"])["value"].agg(["first", "last"]).reset_index()[columns]


def not_measured(run: Run) -> pd.DataFrame:
    """What could not be measured. node: str. metric: str, named as in `resources`. reason: str, a sentence."""
    rows = [
        {"node": node, "metric": _RATES.get(metric, (metric, 1.0))[0], "reason": reason}
        for node, reasons in run.record.not_measured.items()
        for metric, reason in reasons.items()
    ]
    return pd.DataFrame(rows, columns=["node", "metric", "reason"])
