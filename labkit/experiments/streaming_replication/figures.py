"""Positions, lag and visibility over time, as figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from labkit.analysis.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PLAIN,
    VERMILLION,
    WIDTH_IN,
    Sheet,
    drawing,
    level_style,
)
from labkit.experiments.streaming_replication.findings import missed_for_ms, noted
from labkit.run.schema.events import Commits, Position, Visibility
from labkit.run.store import Run
from labkit.units import MIB

T = TypeVar("T")
_POSITIONS = {"sent": (BLUE, "-"), "write": (ORANGE, "--"), "flush": (GREEN, "-."), "replay": (VERMILLION, ":")}


def behind(frame: pd.DataFrame, ax: Axes) -> Axes:
    """How far the positions of one replica are behind the end of the primary's WAL. `frame`: its `position` events."""
    for name, (colour, dashes) in _POSITIONS.items():
        ax.plot(frame["second"], frame[f"{name}_behind_bytes"] / MIB, dashes, label=name, color=colour)
    ax.set_ylabel("MiB behind")
    ax.set_ylim(bottom=0)
    return ax


def positions(run: Run) -> Sheet:
    """Sent, written, flushed and replayed WAL under write load, one panel per replica."""
    what = "WAL positions of each replica behind the primary under write load"
    return _panels(_positions(run), behind, _SECOND, what)


def lags(run: Run) -> Sheet:
    """write_lag, flush_lag and replay_lag as the primary measures them, one panel per replica."""

    def draw(mine: pd.DataFrame, ax: Axes) -> Axes:
        for name in ("write", "flush", "replay"):
            colour, dashes = _POSITIONS[name]
            ax.plot(mine["second"], 1e3 * mine[f"{name}_lag_s"], dashes, label=name, color=colour)
        ax.set_ylabel("lag, ms")
        ax.set_ylim(bottom=0)
        return ax

    return _panels(_positions(run), draw, _SECOND, "Write, flush and replay lag of each replica")


_SECOND = "seconds since the writing began"


def _positions(run: Run) -> list[tuple[str, pd.DataFrame]]:
    """Replica -> its positions over time; what the primary did not say is NaN."""
    frame = pd.DataFrame([position.model_dump() for position in noted(run, Position)])
    numbers = [name for name in frame if str(name).endswith(("_behind_bytes", "_lag_s"))]
    return [(str(node), mine) for node, mine in frame.astype(dict.fromkeys(numbers, float)).groupby("node")]


def visible(run: Run) -> Sheet:
    """The share of rows that a read found, by how long after the commit it was sent.

    One panel per replica, one line per level, from `missed_for_ms`: what lies at 0 is found at once, as the table says.
    """
    longest_ms = max(1.0, *(missed_for_ms(seen).max() for seen in noted(run, Visibility)))

    def draw(mine: Sequence[Visibility], ax: Axes) -> Axes:
        for seen in mine:
            missed = np.sort(missed_for_ms(seen))
            at_once = int((missed == 0).sum())
            share = np.arange(at_once, len(missed) + 1) / len(missed)
            x, y = [0.0, *missed[at_once:], longest_ms], [*share, 1.0]
            ax.step(x, y, where="post", label=seen.level, **level_style(seen.level))
        ax.axvline(0, color=BLACK, linewidth=0.8)
        ax.set_xscale("symlog", linthresh=1)
        ax.xaxis.set_major_formatter(PLAIN)
        ax.set_ylabel("share found")
        ax.set_ylim(0, 1.05)
        ax.yaxis.set_major_formatter(PercentFormatter(1))
        return ax

    synchronous = {commits.synchronous for commits in noted(run, Commits)}
    nodes: dict[str, list[Visibility]] = {}
    for seen in noted(run, Visibility):
        nodes.setdefault(f"{seen.node} ({'' if seen.node in synchronous else 'a'}synchronous)", []).append(seen)
    words = "ms from the commit to the read (linear to 1 ms, then logarithmic)"
    alt = "Share of rows that reads found on each replica, by the time between commit and read"
    return _panels(list(nodes.items()), draw, words, alt)


def _panels(groups: Sequence[tuple[str, T]], draw: Callable[[T, Axes], Axes], below: str, alt: str) -> Sheet:
    """One panel per group, one above the other, on the same axes; `below` says what the horizontal one is."""
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 1.9 * len(groups) + 0.8), layout="constrained")
        axes = sheet.subplots(len(groups), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        for ax, (name, mine) in zip(axes, groups, strict=True):
            draw(mine, ax)
            ax.set_title(name, loc="left")
        axes[-1].set_xlabel(below)
        handles, labels = axes[0].get_legend_handles_labels()
        sheet.legend(handles, labels, loc="outside upper center", ncols=len(labels), columnspacing=1.2)
    sheet.alt = alt
    return sheet
