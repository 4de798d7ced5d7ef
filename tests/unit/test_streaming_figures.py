"""What the report of streaming-replication looks like: panels that can be read, and few sentences at its head."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from labkit.analysis.plots import Sheet
from labkit.analysis.plots.style import BLACK
from labkit.analysis.words import SMALL_PT
from labkit.experiments.streaming_replication import figures, findings
from labkit.experiments.streaming_replication.parameters import StreamingReplication
from labkit.run.schema.events import Commits, Conflict, Position, Rebuilt, SlotStep, Visibility
from labkit.run.store import Run, RunStore

LEVELS = ("off", "local", "remote_write", "on", "remote_apply")
REPLICAS = ("pg2", "pg3")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run as a busy machine makes it: rows become visible from 3 ms before to 300 ms after their commit."""
    root: Path = tmp_path_factory.mktemp("streaming")
    made = RunStore(root).create("streaming-replication", StreamingReplication().as_dict(), versions={}, git=None)
    rng = np.random.default_rng(1)
    for node, step in itertools.product(REPLICAS, range(50)):
        at: list[int] = sorted(rng.integers(0, 20 << 20, 4).tolist())
        behind = dict(zip(("sent", "write", "flush", "replay"), at, strict=True))
        made.note(
            Position(
                second=step / 10,
                node=node,
                wal_bytes=0,
                loaded=True,
                **{f"{name}_behind_bytes": value for name, value in behind.items()},
                **dict.fromkeys(("write_lag_s", "flush_lag_s", "replay_lag_s"), 0.01),
            )
        )
    for number, level in enumerate(LEVELS):
        made.note(Commits(level=level, synchronous="pg2", latency_ms=[0.2 + number] * 40, seconds=2.0))
        for node in REPLICAS:
            stale = np.concatenate([-rng.exponential(1, 20), rng.exponential(100, 20)])
            missed = (stale - 0.1).tolist()
            made.note(Visibility(level=level, node=node, stale_ms=stale.tolist(), missed_ms=missed, resolution_ms=0.1))
    settings = {"hot_standby_feedback": "off", "max_standby_streaming_delay": "200ms"}
    made.note(Conflict(node="pg2", after_s=0.3, sqlstate="40001", message="cancelled", detail="", **settings))
    made.note(SlotStep(node="pg3", wal_status="reserved", safe_wal_bytes=1 << 20, retained_bytes=28 << 20))
    made.note(SlotStep(node="pg3", wal_status="lost", safe_wal_bytes=None, retained_bytes=None))
    made.note(Rebuilt(node="pg3", seconds=1.0))
    made.mark("complete")
    return made


@pytest.fixture(params=["positions", "lags", "visible"])
def sheet(request: pytest.FixtureRequest, run: Run) -> Sheet:
    drawn: Sheet = getattr(figures, request.param)(run)
    FigureCanvasAgg(drawn).draw()  # lays it out
    return drawn


def test_seconds_have_the_digits_of_every_number(run: Run) -> None:
    assert findings.conflict(run)[""]["after"] == "0.300 s"
    assert "was cancelled 0.300 s after" in str(findings.verdicts(run))


def test_each_replica_has_its_panel_and_none_is_empty(sheet: Sheet) -> None:
    assert len(sheet.axes) == len(REPLICAS)
    for ax, node in zip(sheet.axes, REPLICAS, strict=True):
        assert node in ax.get_title(loc="left")
        assert len(ax.lines) >= 3


def test_no_label_is_printed_over_another_nor_cut_off(sheet: Sheet) -> None:
    for ax in sheet.axes:
        for one, other in itertools.pairwise(_ticks(ax)):
            assert one[1] < other[0], ax.get_title(loc="left")
        for label in (ax.xaxis.label, ax.yaxis.label):
            if label.get_text():
                box = label.get_window_extent()
                assert sheet.bbox.x0 <= box.x0
                assert box.x1 <= sheet.bbox.x1
                assert sheet.bbox.y0 <= box.y0
                assert box.y1 <= sheet.bbox.y1
    (legend,) = sheet.legends
    assert sheet.bbox.x0 <= legend.get_window_extent().x0
    assert legend.get_window_extent().x1 <= sheet.bbox.x1
    assert all(text.get_fontsize() >= SMALL_PT for text in legend.get_texts())


