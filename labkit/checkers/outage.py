"""How long writes were interrupted, from the ledger. Pure."""

from __future__ import annotations

import pandas as pd

from labkit.percentiles import percentile
from labkit.run.schema import Outage


def figures(writes: pd.DataFrame, fault_ns: int) -> Outage:
    """What one trial's ledger says: the outage, the rate and the commit latency before it."""
    ok = writes[writes["outcome"] == "ok"]
    counts = {str(k): int(v) for k, v in writes["outcome"].value_counts().items()}
    first_node = str(writes["node"].iloc[0]) if len(writes) else ""
    here = ok[ok["node"].astype(str) == first_node]
    there = ok[ok["node"].astype(str) != first_node]
    last = int(here["done_ns"].max()) if len(here) else None
    first = int(there["done_ns"].min()) if len(there) else None
    before = here[here["done_ns"] < fault_ns]
    latency_ms = (before["done_ns"] - before["intent_ns"]).to_numpy() / 1e6
    span_s = (before["done_ns"].max() - before["intent_ns"].min()) / 1e9 if len(before) else 0.0
    return Outage(
        transactions=counts,
        last_before_ns=last,
        first_after_ns=first,
        rto_ms=(first - last) / 1e6 if first is not None and last is not None else None,
        rate_per_s=float(before["rows"].sum() / span_s) if span_s else 0.0,
        commit_p50_ms=percentile(latency_ms, 50) if len(before) else None,
        commit_p99_ms=percentile(latency_ms, 99) if len(before) else None,
    )
