"""Figures of losing a primary: the outage, the durability matrix, and what durability costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D

from labkit.analysis.frames.rows import each
from labkit.analysis.plots.style import BLACK, GREY, Sheet, drawing, level_mark, mode_colour
from labkit.analysis.words import SMALL_PT, percent

_MATRIX_IN = 7.3  # as wide as a report shows figures


def durability(cells: pd.DataFrame, trials: pd.DataFrame) -> Sheet:
    """Durability against cost: one row per mode, one band per fault. `cells` and `trials`: of `findings`.

    Left, a heat map of the acknowledged rows that were lost at most, one column per level; in each cell the trials that
    lost and how much (the median, least and most of these), or the bound of the rate where none lost. Beside it the
    commit latency, and the outage of every single trial, one line per level.
    """
    faults, modes, levels = (_names(cells, column) for column in ("fault", "mode", "level"))
    most = max(2.0, float(cells["lost_max"].max()))
    with drawing():
        size = (_MATRIX_IN, (0.62 * len(modes) + 0.8) * len(faults) + 0.3)
        sheet = Sheet(figsize=size, layout="constrained")
        widths = [1.0 * max(2, len(levels)), 1.5, 1.5]
        bands = sheet.subplots(len(faults), 3, sharex="col", sharey=True, squeeze=False, width_ratios=widths)
        for (left, middle, right), fault in zip(bands, faults, strict=True):
            _losses(left, cells[cells["fault"] == fault], modes, levels, most)
            left.set_title(f"rows lost: median (least–most), fault: {fault}", loc="left")
            of_fault = trials[(trials["fault"] == fault) & trials["rto_ms"].notna()]
            for row in each(cells[cells["fault"] == fault]):
                lane = _lane(modes.index(row.mode), levels.index(row.level), len(levels))
                drawn = {"color": mode_colour(row.mode), "marker": level_mark(row.level)}
                middle.plot(row.commit_p50_ms, lane, markersize=6, alpha=0.8, **drawn)
                mine = of_fault[(of_fault["mode"] == row.mode) & (of_fault["level"] == row.level)]
                outages = mine["rto_ms"].to_numpy(dtype=float)
                lanes = np.full(len(outages), lane)
                right.plot(outages, lanes, linestyle="", markersize=4, alpha=0.4, markeredgewidth=0, **drawn)
                if len(outages):
                    right.plot(np.median(outages), lane, "|", color=BLACK, markersize=9)
            for ax in (middle, right):
                ax.grid(visible=False, axis="y")
        left, middle, right = bands[-1]
        left.set_xlabel("synchronous_commit")
        middle.set_xlabel("commit p50, ms")
        right.set_xlabel("RTO, ms")
        middle.set_xlim(0, 1.1 * float(cells["commit_p50_ms"].max()))
        right.set_xlim(0, None)
        plain: dict[str, Any] = {"linestyle": "", "markersize": 6, "color": GREY}
        marks = [Line2D([], [], marker=level_mark(name), label=name, **plain) for name in dict.fromkeys(cells["level"])]
        sheet.legend(handles=marks, loc="outside lower right", ncols=len(marks), fontsize=SMALL_PT, handletextpad=0.1)
    sheet.alt = (
        "Lost acknowledged rows by replication mode, synchronous_commit and fault, beside commit latency and RTO"
    )
    return sheet


def _lane(mode: int, level: int, levels: int) -> float:
    """Where a level has its line within the row of its mode."""
    return mode + (level - (levels - 1) / 2) * 0.72 / levels


def _losses(ax: Axes, cells: pd.DataFrame, modes: list[str], levels: list[str], most: float) -> None:
    """One heat map: modes down, levels across; white is nothing lost."""
    grid = np.full((len(modes), len(levels)), np.nan)
    for row in each(cells):
        i, j = modes.index(row.mode), levels.index(row.level)
        grid[i, j] = row.lost_max if row.losing else np.nan
        said = f"{row.losing} of {row.trials} lost\n"
        if row.losing:
            spread = f"\n({_short(row.lost_min)}–{_short(row.lost_max)})" if row.losing > 1 else ""
            said += _short(row.lost_p50) + spread
        else:
            said += f"rate ≤ {percent(row.bound, signed=False)}"
        colour = "white" if row.lost_max > most**0.6 else BLACK
        ax.text(j, i, said, ha="center", va="center", fontsize=SMALL_PT, color=colour)
    ax.imshow(grid, cmap="Oranges", norm=LogNorm(0.5, most), aspect="auto")
    ax.set_xticks(range(len(levels)), [level.replace("_", "_\n") for level in levels])
    ax.set_yticks(range(len(modes)), modes)
    ax.set_xlim(-0.5, len(levels) - 0.5)
    ax.set_ylim(len(modes) - 0.5, -0.5)
    ax.grid(visible=False)


def _short(rows: float) -> str:
    if rows < 1000:
        return f"{rows:.1f}".removesuffix(".0")
    return f"{rows / 1000:.1f}k" if rows < 10_000 else f"{rows / 1000:,.0f}k"


def _names(cells: pd.DataFrame, column: str) -> list[str]:
    return [str(name) for name in dict.fromkeys(cells[column])]
