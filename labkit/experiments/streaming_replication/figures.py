"""Positions, lag and visibility over time, as figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from labkit.analysis.plots.style import BLACK, WIDTH_IN, Sheet, drawing, node_style
from labkit.experiments.streaming_replication.findings import noted
from labkit.run.schema.events import Position, Visibility
from labkit.run.store import Run
from labkit.units import MIB

T = TypeVar("T")
_POSITIONS = {"sent": "-", "write": "--", "flush": "-.", "replay": ":"}


def behind(frame: pd.DataFrame, ax: Axes) -> Axes:
    """How far the positions of one replica are behind the end of the primary's WAL. `frame`: its `position` events."""
    for name, dashes in _POSITIONS.items():
        ax.plot(frame["second"], frame[f"{name}_behind_bytes"] / MIB, dashes, label=name, color=BLACK)
    ax.set_xlabel("second")
    ax.set_ylabel("behind the primary, MiB")
    ax.set_ylim(bottom=0)
    return ax


def positions(run: Run) -> Sheet:
    """Sent, written, flushed and replayed WAL under write load, one panel a replica."""
    return _panels(_positions(run), behind, "WAL positions of each replica behind the primary under write load")


def lags(run: Run) -> Sheet:
    """write_lag, flush_lag and replay_lag as the primary measures them, one panel a replica."""

    def draw(mine: pd.DataFrame, ax: Axes) -> Axes:
        for name, dashes in (("write", "-"), ("flush", "--"), ("replay", ":")):
            ax.plot(mine["second"], 1e3 * mine[f"{name}_lag_s"], dashes, label=name, color=BLACK)
        ax.set_xlabel("second")
        ax.set_ylabel("lag, ms")
        ax.set_ylim(bottom=0)
        return ax

    return _panels(_positions(run), draw, "Write, flush and replay lag of each replica")


def _positions(run: Run) -> list[tuple[object, pd.DataFrame]]:
    """Replica -> its positions over time; what the primary did not say is NaN."""
    frame = pd.DataFrame([position.model_dump() for position in noted(run, Position)])
    numbers = [name for name in frame if str(name).endswith(("_behind_bytes", "_lag_s"))]
    return list(frame.astype(dict.fromkeys(numbers, float)).groupby("node"))


def visible(run: Run) -> Sheet:
    """The distribution of the time until a row is visible, one panel a level, one line a replica."""

    def draw(mine: Sequence[Visibility], ax: Axes) -> Axes:
        for seen in mine:
            values = np.sort(seen.stale_ms)
            ax.step(values, np.arange(1, len(values) + 1) / len(values), label=seen.node, **node_style(seen.node))
        ax.axvline(0, color=BLACK, linewidth=0.8)
        ax.set_xscale("symlog", linthresh=1)
        ax.set_xlabel("ms after the commit was known")
        ax.set_ylabel("share of rows visible")
        return ax

    levels: dict[str, list[Visibility]] = {}
    for seen in noted(run, Visibility):
        levels.setdefault(seen.level, []).append(seen)
    return _panels(list(levels.items()), draw, "Share of rows visible on each replica by time since their commit")


def _panels(groups: Sequence[tuple[object, T]], draw: Callable[[T, Axes], Axes], alt: str) -> Sheet:
    columns = min(len(groups), 3)
    rows = -(-len(groups) // columns)
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 2.5 * rows + 0.4), layout="constrained")
        axes = sheet.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
        for ax, (name, mine) in zip(axes, groups, strict=False):
            draw(mine, ax)
            ax.set_title(str(name))
        for ax in list(axes)[len(groups) :]:
            ax.set_axis_off()
        handles, labels = sheet.axes[0].get_legend_handles_labels()
        sheet.legend(handles, labels, loc="outside upper right", ncols=len(labels))
    sheet.alt = alt
    return sheet
