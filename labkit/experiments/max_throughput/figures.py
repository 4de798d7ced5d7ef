"""The figure of a search for the highest rate."""

from __future__ import annotations

import pandas as pd
from matplotlib.ticker import MaxNLocator

from labkit.analysis.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PLAIN,
    VERMILLION,
    WIDTH_IN,
    Sheet,
    counts,
    drawing,
    logarithmic,
)
from labkit.analysis.words import number


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
        logarithmic(above, "x", counts())
        logarithmic(above, "y", PLAIN)
        above.set_xlabel("requests/s asked for (logarithmic)")
        above.set_ylabel("p99 latency, ms (logarithmic)")
        below.plot(trials.index + 1, trials["offered_per_s"], color=GREY, linewidth=0.8, zorder=1)
        below.set_xlabel("trial")
        below.set_ylabel("requests/s asked for")
        logarithmic(below, "y", counts())
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        if found_per_s is not None:
            label = f"found, {number(found_per_s)}/s"
            above.axvline(found_per_s, color=BLUE, linewidth=1, label=label)
            below.axhline(found_per_s, color=BLUE, linewidth=1)
        sheet.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    sheet.alt = (
        f"p99 latency against the rate asked for, with the limit of {limit_ms:g} ms, and the order of the trials"
    )
    return sheet
