"""The figures that come first: the headline, and the differences with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from labkit.analysis.frames.rows import each, matching
from labkit.analysis.plots.style import BLACK, WIDTH_IN, Sheet, arm_colour, counts, drawing, say
from labkit.analysis.statistics.bootstrap import mean_interval
from labkit.analysis.words import arm_words

METRIC_WORDS = {"requests_per_s": "requests/s", "p50_ms": "p50 latency", "p99_ms": "p99 latency"}


def rate_bars(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Requests a second of each arm as bars; a whisker is the 95 % interval of the mean over rounds.

    `frame`: rows of `rounds` (or of `reference`, whose single round gives no whisker) of one workload.
    """
    arms = list(dict.fromkeys(frame["arm"]))
    top = 0.0
    for place, arm in enumerate(arms):
        rates = frame.loc[frame["arm"] == arm, "requests_per_s"]
        mean, (low, high) = float(rates.mean()), mean_interval(rates)
        ax.bar(place, mean, width=0.62, color=arm_colour(arm))
        if not np.isnan(low):
            ax.errorbar(place, mean, [[mean - low], [high - mean]], color=BLACK, capsize=5, linewidth=1.2)
        reach = np.nanmax([mean, high])
        ax.annotate(f"{mean:,.0f}", (place, reach), (0, 3), textcoords="offset points", ha="center", va="bottom")
        top = max(top, reach)
    ax.set_xticks(range(len(arms)), [arm_words(arm).replace(", ", ",\n") for arm in arms])
    ax.set_ylim(0, top * 1.18 or 1)
    ax.grid(visible=False, axis="x")
    ax.yaxis.set_major_formatter(counts())
    ax.set_ylabel("requests/s")
    return ax


def headline(rounds: pd.DataFrame, reference: pd.DataFrame) -> Sheet:
    """Throughput of each arm in this run, beside the original report's; one row per workload, with its own scale."""
    workloads = list(dict.fromkeys(rounds["workload"]))
    sides = {"this run": rounds, "original report": reference}
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 2.4 * len(workloads)), layout="constrained")
        grid = sheet.subplots(len(workloads), len(sides), squeeze=False)
        for row, workload in zip(grid, workloads, strict=True):
            for ax, (side, frame) in zip(row, sides.items(), strict=True):
                mine = frame[frame["workload"] == workload]
                ax.set_title(f"{workload}, {side}")
                if len(mine):
                    rate_bars(mine, ax)
                else:
                    say(ax, "not measured")
    sheet.alt = f"Requests per second of each arm for {', '.join(workloads)}, this run beside the original report"
    return sheet


def relative_differences(frame: pd.DataFrame, ax: Axes, original: pd.DataFrame | None = None) -> Axes:
    """Relative differences as points with their 95 % intervals, one line a workload, arm and metric.

    `frame`: rows of `compare.arms` or `compare.runs`. `original`: workload, arm, metric, relative, drawn as diamonds.
    """
    labels = []
    several = frame["arm"].nunique() > 1
    for place, row in enumerate(each(frame)):
        colour = arm_colour(row.arm)
        estimate, low, high = (100 * value for value in (row.relative, row.relative_low, row.relative_high))
        if not np.isnan(low):
            ax.plot([low, high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
        ax.plot(estimate, place, "o", color=colour, markersize=7, label="this run" if place == 0 else None)
        whose = f"{row.workload}, {_short(row.arm)}" if several else row.workload
        labels.append(f"{whose}\n{METRIC_WORDS.get(row.metric, row.metric)}")
        if original is not None:
            same = matching(original, workload=row.workload, arm=row.arm, metric=row.metric)
            for value in same["relative"].dropna():
                label = "original report, single runs" if "original report, single runs" not in _named(ax) else None
                ax.plot(100 * value, place, "D", mfc="white", mec=BLACK, markersize=6, label=label)
    ax.axvline(0, color=BLACK, linewidth=0.8)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    return ax


def _short(arm: str) -> str:
    return arm_words(arm).split(",")[0]


def _named(ax: Axes) -> list[str]:
    return ax.get_legend_handles_labels()[1]


def differences(frame: pd.DataFrame, original: pd.DataFrame | None = None) -> Sheet:
    """What the other arm changed, in percent of the baseline, one line a workload and metric."""
    chosen = frame[frame["metric"].isin(list(METRIC_WORDS))]
    against = arm_words(str(chosen["against"].iloc[0])) if len(chosen) else "nothing"
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 0.55 * len(chosen) + 1.3), layout="constrained")
        ax = relative_differences(chosen, sheet.subplots(), original)
        ax.set_xlabel(f"difference from {against}, % (bar: 95 % interval)")
        if original is not None:
            sheet.legend(loc="outside upper right", ncols=2)
    sheet.alt = f"Differences in percent from {against}, with 95 % intervals"
    return sheet
