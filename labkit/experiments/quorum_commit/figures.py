"""What each mode and level of replication costs, as a figure."""

from __future__ import annotations

import numpy as np
import pandas as pd

from labkit.analysis.frames.rows import each
from labkit.analysis.plots.style import WIDTH_IN, Sheet, counts, drawing, mode_colour


def quorum(costs: pd.DataFrame) -> Sheet:
    """Commit latency and rows per second of each mode and level, with 95 % intervals of the mean over rounds.

    `costs`: of `findings.costs`.
    """
    columns = {"commit_p50_ms": "commit latency p50, ms", "rate_per_s": "acknowledged rows/s"}
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 0.4 * len(costs) + 1.0), layout="constrained")
        axes = sheet.subplots(1, 2, sharey=True)
        for ax, (column, words) in zip(axes, columns.items(), strict=True):
            for place, row in enumerate(each(costs)):
                value, low, high = (getattr(row, column + end) for end in ("", "_low", "_high"))
                colour = mode_colour(row.mode)
                if not np.isnan(low):
                    ax.plot([max(low, 0), high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
                ax.plot(value, place, "o", color=colour, markersize=7)
            ax.set_xlabel(words)
            ax.set_xlim(0, None)
            ax.grid(visible=False, axis="y")
        axes[1].xaxis.set_major_formatter(counts())
        axes[0].set_yticks(range(len(costs)), list(costs["label"]))
        axes[0].set_ylim(len(costs) - 0.5, -0.5)
    sheet.alt = "Commit latency and throughput of each mode and level of replication, with 95 % intervals"
    return sheet
