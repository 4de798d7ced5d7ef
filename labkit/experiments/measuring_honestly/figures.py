"""Figures of the experiments about load itself."""

from __future__ import annotations

import numpy as np
import pandas as pd

from labkit.analysis.frames.rows import each
from labkit.analysis.plots.style import BLACK, BLUE, ORANGE, PLAIN, VERMILLION, WIDTH_IN, Sheet, drawing, logarithmic
from labkit.percentiles import percentile
from labkit.units import count


def moments(sides: dict[str, pd.DataFrame], stall: tuple[float, float] | None = None) -> Sheet:
    """Spans of time by when their requests were asked for: the slowest and the median of each, one panel per block."""
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 1.9 * len(sides) + 0.5), layout="constrained")
        panels = sheet.subplots(len(sides), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for (arm, frame), ax in zip(sides.items(), panels, strict=True):
            ax.plot(frame["second"], frame["max_ms"], ".-", color=VERMILLION, markersize=3, label="slowest request")
            ax.plot(frame["second"], frame["p50_ms"], ".-", color=BLUE, markersize=3, label="median")
            ax.set_title(arm)
            logarithmic(ax, "y", PLAIN, (1,))
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
        reach = 150 * percentile(ends, 90)
        ax.set_xlim(-reach, reach)
        ax.axvline(0, color=BLACK, linewidth=0.8)
        ax.set_xlabel("difference of the server from itself, % of its requests/s (bar: 95 % interval)")
        ax.set_ylabel("comparison")
        ax.set_yticks([])
        ax.grid(visible=False, axis="y")
    wrong = int(frame["differs"].sum())
    sheet.alt = f"{count(len(frame), 'comparison')} of a server with itself, {wrong} of them wrongly different"
    return sheet
