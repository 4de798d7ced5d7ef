"""Figures of losing a primary: the outage, the durability matrix, and what durability costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from labkit.frames.rows import each
from labkit.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    WIDTH_IN,
    Sheet,
    drawing,
    node_style,
)

_MODE_COLOURS = {"async": VERMILLION, "FIRST 1": ORANGE, "ANY 1": BLUE, "ANY 2": GREEN}
_LEVEL_MARKS = {"off": "x", "local": "v", "remote_write": "s", "on": "o", "remote_apply": "D"}
_MARKED = {"fault": "lost", "promote": "promoted", "first_write": "first row", "repoint": "replica follows"}


def outage(rows: pd.DataFrame, steps: pd.DataFrame) -> Sheet:
    """Acknowledged rows a second around the fault, a line a node, the main steps marked.

    `rows`: of `recovery.acknowledged`; `steps`: of `recovery.steps`.
    """
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 3.2), layout="constrained")
        ax = sheet.subplots()
        for node, line in rows.groupby("node", sort=False):
            ax.step(line["at_ms"], line["rows_per_s"], where="mid", label=str(node), **node_style(str(node)))
        top = float(rows["rows_per_s"].max()) if len(rows) else 1.0
        ax.set_ylim(0, top * 1.45)
        marked = [row for row in each(steps) if row.step in _MARKED]
        for place, row in enumerate(marked):
            ax.axvline(row.at_ms, color=GREY, linewidth=0.8)
            ax.annotate(
                f"{_MARKED[row.step]} {row.at_ms:.0f} ms",
                (row.at_ms, top * (1.38 - 0.09 * place)),
                (4, 0),
                textcoords="offset points",
                color=BLACK,
                fontsize=9,
                va="center",
            )
        ax.set_xlabel("time since the primary was lost, ms")
        ax.set_ylabel("acknowledged rows/s")
        ax.yaxis.set_major_formatter(EngFormatter(sep=""))
        ax.legend(loc="upper left", title="acknowledged by")
    sheet.alt = "Acknowledged rows a second around the loss of the primary, with the steps of the failover"
    return sheet


def matrix(cells: pd.DataFrame) -> Sheet:
    """Heat map of lost acknowledged rows: modes down, levels across, a panel a fault. `cells`: of `durability.cells`.

    In each cell: the trials that lost of all trials, the most rows one lost, or the bound where none lost.
    """
    faults = list(dict.fromkeys(cells["fault"]))
    modes, levels = list(dict.fromkeys(cells["mode"])), list(dict.fromkeys(cells["level"]))
    most = max(2.0, float(cells["lost_max"].max()))
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, (0.72 * len(modes) + 0.9) * len(faults)), layout="constrained")
        for ax, fault in zip(sheet.subplots(len(faults), 1, squeeze=False)[:, 0], faults, strict=True):
            grid = np.full((len(modes), len(levels)), np.nan)
            for row in each(cells[cells["fault"] == fault]):
                i, j = modes.index(row.mode), levels.index(row.level)
                grid[i, j] = row.lost_max if row.losing else np.nan
                said = f"{row.losing} of {row.trials} lost"
                said += f"\n≤ {row.lost_max:,} rows" if row.losing else f"\nrate ≤ {100 * row.bound:.0f} %"
                dark = row.lost_max > most**0.6
                ax.text(j, i, said, ha="center", va="center", fontsize=8.5, color="white" if dark else BLACK)
            ax.imshow(grid, cmap="Oranges", norm=LogNorm(0.5, most), aspect="auto")
            ax.set_xticks(range(len(levels)), levels)
            ax.set_yticks(range(len(modes)), modes)
            ax.set_xlim(-0.5, len(levels) - 0.5)
            ax.set_ylim(len(modes) - 0.5, -0.5)
            ax.grid(visible=False)
            ax.set_title(f"fault: {fault}")
    sheet.alt = "Lost acknowledged rows by replication mode, synchronous_commit and fault"
    return sheet


def rto(trials: pd.DataFrame, ax: Axes) -> Axes:
    """Share of trials whose outage was at most so long, a line a mode. `trials`: of `durability.trials`."""
    for mode, group in trials[trials["rto_ms"].notna()].groupby("mode", sort=False):
        values = np.sort(group["rto_ms"].to_numpy(dtype=float))
        shares = np.arange(1, len(values) + 1) / len(values)
        ax.step(
            values, shares, where="post", color=_MODE_COLOURS.get(str(mode), PURPLE), label=f"{mode} (n={len(values)})"
        )
    ax.set_xlabel("RTO, ms")
    ax.set_ylabel("share of trials")
    ax.set_ylim(0, 1.03)
    ax.set_xlim(0, None)
    ax.legend(loc="lower right")
    return ax


def cost(cells: pd.DataFrame, ax: Axes) -> Axes:
    """Rows lost at most against the median commit latency, a mark a mode and level. `cells`: of `durability.cells`."""
    for mode, level, group in (
        (m, lv, g)
        for (m, lv), g in cells.groupby(["mode", "level"], sort=False)  # over all faults
    ):
        ax.plot(
            group["commit_p50_ms"].median(),
            max(float(group["lost_max"].max()), 0.4),
            _LEVEL_MARKS.get(str(level), "o"),
            color=_MODE_COLOURS.get(str(mode), PURPLE),
            markersize=7,
        )
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(0, None)
    ax.set_xlim(0, 1.1 * float(cells["commit_p50_ms"].max()))
    ax.set_xlabel("commit latency p50, ms")
    ax.set_ylabel("acknowledged rows lost, most")
    return ax


def durability(cells: pd.DataFrame, trials: pd.DataFrame) -> Sheet:
    """Loss against cost, and the distribution of RTO beside it."""
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 3.6), layout="constrained")
        left, right = sheet.subplots(1, 2)
        cost(cells, left)
        rto(trials[trials["fault"] == "kill"] if (trials["fault"] == "kill").any() else trials, right)
        plain = {"linestyle": "", "markersize": 7}
        modes = [
            Line2D([], [], marker="o", color=_MODE_COLOURS.get(name, PURPLE), label=name, **plain)  # type: ignore[arg-type]
            for name in _names(cells, "mode")
        ]
        levels = [
            Line2D([], [], marker=_LEVEL_MARKS.get(name, "o"), color=GREY, label=name, **plain)  # type: ignore[arg-type]
            for name in _names(cells, "level")
        ]
        sheet.legend(handles=[*modes, *levels], loc="outside lower center", ncols=4, fontsize=9, handletextpad=0.2)
    sheet.alt = "Acknowledged rows lost against commit latency, and the distribution of RTO"
    return sheet


def _names(cells: pd.DataFrame, column: str) -> list[str]:
    return [str(name) for name in dict.fromkeys(cells[column])]


def quorum(costs: pd.DataFrame) -> Sheet:
    """Commit latency and rows a second of each mode and level, with 95 % intervals of the mean over rounds.

    `costs`: of `findings.quorum.costs`.
    """
    columns = {"commit_p50_ms": "commit latency p50, ms", "rate_per_s": "acknowledged rows/s"}
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 0.4 * len(costs) + 1.0), layout="constrained")
        axes = sheet.subplots(1, 2, sharey=True)
        for ax, (column, words) in zip(axes, columns.items(), strict=True):
            for place, row in enumerate(each(costs)):
                value, low, high = (getattr(row, column + end) for end in ("", "_low", "_high"))
                colour = _MODE_COLOURS.get(row.label.split("/")[0], PURPLE)
                if not np.isnan(low):
                    ax.plot([max(low, 0), high], [place, place], color=colour, linewidth=2.5, solid_capstyle="butt")
                ax.plot(value, place, "o", color=colour, markersize=7)
            ax.set_xlabel(words)
            ax.set_xlim(0, None)
            ax.grid(visible=False, axis="y")
        axes[1].xaxis.set_major_formatter(EngFormatter(sep=""))
        axes[0].set_yticks(range(len(costs)), list(costs["label"]))
        axes[0].set_ylim(len(costs) - 0.5, -0.5)
    sheet.alt = "Commit latency and throughput of each mode and level of replication, with 95 % intervals"
    return sheet
