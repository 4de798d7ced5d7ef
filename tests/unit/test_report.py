"""The HTML page of an executed notebook, and its tables; no kernel is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labkit.analysis import words
from labkit.analysis.report import findings, html_tables, report, tables
from labkit.analysis.words import Table, Words
from labkit.errors import BadInput
from labkit.experiments import catalogue
from labkit.experiments.read_scaling import findings as read_scaling
from labkit.run.store import Run, read_run

MakeRun = Callable[..., Run]
SVG = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><text>drawn</text></svg>'


@pytest.fixture
def page(tmp_path: Path) -> str:
    outputs = [
        new_output("stream", name="stderr", text="a progress bar 100%|####|"),
        new_output("stream", name="stdout", text="printed <b>text</b>"),
        new_output(
            "display_data",
            {"image/svg+xml": SVG, "text/plain": "f"},
            metadata={"image/svg+xml": {"alt": 'a "figure" <1>'}},
        ),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}),
        new_output("display_data", {"text/html": "<table><tr><td>cell</td></tr></table>"}),
    ]
    cells = [
        new_markdown_cell("# Is this a question?\n\nIt is."),
        new_code_cell("value = 1  # <explained>", outputs=outputs, execution_count=1),
        new_markdown_cell("How to make a report", metadata={"tags": ["by-hand"]}),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "x.ipynb")
    lead = ["pg1 said <script>alert(1)</script>"]
    return report.export(tmp_path / "x.ipynb", tmp_path / "out" / "x.html", lead, "run & footer").read_text()


def test_the_title_is_the_question(page: str) -> None:
    assert "<title>Is this a question?</title>" in page
    assert "run &amp; footer" in page


def test_what_is_said_to_those_who_work_by_hand_is_not_in_a_report(page: str) -> None:
    assert "How to make a report" not in page


def test_code_is_folded_and_progress_is_left_out(page: str) -> None:
    assert '<details class="code"><summary>code</summary>' in page
    assert "progress bar" not in page
    assert "widget" not in page
    assert "printed &lt;b&gt;text&lt;/b&gt;" in page


def test_a_figure_is_an_image_with_its_description(page: str) -> None:
    image = BeautifulSoup(page, "html.parser").find("img")
    assert image["alt"] == 'a "figure" <1>'
    assert set(image.attrs) == {"src", "alt", "style"}
    assert "data:image/svg+xml;base64," in page


def test_wide_tables_scroll_by_themselves_and_show_that_they_do(page: str) -> None:
    assert '<div class="scrolls" tabindex="0">' in page
    rule = page[page.index(".scrolls {") :].split("}")[0]
    assert rule.count("no-repeat local") == rule.count("no-repeat scroll") == 2, "a shadow at each end"
    assert "@media print" in page
    assert "prefers-color-scheme: dark" in page


def test_a_table_that_is_wider_than_the_page_says_in_words_that_it_scrolls() -> None:
    """A shadow alone was overlooked: of a search's trials the reasons were out of sight."""
    narrow = pd.DataFrame({"p50, ms": ["0.2", "0.3"]}, index=["primary alone", "replicas"])
    wide = pd.DataFrame({f"figure {n}, ms": ["12,345"] for n in range(6)}, index=["primary alone"])
    reason = "p99 126 ms, 4,078 dropped, answers did not keep up with the offered rate"
    trials = Table({"p99, ms": ["126"], "interval": ["+131.7 % (−14.6 … +528.6 %)"], "because of": [reason]})
    assert html_tables.width(narrow.to_html()) < 370 < html_tables.width(wide.to_html()) < 920
    assert html_tables.width(pd.concat([wide] * 3, axis=1).to_html()) > 920
    long_names = narrow.set_axis(["the primary alone with more connections"] * 2)
    assert html_tables.width(long_names.to_html()) < 370, "the name of a row breaks"
    assert html_tables.width(Words({"value": [reason * 3]}).to_html(classes="words")) < 370, "words break"
    marked = html_tables.with_sentences(trials.to_html())
    assert marked.count('<td class="sentence">') == 1
    assert f'<td class="sentence">{reason}</td>' in marked


def test_a_page_marks_the_tables_that_are_wider(tmp_path: Path) -> None:
    cell = new_code_cell("table")
    table = pd.DataFrame({f"figure {n}, ms": ["12,345"] for n in range(6)}, index=["primary alone"]).to_html()
    cell.outputs = [new_output("display_data", {"text/html": table})]
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "one.ipynb")
    page = report.export(tmp_path / "one.ipynb", tmp_path / "one.html").read_text(encoding="utf-8")
    assert '<div class="scrolls beyond-phone" tabindex="0">' in page
    rules = page[page.index("@media (max-width: 32rem)") :].split("}\n}")[0]
    assert '.beyond-phone::before { content: "scroll the table sideways →"' in rules
    assert "white-space: pre-wrap" in page, "a printed line breaks"


def test_leading_sentences_are_text(page: str) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "jquery" not in page.lower()
    assert "mathjax" not in page.lower()


