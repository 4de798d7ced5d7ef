"""The rules that every notebook keeps. `make check` runs this file by itself."""

from __future__ import annotations

import ast
import re

import nbformat
import pytest

from labkit import paths
from labkit.errors import BadInput
from labkit.experiments.catalogue import EXPERIMENTS, Experiment

NOTEBOOKS = sorted(paths.notebooks().glob("*.ipynb"))
MOST_LINES = 10
# Showing a frame or a figure: what the sentence before it should prepare for.
FIGURES = ("plots.", "figures.")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def comments_of(experiment: Experiment) -> dict[str, str]:
    """What the notebook says of each parameter."""
    lines = code(nbformat.read(experiment.notebook_path, as_version=4))[0].source.splitlines()
    return {line.split(" = ")[0]: line.split("  # ", 1)[1] for line in lines}


def is_parameters(cell: nbformat.NotebookNode) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def test_there_are_notebooks() -> None:
    assert {path.name for path in NOTEBOOKS} >= {experiment.notebook for experiment in EXPERIMENTS.values()}


def test_the_first_heading_is_a_question(notebook: nbformat.NotebookNode) -> None:
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.splitlines()[0].startswith("# ")
    assert first.source.splitlines()[0].endswith("?")


def test_sections_begin_with_what_you_need_and_end_with_what_we_learned(notebook: nbformat.NotebookNode) -> None:
    lines = [line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines()]
    sections = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert sections[:2] == ["What you need", "Parameters"]
    assert sections[-1] == "What we learned"


def test_parameters_are_scalars_each_with_a_comment(notebook: nbformat.NotebookNode) -> None:
    cells = [cell for cell in code(notebook) if is_parameters(cell)]
    assert len(cells) == 1
    assert code(notebook)[0] is cells[0]
    statements = ast.parse(cells[0].source).body
    assert len(statements) == len(cells[0].source.splitlines())
    for statement, line in zip(statements, cells[0].source.splitlines(), strict=True):
        assert isinstance(statement, ast.Assign)
        assert isinstance(ast.literal_eval(statement.value), str | int | float | bool)
        assert "  # " in line


def test_cells_are_short_and_define_nothing(notebook: nbformat.NotebookNode) -> None:
    for cell in code(notebook):
        tree = ast.parse(cell.source)
        made = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Try, ast.Lambda)
        assert not [node for node in ast.walk(tree) if isinstance(node, made)], cell.source
        assert is_parameters(cell) or len(cell.source.splitlines()) <= MOST_LINES, cell.source


def test_a_figure_follows_a_sentence_that_says_what_to_look_for(notebook: nbformat.NotebookNode) -> None:
    for before, cell in zip(notebook.cells[:-1], notebook.cells[1:], strict=True):
        if cell.cell_type == "code" and any(name in cell.source for name in FIGURES):
            assert before.cell_type == "markdown", cell.source
            assert len(before.source.split()) >= 10, before.source


def test_conclusions_are_computed(notebook: nbformat.NotebookNode) -> None:
    assert notebook.cells[-1].cell_type == "code"


def test_it_says_how_long_it_takes_and_how_to_keep_it_as_a_page(notebook: nbformat.NotebookNode) -> None:
    need = next(cell.source for cell in notebook.cells if cell.source.startswith("## What you need"))
    assert re.search(r"takes about [\w ]*(seconds|minutes?)\b", need)
    (by_hand,) = [cell for cell in notebook.cells if "by-hand" in cell.metadata.get("tags", [])]
    assert re.search(r"`labkit(\.report\(run\)| compare RUN RUN)`", by_hand.source)


def test_git_holds_no_outputs_and_any_python_runs_it(notebook: nbformat.NotebookNode) -> None:
    for cell in code(notebook):
        assert not cell.outputs
        assert cell.execution_count is None
    assert notebook.metadata.kernelspec.name == "python3"
    nbformat.validate(notebook)


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_an_experiment_s_notebook_has_its_parameters_with_their_defaults(experiment) -> None:
    cells = code(nbformat.read(experiment.notebook_path, as_version=4))
    written = {
        statement.targets[0].id: ast.literal_eval(statement.value) for statement in ast.parse(cells[0].source).body
    }
    declared = {row["name"]: row["default"] for row in experiment.parameters.table()}
    assert written == declared
    assert list(written) == list(declared)
    assert f"labkit.{experiment.parameters.__name__}.from_notebook(globals())" in cells[1].source


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_a_comment_says_what_the_parameter_means_in_its_own_words(experiment) -> None:
    """Then, in brackets, what there is to choose from."""
    comments = comments_of(experiment)
    meanings = {row["name"]: row["meaning"] for row in experiment.parameters.table()}
    differ = {
        name: (comments[name], meaning)
        for name, meaning in meanings.items()
        if comments[name] != meaning and not comments[name].startswith(f"{meaning} (")
    }
    assert differ == {}


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_the_comment_of_a_choice_lists_what_can_be_chosen(experiment) -> None:
    """Where a choice needs another provider than the default one, docker is tried; what never works is left out."""
    comments = comments_of(experiment)
    for name, words in experiment.parameters.choices().items():
        for word in words:
            others = [{}] if name == "provider" else [{}, {"provider": "docker"}]
            if any(_possible(experiment.parameters, {name: word} | other) for other in others):
                assert re.search(rf"[( ]{re.escape(word)}([,) ]|$)", comments[name]), f"{name}: {word}"


def _possible(kind, values) -> bool:
    try:
        kind.build(values)
    except BadInput:
        return False
    return True


@pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)
def test_an_experiment_s_notebook_names_its_quick_preset(experiment) -> None:
    text = experiment.notebook_path.read_text(encoding="utf-8")
    assert f"`labkit run {experiment.name} -f configs/experiments/quick/{experiment.name}.yaml`" in text
