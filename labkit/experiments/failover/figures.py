"""The outage as a figure: acknowledged rows around the loss of the primary."""

from __future__ import annotations

import numpy as np
import pandas as pd

from labkit.analysis.frames.rows import each
from labkit.analysis.plots.style import BLACK, GREY, WIDTH_IN, Sheet, counts, drawing, node_style
from labkit.analysis.words import SMALL_PT
from labkit.run.steps import moments


def outage(rows: pd.DataFrame, steps: pd.DataFrame) -> Sheet:
    """Acknowledged rows per second around the fault, a line per node, the main steps marked.

    `rows`: of `findings.acknowledged`; `steps`: of `findings.steps`.
    """
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 3.2), layout="constrained")
        ax = sheet.subplots()
        for node, line in rows.groupby("node", sort=False):
            ax.step(line["at_ms"], line["rows_per_s"], where="mid", label=str(node), **node_style(str(node)))
        top = float(rows["rows_per_s"].max()) if len(rows) else 1.0
        ax.set_ylim(0, top * 1.57)
        late = float(rows["at_ms"].max()) * 0.55 if len(rows) else np.inf
        marks = {moment.kind: moment.mark for moment in moments() if moment.mark}
        marked = [row for row in each(steps) if row.step in marks]
        for place, row in enumerate(marked):
            ax.axvline(row.at_ms, color=GREY, linewidth=0.8)
            ax.annotate(
                f"{marks[row.step]} {row.at_ms:,.0f} ms",
                (row.at_ms, top * (1.5 - 0.1 * place)),
                (4, 0) if row.at_ms < late else (-4, 0),
                textcoords="offset points",
                color=BLACK,
                fontsize=SMALL_PT,
                va="center",
                ha="left" if row.at_ms < late else "right",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
        ax.set_xlabel("time since the primary was lost, ms")
        ax.set_ylabel("acknowledged rows/s")
        ax.yaxis.set_major_formatter(counts())
        sheet.legend(loc="outside upper right", title="acknowledged by", ncols=3)
    sheet.alt = "Acknowledged rows per second around the loss of the primary, with the steps of the failover"
    return sheet
