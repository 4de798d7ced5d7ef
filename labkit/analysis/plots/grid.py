"""Panels laid next to each other: arms (or runs) are columns and share the y axis, workloads are rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from labkit.analysis.plots.style import GREY, WIDTH_IN, Sheet, arm_colour, drawing, say, wrapped
from labkit.analysis.words import SMALL_PT, arm_lines, arm_words

Draw = Callable[[pd.DataFrame, Axes], Axes]

_ROW_IN, _LINE_IN, _EMPTY_ROW_IN, _TOP_IN = 1.8, 0.16, 0.8, 0.5
_MOST_BESIDE = 3  # panels in one line: of four, two and two stay readable
_TITLES = 62  # characters that fit above the panels of one line


@dataclass(frozen=True)
class Panel:
    """One kind of panel. `draw(frame, ax)` gets the rows of one workload and arm and draws into `ax`.

    metrics, nodes: the rows of the frame `resources` that it draws; empty for other frames. A panel that finds none
    says why, from the frame `not_measured`.
    """

    title: str
    draw: Draw
    metrics: tuple[str, ...] = ()
    nodes: str = ""  # "servers", "host" or "" for any

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of a frame that this panel draws."""
        if not self.metrics:
            return frame
        mine = frame["metric"].isin(self.metrics)
        if self.nodes:
            mine &= (frame["node"] == "host") == (self.nodes == "host")
        return frame[mine]

    def absence(self, missing: pd.DataFrame | None) -> str:
        """Why there is nothing to draw."""
        reasons = [] if missing is None or not self.metrics else list(dict.fromkeys(self.rows(missing)["reason"]))
        return "not measured: " + ("; ".join(reasons) or "the run holds no samples of it")

    def gap(self, frame: pd.DataFrame, missing: pd.DataFrame | None) -> str:
        """What is missing beside what is drawn; empty if nothing is."""
        if missing is None or not self.metrics:
            return ""
        lacking = self.rows(missing)
        lacking = lacking[~lacking["node"].isin(self.rows(frame)["node"])]
        by_reason = lacking.groupby("reason", sort=False)["node"].unique()
        return "; ".join(f"{', '.join(nodes)} not measured: {reason}" for reason, nodes in by_reason.items())


def beside(
    frame: pd.DataFrame,
    panels: Panel | Sequence[Panel],
    missing: pd.DataFrame | None = None,
    *,
    columns: str = "arm",
) -> Sheet:
    """Draw panels for every workload in rows, with the values of `columns` next to each other on one y axis.

    `frame` has the columns workload and arm, and run where `columns` is "run". `missing` is the frame
    `not_measured`.
    """
    panels = [panels] if isinstance(panels, Panel) else list(panels)
    names = list(dict.fromkeys(frame[columns])) or ["nothing was measured"]
    keys = [key for key in ("workload", "arm") if key != columns]
    groups = list(dict.fromkeys(frame[keys].itertuples(index=False, name=None))) or [("",) * len(keys)]
    rows = [(group, panel) for group in groups for panel in panels]
    # A panel without data takes one line of text for all workloads.
    rows = [r for i, r in enumerate(rows) if len(r[1].rows(frame)) or r[1] not in [panel for _, panel in rows[:i]]]
    titles = [arm_lines(name, _TITLES // _columns(names)) for name in names]
    row_in = _lines(names) * (_ROW_IN + _LINE_IN * max(title.count("\n") for title in titles))
    heights = [row_in if len(panel.rows(frame)) else _EMPTY_ROW_IN for _, panel in rows]
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, sum(heights) + _TOP_IN), layout="constrained")
        bands = sheet.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
        for (group, panel), band in zip(rows, bands, strict=True):
            drawn = panel.rows(frame)
            title = " · ".join([*(arm_words(word) for word in group), panel.title]) if len(drawn) else panel.title
            band.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
            if not len(drawn):
                say(band.subplots(), panel.absence(missing))
                continue
            part = drawn[(drawn[keys] == list(group)).all(axis="columns")]
            _row(band, part, panel, dict(zip(names, titles, strict=True)), columns)
        notes = list(dict.fromkeys(filter(None, (panel.gap(frame, missing) for panel in panels if _has(panel, frame)))))
        if notes:
            sheet.supxlabel(wrapped("; ".join(notes), 76), fontsize=SMALL_PT, color=GREY)
        _legend(sheet)
    sheet.alt = (
        f"{'; '.join(panel.title for panel in panels)}: {' beside '.join(map(arm_words, names))}, "
        f"for {', '.join(' '.join(map(arm_words, group)) for group in groups)}"
    )
    return sheet


def _has(panel: Panel, frame: pd.DataFrame) -> bool:
    return bool(len(panel.rows(frame)))


def _lines(names: Sequence[str]) -> int:
    """In how many lines so many panels stand."""
    return math.ceil(len(names) / _MOST_BESIDE)


def _columns(names: Sequence[str]) -> int:
    return math.ceil(len(names) / _lines(names))


def _row(band: Any, part: pd.DataFrame, panel: Panel, titles: Mapping[str, str], columns: str) -> None:
    columns_beside = _columns(list(titles))
    axes = band.subplots(_lines(list(titles)), columns_beside, sharey=True, sharex=True, squeeze=False).flatten()
    for ax in axes[len(titles) :]:
        ax.set_axis_off()
    for (name, title), ax in zip(titles.items(), axes, strict=False):
        mine = part[part[columns] == name]
        colour = arm_colour(name) if columns == "arm" else "black"
        ax.set_title(title, color=colour)
        if len(mine):
            panel.draw(mine, ax)
        else:
            say(ax, "no sample in these rounds")
    for place, ax in enumerate(axes):
        if place % columns_beside:
            ax.set_ylabel("")


def _legend(sheet: Sheet) -> None:
    """One legend for all panels, outside of them; none if there is a single kind of line."""
    known: dict[str, Any] = {}
    for ax in (ax for band in sheet.subfigs for ax in band.axes):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            same = known.setdefault(label, handle)
            if isinstance(handle, Line2D) and same.get_color() != handle.get_color():
                # The dashes say what the line is, the colour only whose it is.
                known[label] = Line2D([], [], color="black", linestyle=handle.get_linestyle())
    if len(known) > 1:
        sheet.legend(list(known.values()), list(known), loc="outside upper right", ncols=min(len(known), 6))
