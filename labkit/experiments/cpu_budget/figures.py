"""Throughput as a multiple of the primary alone, as a figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from labkit import names
from labkit.analysis.frames.rows import each
from labkit.analysis.plots.style import BLACK, BLUE, GREY, WIDTH_IN, Sheet, drawing
from labkit.analysis.words import SMALL_PT, arm_lines, number
from labkit.experiments.cpu_budget.findings import speedup
from labkit.run.store import Run


def ratios(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Throughput as a multiple of the primary alone, one bar per arm with its 95 % interval; requests/s above it.

    No bar where fewer than three rounds give no interval.

    `frame`: rows of `speedup` of one workload.
    """
    for place, row in enumerate(each(frame)):
        ax.bar(place, row.ratio, width=0.62, color=GREY if row.arm == names.PRIMARY_ONLY else BLUE)
        reach = row.ratio
        if not np.isnan(row.low):
            ax.errorbar(place, row.ratio, [[row.ratio - row.low], [row.high - row.ratio]], color=BLACK, capsize=5)
            reach = max(reach, row.high)
        known = not np.isnan(row.ratio)
        label = f"{number(row.ratio)} ×\n" * known + number(row.requests_per_s)
        at = (place, max(reach, 1.0) if known else 0.0)  # the line at 1 would cross the words
        ax.annotate(label, at, (0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=SMALL_PT)
    ax.set_xticks(range(len(frame)), [arm_lines(arm, 8) for arm in frame["arm"]], fontsize=SMALL_PT)
    ax.axhline(1, color=BLACK, linewidth=0.8)
    ax.grid(visible=False, axis="x")
    ax.set_ylabel("× primary alone, and requests/s")
    return ax


def figure(run: Run) -> Sheet:
    """Every budget next to each other on one axis."""
    frame = speedup(run)
    workloads = list(dict.fromkeys(frame["workload"]))
    most = float(np.nanmax([frame["ratio"].max(), frame["high"].max()]))
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 3.0 * ((len(workloads) + 1) // 2)), layout="constrained")
        axes = sheet.subplots((len(workloads) + 1) // 2, min(2, len(workloads)), squeeze=False, sharey=True).flat
        for ax, workload in zip(axes, workloads, strict=False):
            ratios(frame[frame["workload"] == workload], ax)
            ax.set_title(workload)
            ax.set_ylim(0, most * 1.3)
    sheet.alt = f"Requests per second as a multiple of the primary alone, for {'; '.join(workloads)}"
    return sheet