def test_three_sentences_at_most_are_bold_and_what_spoils_the_run_is_the_first(tmp_path: Path) -> None:
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Why?")]), tmp_path / "x.ipynb")
    lead = ["One.", "Two.", "Three.", "Not valid: nothing was right."]
    page = BeautifulSoup(report.export(tmp_path / "x.ipynb", tmp_path / "x.html", lead).read_text(), "html.parser")
    bold, other = page.find("ul", class_="lead"), page.find("ul", class_="more")
    assert [item.text for item in bold.find_all("li")] == ["Not valid: nothing was right.", "One.", "Two."]
    assert [item.text for item in other.find_all("li")] == ["Three."]


def test_a_figure_is_never_shown_so_small_that_its_text_cannot_be_read() -> None:
    """Text of SMALL_PT in a figure of 5.8 inches keeps 9 px on a page of 400; a wider figure scrolls."""
    narrow, wide = (report.least_width(f'<svg height="9pt" width="{72 * inches:g}pt" x="">') for inches in (5.8, 7.3))
    assert narrow <= 400 < wide
    for least, inches in ((narrow, 5.8), (wide, 7.3)):
        assert words.SMALL_PT * least / (72 * inches) >= words.SMALL_PX
    assert report.least_width("<svg viewBox='0 0 1 1'>") == 0


def test_a_run_is_found_by_what_it_displayed(recorded_run: Run) -> None:
    entry = recorded_run._repr_mimebundle_()
    cells = [new_code_cell("run", outputs=[new_output("execute_result", entry, execution_count=1)])]
    found = report._displayed(new_notebook(cells=cells))
    assert found is not None
    assert found.path == recorded_run.path
    assert report._displayed(new_notebook(cells=[new_code_cell("1")])) is None


def test_the_summary_is_json_that_scripts_can_read(make_run: MakeRun) -> None:
    run = make_run(failures={("get-user", "primary-only"): 10**6}, rounds=2)
    summary = json.loads(json.dumps(findings.summary(run, read_scaling).as_json(), allow_nan=False))
    assert summary["valid"] is False
    assert summary["headline"][0]["p99_ms"] is None
    assert summary["verdicts"]


def test_an_unknown_experiment_is_answered_with_those_that_exist() -> None:
    with pytest.raises(BadInput, match="did you mean 'read-scaling'"):
        catalogue.experiment("read-scalling")
    with pytest.raises(BadInput, match="there are: read-scaling"):
        catalogue.experiment("zzz")


def test_the_headline_table_has_both_reports_and_the_interval(recorded_run: Run) -> None:
    table = tables.headline(recorded_run)
    assert table.columns.tolist() == [
        *("primary alone", "replicas", "paired difference", "95 % interval"),
        *("original: primary alone", "original: replicas", "original: difference"),
    ]
    assert table.loc[("get-user", "requests/s"), "original: difference"] == "−6.6 %"
    assert table.loc[("get-user", "p99, ms"), "original: replicas"] == "–"
    assert " … " in table.loc[("search-users", "p99, ms"), "95 % interval"]
    assert table.index.get_level_values(1).unique().tolist()[0] == "requests"


def test_one_arm_and_one_workload_still_make_a_table(make_run: MakeRun) -> None:
    run = make_run(rounds=2, workloads=("search-users",))
    run.update(blocks=[block for block in run.blocks if block.arm == "replicas-round-robin"])
    table = tables.headline(run)
    assert "replicas" in table
    assert "paired difference" not in table


def test_replication_shows_what_the_server_said_as_text(recorded_run: Run) -> None:
    table = tables.replication(recorded_run)
    assert table.index.tolist() == ["before", "before", "after"]
    assert "<script>" in table["application_name"].tolist()[1]
    assert "<script>" not in table._repr_html_()


def test_a_run_without_optional_facts_still_has_conditions(make_run: MakeRun) -> None:
    run = make_run(rounds=1)
    file = run.path / "run.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for name in (
        "host",
        "versions",
        "git",
        "nodes",
        "sampler",
        "postgresql",
        "replication",
        "replication_after",
        "seal",
    ):
        content.pop(name, None)
    file.write_text(json.dumps(content), encoding="utf-8")
    run = read_run(run.path)
    assert tables.conditions(run).loc["status", "value"] == "complete"
    assert tables.replication(run).empty


@pytest.mark.parametrize(
    ("value", "text"),
    [(18054.2, "18,054"), (31.24, "31.2"), (3.456, "3.46"), (0.0123, "0.012"), (0, "0"), (float("nan"), "–")],
)
def test_numbers_keep_three_digits(value: float, text: str) -> None:
    assert words.number(value) == text
    assert words.percent(-0.0314) == "−3.1 %"
    assert words.percent(20.54) == "+2,054.0 %"
    assert words.interval(-0.05, 0.012) == "−5.0 … +1.2 %"


def test_what_is_compared_stands_below_the_leading_sentences_and_never_in_bold(tmp_path: Path) -> None:
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Why?")]), tmp_path / "x.ipynb")
    told = report.export(tmp_path / "x.ipynb", tmp_path / "x.html", ["One."], compared=["Compared: a → b <c>."])
    page = BeautifulSoup(told.read_text(), "html.parser")
    assert page.find("ul", class_="lead").text == "One."
    assert page.find("ul", class_="more").text == "Compared: a → b <c>."
