"""Figures of the experiments about load itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from labkit.analysis.frames.rows import each
from labkit.analysis.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    WIDTH_IN,
    Sheet,
    arm_colour,
    arm_words,
    drawing,
)
from labkit.analysis.statistics import usl

_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
_COUNTS = EngFormatter(sep="")


def _logarithmic(ax: Axes, axis: str, words: Formatter, steps: tuple[int, ...] = (1, 2, 5)) -> None:
    """A logarithmic axis with ticks at these steps of each decade, in plain numbers."""
    (ax.set_xscale if axis == "x" else ax.set_yscale)("log")
    scale = ax.xaxis if axis == "x" else ax.yaxis
    scale.set_major_locator(LogLocator(subs=steps))
    scale.set_major_formatter(words)
    scale.set_minor_formatter(NullFormatter())


def search(trials: pd.DataFrame, limit_ms: float, found_per_s: float | None) -> Sheet:
    """Every trial of a search: p99 latency against the rate that was asked for, and the order of the trials."""
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 5.2), layout="constrained")
        above, below = sheet.subplots(2, 1, height_ratios=[3, 2])
        for holds, colour, marker, label in ((True, GREEN, "o", "holds"), (False, VERMILLION, "x", "does not hold")):
            mine = trials[trials["holds"] == holds]
            above.plot(mine["offered_per_s"], mine["p99_ms"], marker, color=colour, label=label)
            below.plot(mine.index + 1, mine["offered_per_s"], marker, color=colour)
        above.axhline(limit_ms, color=BLACK, linestyle="--", linewidth=1, label=f"limit, {limit_ms:g} ms")
        _logarithmic(above, "x", _COUNTS)
        _logarithmic(above, "y", _PLAIN)
        above.set_xlabel("requests/s asked for (logarithmic)")
        above.set_ylabel("p99 latency, ms (logarithmic)")
        below.plot(trials.index + 1, trials["offered_per_s"], color=GREY, linewidth=0.8, zorder=1)
        below.set_xlabel("trial")
        below.set_ylabel("requests/s asked for")
        _logarithmic(below, "y", _COUNTS)
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        if found_per_s is not None:
            label = f"found, {found_per_s:,.0f}/s"
            above.axvline(found_per_s, color=BLUE, linewidth=1, label=label)
            below.axhline(found_per_s, color=BLUE, linewidth=1)
        sheet.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    sheet.alt = (
        f"p99 latency against the rate asked for, with the limit of {limit_ms:g} ms, and the order of the trials"
    )
    return sheet


def sweep(levels: pd.DataFrame, laws: dict[str, usl.Fit] | None = None) -> Sheet:
    """Throughput and p99 latency against the number of users, the arms together; `laws` are drawn as lines."""
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 5.6), layout="constrained")
        above, below = sheet.subplots(2, 1, sharex=True)
        for (arm, mine), marker in zip(levels.groupby("arm", sort=False), "osD^v", strict=False):
            colour = arm_colour(str(arm))
            line = "" if laws else "-"
            style = {"color": colour, "marker": marker, "markersize": 5}
            above.plot(mine["vus"], mine["requests_per_s"], linestyle=line, label=arm_words(str(arm)), **style)
            below.plot(mine["vus"], mine["p99_ms"], linestyle="-", **style)
            if laws:
                _law(above, laws[str(arm)], float(mine["vus"].max()), colour)
        above.set_ylabel("requests/s")
        above.yaxis.set_major_formatter(_COUNTS)
        above.set_ylim(0, None)
        below.set_ylabel("p99 latency, ms (logarithmic)")
        _logarithmic(below, "y", _PLAIN, (1,))
        below.set_xlabel("users (logarithmic)")
        _logarithmic(below, "x", _PLAIN)
        sheet.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    sheet.alt = f"Throughput and p99 latency against users, for {', '.join(map(arm_words, levels['arm'].unique()))}"
    return sheet


def _law(ax: Axes, law: usl.Fit, most: float, colour: str) -> None:
    at = np.geomspace(1, most, 200)
    ax.plot(at, law.throughput(at), color=colour, linewidth=1.2)
    if 1 <= law.knee <= most:
        peak = float(law.throughput([law.knee])[0])
        ax.plot(law.knee, peak, "*", color=colour, markersize=13, markeredgecolor=BLACK, zorder=4)
        words = f"knee, {law.knee:,.0f} users"
        ax.annotate(words, (law.knee, peak), (0, 9), textcoords="offset points", ha="center", color=colour, fontsize=9)
    ax.margins(y=0.18)


def nodes(found: usl.Nodes) -> Sheet:
    """What more nodes would give: what was measured as points, everything else dashed and called extrapolation."""
    few, many = found.measured
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 3.2), layout="constrained")
        ax = sheet.subplots()
        inside = found.nodes <= many
        beyond = found.nodes >= many
        ax.plot(found.nodes[inside], found.throughput[inside], color=BLUE)
        ax.plot(found.nodes[beyond], found.throughput[beyond], color=BLUE, linestyle="--", label="extrapolation")
        if not np.isnan(found.low).any():
            ax.fill_between(
                found.nodes[beyond],
                found.low[beyond],
                found.high[beyond],
                color=BLUE,
                alpha=0.15,
                linewidth=0,
                label="95 % interval of it",
            )
        ax.plot(found.nodes, found.throughput[0] * found.nodes, color=GREY, linewidth=1, linestyle=":", label="linear")
        ax.plot([few, many], found.throughput[[few - 1, many - 1]], "o", color=BLUE, markersize=7, label="measured")
        ax.axvspan(many, found.nodes[-1], color="#f4f4f4", zorder=0)
        top = np.nanmax([found.throughput.max() * 1.6, found.high[-1] * 1.1 if not np.isnan(found.high[-1]) else 0])
        ax.set_ylim(0, top)
        ax.text(0.99, 0.03, "not measured", transform=ax.transAxes, ha="right", color=GREY, style="italic")
        ax.set_xlabel("nodes that serve reads")
        ax.set_ylabel("highest requests/s")
        ax.xaxis.set_major_formatter(_PLAIN)
        ax.set_xticks(found.nodes)
        ax.yaxis.set_major_formatter(_COUNTS)
        sheet.legend(loc="outside upper center", ncols=4)
    sheet.alt = f"Highest throughput measured with {few} and {many} nodes, and extrapolated to {found.nodes[-1]:.0f}"
    return sheet


def moments(sides: dict[str, pd.DataFrame], stall: tuple[float, float] | None = None) -> Sheet:
    """Spans of time by when their requests were asked for: the slowest and the median of each, one panel a block."""
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 1.9 * len(sides) + 0.5), layout="constrained")
        panels = sheet.subplots(len(sides), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for (arm, frame), ax in zip(sides.items(), panels, strict=True):
            ax.plot(frame["second"], frame["max_ms"], ".-", color=VERMILLION, markersize=3, label="slowest request")
            ax.plot(frame["second"], frame["p50_ms"], ".-", color=BLUE, markersize=3, label="median")
            ax.set_title(arm)
            _logarithmic(ax, "y", _PLAIN, (1,))
            ax.set_ylabel("latency, ms")
            if stall:
                ax.axvspan(*stall, color=ORANGE, alpha=0.25, linewidth=0, label="server stands still")
        panels[-1].set_xlabel("when the request was asked for, s")
        sheet.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    sheet.alt = f"Slowest and median latency over time: {', '.join(sides)}"
    return sheet


def self_comparisons(frame: pd.DataFrame) -> Sheet:
    """Comparisons of a server with itself: each difference with its interval, those that leave zero out in red."""
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 0.095 * len(frame) + 1.3), layout="constrained")
        ax = sheet.subplots()
        for place, row in enumerate(each(frame)):
            colour = VERMILLION if row.differs else BLUE
            low, high, middle = (100 * value for value in (row.relative_low, row.relative_high, row.relative))
            ax.plot([low, high], [place, place], color=colour, linewidth=2.2 if row.differs else 1.2)
            ax.plot(middle, place, "D" if row.differs else ".", color=colour, markersize=5)
        # One wild interval would squeeze all others: it leaves the panel instead.
        ends = np.abs(frame[["relative_low", "relative_high"]].to_numpy()).max(axis=1)
        reach = 150 * float(np.percentile(ends, 90))
        ax.set_xlim(-reach, reach)
        ax.axvline(0, color=BLACK, linewidth=0.8)
        ax.set_xlabel("difference of the server from itself, % of its requests/s (bar: 95 % interval)")
        ax.set_ylabel("comparison")
        ax.set_yticks([])
        ax.grid(visible=False, axis="y")
    sheet.alt = (
        f"{len(frame)} comparisons of a server with itself, {int(frame['differs'].sum())} of them wrongly different"
    )
    return sheet