def _ticks(ax: Axes) -> list[tuple[float, float]]:
    """Where the labels of the horizontal axis begin and end; those outside its limits are not drawn."""
    low, high = ax.get_xlim()
    shown = [label for label in ax.get_xticklabels() if label.get_text() and low <= label.get_position()[0] <= high]
    return [(label.get_window_extent().x0, label.get_window_extent().x1) for label in shown]


def test_lines_are_told_apart_by_colour_and_by_dashes(sheet: Sheet) -> None:
    lines = [line for line in sheet.axes[0].lines if not str(line.get_label()).startswith("_")]
    colours = [to_hex(line.get_color()) for line in lines]
    assert len(set(colours)) == len(lines)
    assert BLACK not in colours
    assert len({str(line.get_linestyle()) for line in lines}) >= 3


def test_text_table_and_figure_of_own_writes_say_the_same(run: Run) -> None:
    """The share at zero of the figure is the table's, and the sentence's."""
    table, said = findings.table(run), findings.verdicts(run)
    for row in findings.differences(run).itertuples():
        panel = figures.visible(run).axes[REPLICAS.index(row.node)]
        line = next(line for line in panel.lines if line.get_label() == row.level)
        x, y = (np.asarray(data, dtype=float) for data in line.get_data())
        assert (x[0], y[0]) == (0.0, pytest.approx(row.visible_share))
        assert (np.diff(x) >= 0).all()
        assert y[-1] == 1.0
        shown = f"{round(40 * row.visible_share)} of 40"
        name = row.node + (" (synchronous)" if row.synchronous else "")
        assert table.loc[(row.level, name), "own write found at once"] == shown
        assert any(f"= {row.level} " in one and f"on {row.node} " in one and f"found {shown}" in one for one in said)


def test_a_row_that_no_later_read_missed_was_found_at_once_however_late_its_first_answer(tmp_path: Path) -> None:
    """remote_apply: half of the first answers come after the commit, as reads are made one after the other."""
    made = RunStore(tmp_path).create("streaming-replication", StreamingReplication().as_dict(), versions={}, git=None)
    answered = np.linspace(-0.2, 0.3, 40)
    made.note(Commits(level="remote_apply", synchronous="pg2", latency_ms=[1.0] * 40, seconds=2.0))
    early = {"stale_ms": answered.tolist(), "missed_ms": (answered - 0.31).tolist(), "resolution_ms": 0.3}
    made.note(Visibility(level="remote_apply", node="pg2", **early))
    (row,) = findings.differences(made).itertuples()
    assert row.visible_share == 1.0
    assert row.p50_ms == row.max_ms == 0.0
    assert row.answered_p50_ms > 0
    line = figures.visible(made).axes[0].lines[0]
    assert set(line.get_ydata()) == {1.0}
    assert findings.table(made).iloc[0]["own write found at once"] == "40 of 40"


@pytest.mark.parametrize(
    ("commits", "missed", "found", "how_long"),
    [
        (2000, [7.0], "1,999 of 2,000 rows at once", "the row that was missed longest was missed for 7 ms"),
        (50, [7.0] * 2, "48 of 50 rows at once", "the row that was missed longest was missed for 7 ms"),
        (200, [7.0] * 4, "196 of 200 rows at once", "one row in a hundred was missed for 7 ms or longer"),
        (50, [7.0] * 50, "0 of 50 rows at once", "half of all rows were missed for 7 ms or longer, the row that was"),
    ],
)
def test_one_row_that_was_missed_is_not_rounded_away_nor_one_of_fifty_called_one_in_a_hundred(
    tmp_path: Path, commits: int, missed: list[float], found: str, how_long: str
) -> None:
    made = RunStore(tmp_path).create("streaming-replication", StreamingReplication().as_dict(), versions={}, git=None)
    made.note(Commits(level="on", synchronous="pg2", latency_ms=[1.0] * commits, seconds=2.0))
    seen = [*missed, *[-1.0] * (commits - len(missed))]
    made.note(Visibility(level="on", node="pg2", stale_ms=seen, missed_ms=seen, resolution_ms=0.3))
    (row,) = findings.differences(made).itertuples()
    assert f"{findings._at_once(row)} rows at once" == found
    assert findings._missed(row).startswith(how_long)


def test_three_sentences_lead_and_all_are_among_the_conclusions(run: Run) -> None:
    first, *others = findings.lead(run)
    assert len(others) == 2
    assert "reads its own write" in first
    assert set(others) <= set(findings.verdicts(run))
