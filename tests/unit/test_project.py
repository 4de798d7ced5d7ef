"""The house rules that a machine can check: who imports whom, what is public, what is pinned."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

import labkit
from labkit import paths
from labkit.experiments.read_scaling.parameters import ReadScaling

ROOT = paths.home()
FINDINGS = sorted((ROOT / "labkit" / "experiments").glob("*/findings.py"))
MODULES = sorted((ROOT / "labkit").rglob("*.py"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_outgrows_its_reader(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in {"utils", "helpers", "common"}


ROOMS = (
    "lab",
    "run",
    "checkers",
    "analysis",
    "experiments",
    "replication.py",
    "errors.py",
    "remedies.py",
    "wording.py",
)
SHELL = re.compile(
    r"`labkit |(^|\s)--(name|provider|replicas|base-port|purge|old|accept-data-loss|format|system)\b"
    r"|\b(useradd|sudo|ulimit|pip install|docker (context|compose|run|start|ps)) "
)


@pytest.mark.parametrize("room", ROOMS)
def test_the_library_speaks_no_shell(room: str) -> None:
    """What helps is a Remedy there, and only the command line makes a line of it."""
    place = ROOT / "labkit" / room
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files
    found = []
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        written_for_readers = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}  # type: ignore[attr-defined]
        found += [
            f"{file.relative_to(ROOT)}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in written_for_readers
            and SHELL.search(node.value)
        ]
    assert not found


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("primary-only|-round-robin|all-nodes|more-connections", "names.py"),
        ("get-user|search-users|append-rows", "names.py"),
        ("^async$", "replication.py"),
        (r"vnd\.labkit\.run", "run/store.py"),
    ],
)
def test_a_name_that_runs_record_is_written_once(word: str, place: str) -> None:
    """Elsewhere it is taken from there: a comparison with a word that no run has is true of none."""
    found = {
        file.relative_to(ROOT / "labkit").as_posix(): node.value
        for file in MODULES
        for node in _texts(ast.parse(file.read_text(encoding="utf-8")))
        if re.search(word, node.value)
    }
    assert found.keys() == {place}, found


@pytest.mark.parametrize("path", FINDINGS, ids=lambda p: p.parent.name)
def test_no_finding_is_picked_by_the_words_of_its_sentence(path: Path) -> None:
    """What is said is chosen by figures and facts: once a sentence is reworded, what its words picked is gone."""
    (lead,) = (node for node in ast.parse(path.read_text(encoding="utf-8")).body if _is_named(node, "lead"))
    picked = [
        ast.unparse(node)
        for node in ast.walk(lead)
        if (isinstance(node, ast.Compare) and _is_text_in_a_variable(node))
        or (isinstance(node, ast.Attribute) and node.attr in ("startswith", "endswith", "split"))
    ]
    assert not picked


def _is_text_in_a_variable(node: ast.Compare) -> bool:
    sides = isinstance(node.left, ast.Constant) and isinstance(node.comparators[0], ast.Name)
    return sides and isinstance(node.ops[0], ast.In)


def _is_named(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every text that code uses; what is written for readers only is a statement by itself."""
    for_readers = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in for_readers:
            yield node


def _has_docstring(node: ast.AST) -> bool:
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None


WORDS = {
    r"\b([Oo]ne|[Aa]) (row|line|panel|bar|band|column|verb|entry|record|list|value|sentence|file) an? \w+": "per",
    r"\b(anew|astray|(?<!frames\.)spoiled|in vain|not to be had)\b": "recreated, detached, invalid, timed out",
    r"\b[Ww]hat became of|nothing wrong\b": "survival of; audit passed",
    r"\b(of|for|by) nobody\b|\bnobody (promised|knows|waits|else)\b": "none, no commit, unknown",
}


def test_the_usual_words_are_used() -> None:
    """Plain English, as PostgreSQL's manual writes it; what is said instead stands beside each word."""
    written = [*MODULES, *(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb"), *ROOT.glob("*.md")]
    found = [
        f"{path.relative_to(ROOT)}: {match[0]!r}; rather: {better}"
        for path in [*written, ROOT / "data" / "README.md"]
        for word, better in WORDS.items()
        for match in re.finditer(word, path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_every_public_name_exists_and_is_documented() -> None:
    assert len(labkit.__all__) == len(set(labkit.__all__)) > 40
    for name in labkit.__all__:
        assert getattr(labkit, name).__doc__, f"{name} has no docstring"


def test_conda_users_get_the_same_set() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    settings = PYPROJECT["project"]
    assert conda == [f"python {settings['requires-python']}", "pip"]
    assert pip == {"pip": ["--constraint constraints.txt", "--editable ."]}


def test_every_dependency_is_pinned_by_name_and_version_alone() -> None:
    settings = PYPROJECT["project"]
    wanted = [*settings["dependencies"], *(d for group in settings["optional-dependencies"].values() for d in group)]
    names = {re.split(r"[\[<>=~! ;]", line, maxsplit=1)[0].lower().replace("_", "-") for line in wanted}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    assert names <= pinned
    assert not [line for line in lines if "://" in line or "@" in line]


def test_the_readme_lists_the_parameters_as_they_are() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for row in ReadScaling.table():
        default = f"`{row['default']}`" if row["default"] != "" else ""
        assert f"| `{row['name']}` | {default} | {row['range']} | {row['meaning']} |" in readme


def test_every_link_of_the_readme_leads_somewhere() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_every_folder_is_a_package_that_the_contracts_see() -> None:
    """Without __init__.py it can still be imported, but import-linter passes it by."""
    assert not [str(path.parent.relative_to(ROOT)) for path in MODULES if not (path.parent / "__init__.py").exists()]


def test_every_module_of_an_experiment_reads_or_drives() -> None:
    """It stands in the contract of one side, so a new one cannot see what that side must not."""
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    sides = ("What is said of a run needs no server", "What drives servers leaves frames to those who read")
    listed = [each for contract in contracts if contract["name"] in sides for each in contract["source_modules"]]
    folder = ROOT / "labkit" / "experiments"
    modules = [path.relative_to(ROOT).with_suffix("") for path in folder.glob("*/*.py") if path.stem != "__init__"]
    names = [".".join(path.parts) for path in modules]
    assert len(names) > 30
    assert [name for name in names if sum(fnmatch(name, each) for each in listed) != 1] == []


def test_only_the_door_reads_and_writes_parquet() -> None:
    """pandas does it too, so the contract of pyarrow does not see it."""
    outside = [path for path in MODULES if not path.is_relative_to(ROOT / "labkit" / "run")]
    found = [path for path in outside if re.search(r"to_parquet|read_parquet", path.read_text(encoding="utf-8"))]
    assert [str(path.relative_to(ROOT)) for path in found] == []


def test_the_version_is_the_newest_that_the_changelog_released() -> None:
    settings = PYPROJECT["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$", changelog, re.MULTILINE)
    assert newest is not None
    assert settings["version"] == newest[1]


def test_no_public_name_is_hidden_by_a_module_of_the_same_name() -> None:
    modules = {path.stem for path in (ROOT / "labkit").glob("*.py")} | {
        path.name for path in (ROOT / "labkit").iterdir() if path.is_dir()
    }
    assert not modules & set(labkit.__all__)
