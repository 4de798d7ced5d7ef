"""Conclusions of the experiments about load itself, computed from a run."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import special

from labkit.analysis import frames
from labkit.analysis.frames.rows import each
from labkit.analysis.plots.style import arm_words
from labkit.analysis.report.tables import number, percent
from labkit.analysis.statistics import compare
from labkit.experiments.max_throughput import trials
from labkit.experiments.measuring_honestly import frames as honesty
from labkit.experiments.read_scaling.findings import Sentences
from labkit.run.store import Run

WELL_FITTED = 0.8  # share of the variance


def no_differences(run: Run) -> pd.DataFrame:
    """Experiments that compare no arms: an empty frame with the columns of `compare.arms`."""
    del run
    return pd.DataFrame(columns=["workload", "arm", "against", "metric", *compare.FIELDS])


def search(run: Run) -> Sentences:
    """What a search for the highest rate found, and what it hit."""
    p, rate, every = run.parameters, run.meta.get("found_per_s"), trials.trials(run)
    where = f"{p['workload']} on {arm_words(p['arm'])}"
    limit = f"a p99 latency of at most {p['p99_limit_ms']:g} ms"
    found = Sentences()
    if rate is None:
        found.append(f"Not even {p['rate_low']:,.0f} requests per second held {limit} for {where}.")
    else:
        again = every[(every["phase"] == "confirmation") & (every["offered_per_s"] == rate)]
        found.append(
            f"{where} held {limit} up to {rate:,.0f} requests per second; "
            f"{int(again['holds'].sum())} of {len(again)} repetitions held too."
        )
        failed = every[~every["holds"] & (every["offered_per_s"] > rate)]
        if len(failed):
            lowest = failed.loc[failed["offered_per_s"].idxmin()]
            found.append(f"The lowest higher rate that failed was {lowest.offered_per_s:,.0f}/s: {lowest.reasons}.")
        else:
            found.append("No higher rate was tried: raise `rate_high`.")
    limited = trials.generator_limited(run)
    if limited:
        found.append(f"The load generator was at its own limit ({', '.join(limited)}): raise `processes`.")
    return _with_problems(found, run)


def search_problems(run: Run) -> list[str]:
    """What makes a search worthless, one sentence each."""
    found = frames.spoiled(run)
    if run.meta.get("found_per_s") is None and run.status != "failed":
        found.append("no rate held, so there is no result: raise p99_limit_ms or lower rate_low")
    return found


def sweep(run: Run) -> Sentences:
    """How each arm scales with users, where its knee is, and what more nodes would give."""
    found = Sentences()
    for row in each(trials.scalability(run)):
        found.append(
            f"{arm_words(row.arm)}: {row.lam:,.0f} requests/s for a lone user, contention σ {100 * row.sigma:.1f} % "
            f"(95 % interval {100 * row.sigma_low:.1f} … {100 * row.sigma_high:.1f} %), coherency κ {row.kappa:.2g} "
            f"({row.kappa_low:.2g} … {row.kappa_high:.2g}); the law explains {percent(row.r_squared, signed=False)} "
            "of the variance."
        )
        if row.r_squared < WELL_FITTED:
            found.append(f"The law does not describe {arm_words(row.arm)} well here, so its parameters say little.")
        if row.knee <= row.most_users:
            found.append(f"{arm_words(row.arm)}: throughput falls beyond {row.knee:,.0f} users.")
        else:
            found.append(f"{arm_words(row.arm)}: no knee within {row.most_users:,} users; more users only wait longer.")
    more = trials.more_nodes(run, int(run.parameters["up_to_nodes"]))
    if more is not None:
        at = len(more.nodes) - 1
        interval = "" if math.isnan(more.low[at]) else f" (95 % interval {more.low[at]:,.0f} … {more.high[at]:,.0f})"
        found.append(
            f"Extrapolated, not measured: {more.nodes[at]:.0f} nodes would give {number(float(more.throughput[at]))} "
            f"requests/s{interval}, {more.throughput[at] / more.throughput[0]:.2f} times one node, "
            "if every further node shares as much with the others as these do."
        )
    limited = trials.generator_limited(run)
    if limited:
        found.append(f"The load generator was at its own limit ({', '.join(limited[:4])} …): raise `processes`.")
    return _with_problems(found, run)


def honesty_sentences(run: Run) -> Sentences:
    """What a closed loop did not see, and how often a comparison of equals found a difference."""
    head = {row.arm: row for row in each(frames.headline(run))}
    closed, opened = head[honesty.CLOSED], head[honesty.OPEN]
    found = Sentences()
    stall_ms = 1e3 * float(run.parameters["stall_s"])
    found.append(
        f"The server stood still for {stall_ms:.0f} ms. The open workload's p99 was {number(opened.p99_ms)} ms, "
        f"the closed loop's {number(closed.p99_ms)} ms: its users had stopped asking."
    )
    found.append(
        f"The service time alone would have hidden it in the open workload too: p99 {number(opened.service_p99_ms)} ms."
    )
    spans = each(honesty.averaged(run, honesty.OPEN))
    worst = max(spans, key=lambda row: abs(math.log(row.averaged_ms / row.pooled_ms)))
    found.append(
        f"Averaging the p99 of {worst.span_s:g} s spans would have said {number(worst.averaged_ms)} ms "
        f"instead of {number(worst.pooled_ms)} ms."
    )
    off = frames.littles_law(run)
    off = off[off["arm"].str.endswith("users")]
    found.append(
        f"Little's law held within {percent(float(off['deviation_percent'].abs().max()) / 100, signed=False)} "
        f"for {', '.join(number(v) for v in off['vus'])} users."
    )
    same = honesty.self_comparisons(run)
    wrong = int(same["differs"].sum())
    found.append(
        f"Of {len(same)} comparisons of the server with itself {wrong} found a difference "
        f"({percent(wrong / len(same), signed=False)}); 5 % are expected, "
        f"and up to {most_by_chance(len(same))} of {len(same)} are no surprise."
    )
    width = float((same["relative_high"] - same["relative_low"]).median())
    found.append(f"Half of the intervals were wider than {percent(width, signed=False)}: less than that is noise here.")
    return _with_problems(found, run)


def most_by_chance(n: int, share: float = 0.05, surprise: float = 0.01) -> int:
    """The largest count that a binomial with so many tries exceeds with a chance below `surprise`."""
    counts = np.arange(n + 1)
    return int(counts[special.bdtrc(counts, n, share) < surprise][0])


def lead_of_search(run: Run) -> Sentences:
    return Sentences(search(run)[:1])


def lead_of_sweep(run: Run) -> Sentences:
    return Sentences(sentence for sentence in sweep(run) if "knee" in sentence or "falls" in sentence)


def lead_of_honesty(run: Run) -> Sentences:
    return Sentences(honesty_sentences(run)[:1])


def _with_problems(found: Sentences, run: Run) -> Sentences:
    found += [f"Not valid: {problem}." for problem in frames.spoiled(run)]
    return found
