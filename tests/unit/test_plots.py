"""Figures: arms beside each other on one scale, units in the labels, nothing global touched."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fix_runs import ARMS, MORE_ARMS, UNMEASURED
from matplotlib.figure import Figure

from labkit.analysis import frames, plots
from labkit.analysis.plots import panels
from labkit.analysis.plots.style import arm_colour
from labkit.analysis.report import tables
from labkit.analysis.statistics import compare
from labkit.analysis.words import SMALL_PT
from labkit.experiments.cpu_budget import findings as cpu_budget
from labkit.experiments.read_scaling import findings as read_scaling
from labkit.run.store import Run

MakeRun = Callable[..., Run]


@pytest.fixture(autouse=True)
def settings_stay() -> Iterator[None]:
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before


def rows_of(sheet: plots.Sheet) -> list[list[object]]:
    return [list(band.axes) for band in sheet.subfigs]


@pytest.fixture(scope="module")
def seconds(recorded_run: Run) -> pd.DataFrame:
    return frames.per_second(recorded_run)


def one(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["workload"] == "get-user") & (frame["arm"] == "primary-only")]


def test_arms_are_columns_on_one_scale_and_workloads_rows(make_run: MakeRun) -> None:
    run = make_run(rates={("get-user", "replicas-round-robin"): 5000.0})
    sheet = plots.beside(frames.per_second(run), plots.THROUGHPUT)
    rows = rows_of(sheet)
    assert [len(row) for row in rows] == [2, 2]
    for left, right in rows:
        assert (left.get_title(), right.get_title()) == ("primary alone", "replicas")
        assert left.get_ylim() == right.get_ylim()
        assert left.get_ylim()[0] == 0
        assert left.get_ylabel() == "requests/s"
        assert "s" in left.get_xlabel()
    highest = rows[0][0].get_ylim()[1]
    assert 5000 < highest < 6500  # nothing of the higher arm is cut off


def test_lines_hold_the_frame_s_values_and_break_between_rounds(seconds: pd.DataFrame) -> None:
    ax = panels.throughput(one(seconds), Figure().subplots())
    drawn = ax.get_lines()[0].get_ydata()
    assert np.isnan(drawn).sum() == 2  # three rounds
    assert drawn[~np.isnan(drawn)].tolist() == one(seconds)["requests_per_s"].tolist()


def test_an_arm_has_its_colour_everywhere(seconds: pd.DataFrame, recorded_run: Run) -> None:
    for frame, draw in ((seconds, panels.throughput), (frames.ecdf(recorded_run), panels.ecdf)):
        for arm in ("primary-only", "replicas-round-robin"):
            ax = draw(frame[(frame["workload"] == "get-user") & (frame["arm"] == arm)], Figure().subplots())
            assert ax.get_lines()[0].get_color() == arm_colour(arm)
    assert arm_colour("primary-only") != arm_colour("replicas-round-robin")


def test_the_figures_of_a_distribution_stand_above_it_and_its_ticks_apart(make_run: MakeRun) -> None:
    """Of three arms beside each other the curve crossed its own words, and the ticks ran together."""
    run = make_run(arms=(*ARMS, MORE_ARMS[0]), rounds=3, workloads=("get-user",))
    axes = plots.beside(frames.ecdf(run), plots.ECDF).subfigs[0].axes
    assert len(axes) == 3
    for ax in axes:
        assert not ax.texts
        assert "\np50 " in ax.get_title()
        assert ax.get_xlabel() == "latency, ms (log)"


ALL = [getattr(plots, name) for name in plots.__all__ if isinstance(getattr(plots, name), plots.Panel)]


def frame_for(panel: plots.Panel, run: Run) -> pd.DataFrame:
    if panel.metrics:
        return frames.resources(run)
    return frames.ecdf(run) if panel is plots.ECDF else frames.per_second(run)


@pytest.mark.parametrize("panel", ALL, ids=lambda panel: panel.title)
def test_every_panel_draws_or_says_why_not(panel: plots.Panel, recorded_run: Run) -> None:
    frame = frame_for(panel, recorded_run)
    sheet = plots.beside(frame, panel, frames.not_measured(recorded_run))
    svg = sheet.svg()
    assert panel.title in svg
    if len(panel.rows(frame)):
        for ax in itertools.chain(*rows_of(sheet)):
            assert ax.lines
            assert ax.get_xlabel()
        assert all(row[0].get_ylabel() for row in rows_of(sheet))
    else:
        assert "not measured: " in svg


def test_the_reason_for_a_missing_metric_is_in_its_panel(recorded_run: Run) -> None:
    usage, missing = frames.resources(recorded_run), frames.not_measured(recorded_run)
    sheet = plots.beside(usage, [plots.RECEIVED, plots.CPU], missing)
    assert f"not measured: {UNMEASURED}"[:30] in sheet.svg()
    assert len(sheet.subfigs) == 3  # the empty panel once, CPU for two workloads


def test_a_node_without_a_metric_is_named_below_the_others(recorded_run: Run) -> None:
    usage = frames.resources(recorded_run)
    missing = pd.DataFrame([{"node": "pg9", "metric": "memory_bytes", "reason": "it was away"}])
    assert "pg9 not measured: it was away" in plots.beside(usage, plots.MEMORY, missing).svg()


def test_text_is_large_enough_to_read_and_stays_inside(seconds: pd.DataFrame, recorded_run: Run) -> None:
    sheets = [
        plots.beside(seconds, [plots.THROUGHPUT, plots.LATENCY]),
        plots.beside(frames.ecdf(recorded_run), plots.ECDF),
        plots.headline(frames.rounds(recorded_run), frames.reference()),
        plots.differences(compare.arms(recorded_run), tables.original_differences()),
    ]
    for sheet in sheets:
        sheet.svg()  # lays it out
        page = sheet.bbox
        for text in sheet.findobj(mpl.text.Text):
            assert not text.get_text() or text.get_fontsize() >= SMALL_PT, text
        for text in labels(sheet):
            box = text.get_window_extent()
            assert page.x0 - 1 <= box.x0, text
            assert box.x1 <= page.x1 + 1, text


def labels(sheet: plots.Sheet) -> list[mpl.text.Text]:
    """Titles, axis labels, legends: tick labels outside the limits exist without being drawn."""
    named = [sheet._suptitle, sheet._supxlabel, *(band._suptitle for band in sheet.subfigs)]
    for ax in sheet.findobj(mpl.axes.Axes):
        named += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
    named += [text for legend in sheet.legends for text in legend.get_texts()]
    return [text for text in named if text is not None and text.get_text()]


@pytest.mark.parametrize("count", [3, 4])
def test_no_text_lies_on_another_where_arms_are_many(make_run: MakeRun, count: int) -> None:
    run = make_run(arms=(*ARMS, *MORE_ARMS)[:count], rounds=2, workloads=("search-users",))
    sheets = [
        plots.beside(frames.per_second(run), plots.LATENCY),
        plots.headline(frames.rounds(run), frames.reference()),
        plots.differences(compare.arms(run), tables.original_differences()),
    ]
    for sheet in sheets:
        sheet.draw_without_rendering()  # lays it out
        drawn = labels(sheet)
        for ax in sheet.findobj(mpl.axes.Axes):
            low, high = ax.get_xlim()
            ticks = [tick for tick in ax.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
            drawn += [tick.label1 for tick in ticks if tick.label1.get_text() and tick.label1.get_visible()]
        boxes = [(text.get_text(), text.get_window_extent()) for text in drawn]
        for (one, box), (other, beside) in itertools.combinations(boxes, 2):
            assert not box.overlaps(beside), f"{one!r} lies on {other!r}"
        assert all(sheet.bbox.x0 - 1 <= box.x0 and box.x1 <= sheet.bbox.x1 + 1 for _, box in boxes)


def test_every_arm_has_a_colour_of_its_own() -> None:
    assert len({arm_colour(arm) for arm in (*ARMS, *MORE_ARMS)}) == 4


def test_a_comparison_is_a_panel_that_says_between_which_arms(make_run: MakeRun) -> None:
    run = make_run(arms=(*ARMS, *MORE_ARMS), rounds=2, workloads=("get-user",))
    sheet = plots.differences(compare.arms(run), tables.original_differences())
    assert [ax.get_title(loc="left").replace("\n", " ") for ax in sheet.axes] == [
        "replicas against primary alone",
        "primary alone with more connections against primary alone",
        "replicas with more connections against primary alone with more connections",
    ]
    assert sheet.axes[-1].get_xlabel() == "difference, % (bar: 95 % interval)"
    one = plots.differences(compare.arms(make_run(rounds=2)))
    assert one.axes[0].get_xlabel() == "difference from primary alone, % (bar: 95 % interval)"


def test_the_headline_shows_both_reports_with_whiskers_only_where_there_are_rounds(recorded_run: Run) -> None:
    sheet = plots.headline(frames.rounds(recorded_run), frames.reference())
    this_run, original = sheet.axes[:2]
    assert (this_run.get_title(), original.get_title()) == ("get-user, this run", "get-user, original report")
    assert len(this_run.containers) == 4  # two bars, two whiskers
    assert len(original.containers) == 2
    assert original.patches[0].get_height() == pytest.approx(2853.0, abs=0.1)


def test_beside_attached_servers_stands_nothing_of_the_original_report(make_run: MakeRun) -> None:
    """It measured one machine that all its servers shared."""
    run = make_run(rounds=4)
    assert "original" in str(read_scaling.verdicts(run))
    run.update(provider="attach")
    assert not [column for column in tables.headline(run) if "original" in column]
    assert "original" not in str(read_scaling.verdicts(run))
    sheet = plots.headline(frames.rounds(run), frames.reference(run))
    assert {ax.get_title() for ax in sheet.axes} == {"get-user, this run", "search-users, this run"}
    assert "original" not in sheet.alt
    sheet = plots.differences(compare.arms(run), tables.original_differences(run))
    assert not sheet.legends
    assert cpu_budget.original_rates(run) == []


def test_one_round_draws_bars_without_whiskers_and_no_differences(make_run: MakeRun) -> None:
    run = make_run(rounds=1)
    assert len(plots.headline(frames.rounds(run), frames.reference()).axes[0].containers) == 2
    sheet = plots.differences(compare.arms(run))
    assert len([line for line in sheet.axes[0].lines if line.get_linewidth() == 2.5]) == 0
    assert "no difference: fewer than 3" in sheet.svg()


def test_a_zero_everywhere_is_a_line_at_zero(seconds: pd.DataFrame) -> None:
    ax = panels.errors(one(seconds), Figure().subplots())
    assert set(ax.get_lines()[0].get_ydata()[:2]) == {0.0}
    assert ax.get_ylim() == pytest.approx((0, 1.08))


def test_nothing_but_gaps_is_no_failure(make_run: MakeRun) -> None:
    run = make_run(failures={("get-user", "primary-only"): 10**6}, rounds=2, workloads=("get-user",))
    sheet = plots.beside(frames.per_second(run), [plots.THROUGHPUT, plots.LATENCY])
    assert "get-user" in sheet.svg()
    assert "distribution" in plots.beside(frames.ecdf(run), plots.ECDF).svg()


def test_two_runs_are_columns_too(recorded_run: Run, make_run: MakeRun) -> None:
    both = compare.together(frames.per_second, [recorded_run], [make_run(rounds=2)])
    rows = rows_of(plots.beside(both, plots.LATENCY, columns="run"))
    assert len(rows) == 4  # two workloads on two arms
    assert [ax.get_title() for ax in rows[0]] == ["A", "B"]


def test_a_sheet_shows_itself_with_a_description(seconds: pd.DataFrame) -> None:
    data, metadata = plots.beside(seconds, plots.LATENCY)._repr_mimebundle_()
    assert data["image/svg+xml"].lstrip().startswith("<?xml")
    assert "primary alone beside replicas" in metadata["image/svg+xml"]["alt"]
    assert data["text/plain"] == metadata["image/svg+xml"]["alt"]
