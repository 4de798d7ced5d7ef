"""The figures of what is lost and what it costs not to lose: the durability matrix, and the price of commits."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import BboxBase

from labkit import replication
from labkit.analysis import plots
from labkit.analysis.plots.style import level_mark, level_style, mode_colour
from labkit.analysis.words import SMALL_PT
from labkit.experiments.durability_matrix import figures
from labkit.experiments.quorum_commit.figures import quorum
from labkit.experiments.quorum_commit.findings import safety

LEVELS = ("local", "remote_write", "on", "remote_apply")
MODES = ("async", "FIRST 1", "ANY 1", "ANY 2")
FAULTS = ("kill", "kill-all-behind")


def made(modes: tuple[str, ...], levels: tuple[str, ...], faults: tuple[str, ...], kills: int) -> plots.Sheet:
    """The figure of a matrix in which async loses in all trials but one, and nothing else loses."""
    cells, trials = [], []
    for number, (mode, level, fault) in enumerate(itertools.product(modes, levels, faults)):
        key = {"mode": mode, "level": level, "fault": fault}
        losing = kills - 1 if mode == "async" else 0
        lost = {"lost_p50": 12_345.0, "lost_min": 9_999, "lost_max": 23_456} if losing else {}
        zeros = {"lost_p50": 0.0, "lost_min": 0, "lost_max": 0}
        counts = {"trials": kills, "losing": losing, "bound": 0.63, "commit_p50_ms": 1.0 + number / 10}
        cells.append(key | counts | zeros | lost)
        trials += [key | {"rto_ms": 100.0 + 10 * n} for n in range(kills)]
    trials[0]["rto_ms"] = np.nan  # nothing was acknowledged afterwards
    return figures.durability(pd.DataFrame(cells), pd.DataFrame(trials))


def words(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(("modes", "levels", "faults"), [(MODES, LEVELS, FAULTS), (("ANY 1",), ("on",), ("kill",))])
def test_nothing_is_cut_off_nor_runs_into_its_neighbour(
    modes: tuple[str, ...], levels: tuple[str, ...], faults: tuple[str, ...]
) -> None:
    sheet = made(modes, levels, faults, kills=30)
    FigureCanvasAgg(sheet).draw()
    whole = sheet.bbox
    for ax in sheet.axes:
        box = ax.get_tightbbox()
        assert whole.x0 <= box.x0, ax.get_xlabel()
        assert box.x1 <= whole.x1, ax.get_xlabel()
    for ax in sheet.axes[::3]:
        rows: dict[float, list[BboxBase]] = {}
        for text in ax.texts:
            rows.setdefault(text.get_position()[1], []).append(text.get_window_extent())
        for boxes in rows.values():
            for left, right in itertools.pairwise(boxes):
                assert left.x1 < right.x0
        assert all(text.get_fontsize() >= SMALL_PT for text in ax.texts)


def test_each_fault_has_its_losses_their_bound_and_the_price_beside_them() -> None:
    sheet = made(("async", "ANY 1"), ("on",), FAULTS, kills=4)
    for fault, (losses, commit, rto) in zip(FAULTS, (sheet.axes[:3], sheet.axes[3:]), strict=True):
        assert fault in losses.get_title(loc="left")
        assert words(losses) == ["3 of 4 lost\n12k\n(10.0k–23k)", "0 of 4 lost\nrate ≤ 63.0 %"]
        assert [label.get_text() for label in losses.get_yticklabels()] == ["async", "ANY 1"]
        drawn = sorted(float(line.get_xdata()[0]) for line in commit.get_lines())  # type: ignore[index]
        assert drawn == pytest.approx([1.0, 1.2] if fault == "kill" else [1.1, 1.3])
        dots = [line for line in rto.get_lines() if line.get_marker() != "|"]
        assert sorted(len(line.get_xdata()) for line in dots) == ([3, 4] if fault == "kill" else [4, 4])  # type: ignore[arg-type]
    assert sheet.axes[-2].get_xlabel() == "commit p50, ms"
    assert sheet.axes[-1].get_xlabel() == "RTO, ms"


def test_every_level_has_a_style_a_mark_and_what_it_can_lose() -> None:
    assert list(safety().index) == list(replication.LEVELS)
    assert len({level_mark(level) for level in replication.LEVELS}) == len(replication.LEVELS)
    assert len({str(level_style(level)) for level in replication.LEVELS}) == len(replication.LEVELS)


def test_a_price_has_the_colour_of_its_mode_whatever_its_label_says() -> None:
    known = {"commit_p50_ms": 1.0, "commit_p50_ms_low": np.nan, "commit_p50_ms_high": np.nan}
    known |= {"rate_per_s": 10.0, "rate_per_s_low": np.nan, "rate_per_s_high": np.nan}
    rows = [{"label": f"number {n}", "mode": mode, "level": "on"} | known for n, mode in enumerate(("ANY 1", "async"))]
    for ax in quorum(pd.DataFrame(rows)).axes:
        assert [line.get_color() for line in ax.lines] == [mode_colour("ANY 1"), mode_colour("async")]
