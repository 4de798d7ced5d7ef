"""Frames of the experiments about load itself as tables to read."""

from __future__ import annotations

import pandas as pd

from labkit.analysis.frames.requests import headline
from labkit.analysis.frames.rows import each
from labkit.analysis.plots.style import arm_words
from labkit.analysis.report.tables import Words, number, percent
from labkit.experiments.max_throughput import trials
from labkit.experiments.measuring_honestly import frames as honesty
from labkit.run.store import Run


def search(run: Run) -> pd.DataFrame:
    """Every trial of a search, in order."""
    every = trials.trials(run)
    return pd.DataFrame(
        {
            "trial": range(1, len(every) + 1),
            "phase": every["phase"],
            "asked for/s": every["offered_per_s"].map(number),
            "answered/s": every["requests_per_s"].map(number),
            "p50, ms": every["p50_ms"].map(number),
            "p99, ms": every["p99_ms"].map(number),
            "service p99, ms": every["service_p99_ms"].map(number),
            "generator, % of a core": every["generator_cpu_percent"].map(number),
            "holds": every["holds"].map({True: "yes", False: "no"}),
            "because of": every["reasons"],
        }
    ).set_index("trial")


def sweep(run: Run) -> pd.DataFrame:
    """Every number of users on every arm."""
    found = trials.levels(run)
    return pd.DataFrame(
        {
            "arm": found["arm"].map(arm_words),
            "users": found["vus"].map(number),
            "requests/s": found["requests_per_s"].map(number),
            "p50, ms": found["p50_ms"].map(number),
            "p99, ms": found["p99_ms"].map(number),
            "errors": found["errors"].map(number),
        }
    ).set_index(["arm", "users"])


def scalability(run: Run) -> pd.DataFrame:
    """The parameters of the Universal Scalability Law, with 95 % intervals."""
    rows = {}
    for row in each(trials.scalability(run)):
        rows[arm_words(row.arm)] = {
            "λ, requests/s of a lone user": f"{row.lam:,.0f} ({row.lam_low:,.0f} … {row.lam_high:,.0f})",
            "σ, contention": f"{row.sigma:.4f} ({row.sigma_low:.4f} … {row.sigma_high:.4f})",
            "κ, coherency": f"{row.kappa:.2e} ({row.kappa_low:.2e} … {row.kappa_high:.2e})",
            "knee, users": "none" if row.knee > row.most_users else number(row.knee),
            "highest requests/s": number(row.peak_per_s),
            "variance explained": percent(row.r_squared, signed=False),
        }
    return Words(rows)


def honestly(run: Run) -> pd.DataFrame:
    """Every arm but those of the comparisons with itself."""
    found = headline(run)
    found = found[~found["arm"].isin(["A", "A again"])]
    return pd.DataFrame(
        {
            "arm": found["arm"],
            "requests/s": found["requests_per_s"].map(number),
            "p50, ms": found["p50_ms"].map(number),
            "p99, ms": found["p99_ms"].map(number),
            "max, ms": found["max_ms"].map(number),
            "service p99, ms": found["service_p99_ms"].map(number),
            "errors": found["errors"].map(number),
        }
    ).set_index("arm")


def averaged(run: Run) -> pd.DataFrame:
    """What averaging percentiles makes of the open workload's p99."""
    found = honesty.averaged(run, honesty.OPEN)
    return pd.DataFrame(
        {
            "span, s": found["span_s"].map("{:g}".format),
            "mean of the spans' p99, ms": found["averaged_ms"].map(number),
            "p99 of all requests, ms": found["pooled_ms"].map(number),
        }
    ).set_index("span, s")
