"""How throughput follows users and nodes, as figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from labkit.analysis.plots.style import (
    BLACK,
    BLUE,
    GREY,
    PLAIN,
    WIDTH_IN,
    Sheet,
    arm_colour,
    counts,
    drawing,
    logarithmic,
)
from labkit.analysis.statistics import usl
from labkit.analysis.words import arm_words
from labkit.units import count


def sweep(levels: pd.DataFrame, laws: dict[str, usl.Fit] | None = None) -> Sheet:
    """Throughput and p99 latency against the number of users, the arms together.

    `laws` are drawn as lines, dotted where they do not fit, with a star at a knee if one is shown.
    """
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 5.6), layout="constrained")
        above, below = sheet.subplots(2, 1, sharex=True)
        for (arm, mine), marker in zip(levels.groupby("arm", sort=False), "osD^v", strict=False):
            colour = arm_colour(str(arm))
            law = (laws or {}).get(str(arm))
            line = "" if law else "-"
            style = {"color": colour, "marker": marker, "markersize": 5}
            label = arm_words(str(arm))
            if law:
                label += _law(above, law, float(mine["vus"].max()), colour)
            above.plot(mine["vus"], mine["requests_per_s"], linestyle=line, label=label, **style)
            below.plot(mine["vus"], mine["p99_ms"], linestyle="-", **style)
        above.set_ylabel("requests/s")
        above.yaxis.set_major_formatter(counts())
        above.set_ylim(0, None)
        below.set_ylabel("p99 latency, ms (logarithmic)")
        logarithmic(below, "y", PLAIN, (1,))
        below.set_xlabel("users (logarithmic)")
        logarithmic(below, "x", PLAIN)
        sheet.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=1 if laws else 2)
    sheet.alt = f"Throughput and p99 latency against users, for {', '.join(map(arm_words, levels['arm'].unique()))}"
    return sheet


def _law(ax: Axes, law: usl.Fit, most: float, colour: str) -> str:
    """Draw a law; what the legend says of its knee, as knees of two arms may lie on each other."""
    at = np.geomspace(1, most, 200)
    ax.plot(at, law.throughput(at), color=colour, linewidth=1.2, linestyle="-" if law.fits else ":")
    if 1 <= law.knee <= most:
        peak = float(law.throughput([law.knee])[0])
        ax.plot(law.knee, peak, "*", color=colour, markersize=13, markeredgecolor=BLACK, zorder=4)
        return f"; star: its knee, {count(round(law.knee), 'user')}"
    return ""


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
        ax.set_ylim(0, max(found.throughput.max() * 1.6, found.high[-1] * 1.1))
        ax.text(0.99, 0.03, "not measured", transform=ax.transAxes, ha="right", color=GREY, style="italic")
        ax.set_xlabel("nodes that serve reads")
        ax.set_ylabel("highest requests/s")
        ax.xaxis.set_major_formatter(PLAIN)
        ax.set_xticks(found.nodes)
        ax.yaxis.set_major_formatter(counts())
        sheet.legend(loc="outside upper center", ncols=4)
    sheet.alt = f"Highest throughput measured with {few} and {many} nodes, and extrapolated to {found.nodes[-1]:.0f}"
    return sheet
