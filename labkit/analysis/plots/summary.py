"""The figures that come first: the headline, and the differences with their intervals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from labkit.analysis.frames.rows import each, matching
from labkit.analysis.plots.style import BLACK, WIDTH_IN, Sheet, arm_colour, counts, drawing, say, wrapped
from labkit.analysis.statistics import intervals
from labkit.analysis.words import arm_lines, arm_words

METRIC_WORDS = {"requests_per_s": "requests/s", "p50_ms": "p50 latency", "p99_ms": "p99 latency"}


def rate_bars(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Requests per second of each arm as bars; a whisker is the 95 % interval of the mean over rounds.

    `frame`: rows of `rounds` (or of `reference`, whose single round gives no whisker) of one workload. Fewer than
    three rounds give no whisker.
    """
    arms = list(dict.fromkeys(frame["arm"]))
    top = 0.0
    for place, arm in enumerate(arms):
        rates = frame.loc[frame["arm"] == arm, "requests_per_s"]
        mean, low, high = (float(limit) for limit in intervals.mean(rates))
        ax.bar(place, mean, width=0.62, color=arm_colour(arm), label=arm_words(arm))
        if not np.isnan(low):
            ax.errorbar(place, mean, [[mean - low], [high - mean]], color=BLACK, capsize=5, linewidth=1.2)
        reach = np.nanmax([mean, high])
        ax.annotate(f"{mean:,.0f}", (place, reach), (0, 3), textcoords="offset points", ha="center", va="bottom")
        top = max(top, reach)
    ax.set_xticks(range(len(arms)), [arm_lines(arm, 12) for arm in arms])
    ax.set_ylim(0, top * 1.18 or 1)
    ax.grid(visible=False, axis="x")
    ax.yaxis.set_major_formatter(counts())
    ax.set_ylabel("requests/s")
    return ax


def headline(rounds: pd.DataFrame, reference: pd.DataFrame) -> Sheet:
    """Throughput of each arm in this run, beside the original report's; one row per workload, with its own scale."""
    workloads = list(dict.fromkeys(rounds["workload"]))
    sides = {"this run": rounds} | ({"original report": reference} if len(reference) else {})
    many = rounds["arm"].nunique() > 2  # too many for names below them
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 2.4 * len(workloads)), layout="constrained")
        widths = (3, 2)[: len(sides)] if many else None
        grid = sheet.subplots(len(workloads), len(sides), squeeze=False, width_ratios=widths)
        for row, workload in zip(grid, workloads, strict=True):
            for ax, (side, frame) in zip(row, sides.items(), strict=True):
                mine = frame[frame["workload"] == workload]
                ax.set_title(f"{workload}, {side}")
                if len(mine):
                    rate_bars(mine, ax)
                else:
                    say(ax, "not measured")
            for ax in row[1:]:
                ax.set_ylabel("")
        if many:
            sheet.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
            for ax in grid.flat:
                ax.set_xticks([])
    beside = ", this run beside the original report" if len(reference) else ""
    sheet.alt = f"Requests per second of each arm for {', '.join(workloads)}{beside}"
    return sheet


_ORIGINAL = "original report: single runs, a pool to each node"


def relative_differences(frame: pd.DataFrame, ax: Axes, original: pd.DataFrame | None = None) -> Axes:
    """Relative differences as points with their 95 % intervals, one line per workload and metric.

    `frame`: rows of `compare.arms` or `compare.runs`, of one arm against one; one without an interval has no point
    either. `original`: workload, arm, metric, relative, drawn as diamonds.
    """
    labels = []
    for place, row in enumerate(each(frame)):
        colour = arm_colour(row.arm)
        estimate, low, high = (100 * value for value in (row.relative, row.relative_low, row.relative_high))
        if not np.isnan(low):
            ax.plot([low, high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
        label = "this run" if "this run" not in ax.get_legend_handles_labels()[1] and not np.isnan(low) else None
        ax.plot(estimate, place, "o", color=colour, markersize=7, label=label)
        labels.append(f"{row.workload}\n{METRIC_WORDS.get(row.metric, row.metric)}")
        if original is not None and len(original):
            same = matching(original, workload=row.workload, arm=row.arm, metric=row.metric)
            for value in same["relative"].dropna():
                label = _ORIGINAL if _ORIGINAL not in ax.get_legend_handles_labels()[1] else None
                ax.plot(100 * value, place, "D", mfc="white", mec=BLACK, markersize=6, label=label)
    ax.axvline(0, color=BLACK, linewidth=0.8)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    return ax


_NO_INTERVAL = f"no difference: fewer than {intervals.FEWEST} values a side give no interval"


def differences(frame: pd.DataFrame, original: pd.DataFrame | None = None) -> Sheet:
    """What each arm changed, in percent of the one that it is compared with: one panel per comparison.

    One line per workload and metric; `frame` and `original` as in `relative_differences`, of any arms.
    """
    chosen = frame[frame["metric"].isin(list(METRIC_WORDS))]
    pairs = list(dict.fromkeys(zip(chosen["arm"], chosen["against"], strict=True))) or [("", "nothing")]
    parts = [matching(chosen, arm=arm, against=against) for arm, against in pairs]
    against = {arm_words(name) for _, name in pairs}
    with drawing():
        size = (WIDTH_IN, 0.5 * len(chosen) + 0.4 * len(pairs) + 0.9)
        sheet = Sheet(figsize=size, layout="constrained")
        panels = sheet.subplots(
            len(pairs), 1, sharex=True, squeeze=False, height_ratios=[len(part) + 0.2 for part in parts]
        )
        for (arm, name), part, ax in zip(pairs, parts, panels[:, 0], strict=True):
            relative_differences(part, ax, original)
            if len(part) and part["relative_low"].isna().all():
                ax.text(0.5, 0.5, _NO_INTERVAL, ha="center", va="center", transform=ax.transAxes)
            if len(pairs) > 1:
                ax.set_title(
                    wrapped(f"{arm_words(arm)} against {arm_words(name)}", 60), loc="left", color=arm_colour(arm)
                )
        base = f" from {against.pop()}" if len(against) == 1 else ""
        panels[-1, 0].set_xlabel(f"difference{base}, % (bar: 95 % interval)")
        if original is not None and len(original):
            _legend(sheet, panels[:, 0])
    what = "; ".join(f"{arm_words(arm)} against {arm_words(name)}" for arm, name in pairs)
    sheet.alt = f"Differences in percent, with 95 % intervals: {what}"
    return sheet


def _legend(sheet: Sheet, panels: Iterable[Axes]) -> None:
    """What a point is and what a diamond: once for all panels."""
    known: dict[str, Any] = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            known.setdefault(label, handle)
    sheet.legend(list(known.values()), list(known), loc="outside upper right", ncols=2)
