"""Numbers as words: one is one, halves are halves, thousands are apart."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import labkit
from labkit import paths, units
from labkit.analysis.words import percent
from labkit.experiments.catalogue import EXPERIMENTS
from labkit.run.store import read_run

ONE_OF_MANY = re.compile(
    r"\b1 (rows|users|trials|rounds|cells|transactions|commits|connections|runs|cores|blocks)\b|[0-9]\.[0-9]+ rows"
)
SAMPLES = sorted(path for path in paths.sample_runs().glob("*/*") if (path / "run.json").exists())


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 rows"), (1, "1 row"), (1.0, "1 row"), (2, "2 rows"), (6.5, "6.5 rows"), (1719, "1,719 rows")],
)
def test_what_is_counted_has_its_noun_in_the_right_number(value: float, text: str) -> None:
    assert units.count(value, "row") == text


def test_a_noun_may_carry_its_verb() -> None:
    assert units.count(1, "answer was wrong", "answers were wrong") == "1 answer was wrong"
    assert units.count(3, "answer was wrong", "answers were wrong") == "3 answers were wrong"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6.5, "6.50"),
        (65.04, "65.0"),
        (1719.4, "1,719"),
        (-0.25, "−0.250"),
        (3.0, "3"),
        (0.9994, "0.999"),
        (0.9997, "1.00"),
        (9.997, "10.0"),
        (-99.97, "−100"),
        (999.7, "1,000"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_what_is_measured_has_three_digits(value: float | None, text: str) -> None:
    assert units.number(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.63, "+63.0 %"), (1.5792, "+157.9 %"), (-0.0001, "+0.0 %"), (-0.066, "−6.6 %")]
)
def test_percentages_have_one_decimal_whatever_their_size(share: float, text: str) -> None:
    assert percent(share) == text


def test_no_percentage_is_written_by_hand() -> None:
    """All are `words.percent`; `:g` is for limits that are told as they are set."""
    by_hand = re.compile(r"\{[^{}]*:[+,]*\.\d[f%]\} ?%")
    lines = {path: path.read_text(encoding="utf-8").splitlines() for path in Path(labkit.__file__).parent.rglob("*.py")}
    found = [f"{path.name}: {line}" for path, text in lines.items() for line in text if by_hand.search(line)]
    assert [line for line in found if "GENERATOR_LIMIT" not in line and "GAIN_THAT_MATTERS" not in line] == []


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_report_says_1_trials_or_6_50_rows(path: Path, tmp_path: Path) -> None:
    """Of the shipped runs, and of each cut down to its first trial or round."""
    run = read_run(Path(shutil.copytree(path, tmp_path / path.parent.name / path.name)))
    findings = EXPERIMENTS[run.experiment].findings
    assert not ONE_OF_MANY.findall("\n".join([*findings.verdicts(run), *findings.lead(run)]))
    if run.experiment in ("durability-matrix", "quorum-commit"):
        first = run.blocks[:1] if run.experiment == "durability-matrix" else [b for b in run.blocks if b.round == 0]
        run.update(blocks=first)
        said = "\n".join([*findings.verdicts(run), *findings.lead(run), findings.table(run).to_string()])
        assert "1 trial" in said or "1 round" in said
        assert not ONE_OF_MANY.findall(said)
