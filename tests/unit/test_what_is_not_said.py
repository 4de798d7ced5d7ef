"""What findings leave unsaid: differences of too few rounds, knees of a law that does not fit, noise twice its size."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labkit import paths
from labkit.experiments.concurrency_sweep import figures as sweep_figures
from labkit.experiments.concurrency_sweep import findings as sweep
from labkit.experiments.cpu_budget import figures as budget_figures
from labkit.experiments.cpu_budget import findings as budget
from labkit.experiments.measuring_honestly import findings as honestly
from labkit.experiments.quorum_commit import findings as quorum
from labkit.run.schema import CostBlock
from labkit.run.store import Run, read_run

MakeRun = Callable[..., Run]
STEEP = {1: 3000, 2: 6100, 5: 14_000, 10: 19_000, 20: 21_544, 50: 9000, 100: 7500, 200: 7000, 500: 6900}
"""A peak and a fall to a third, as no law of this form has it."""
SMOOTH = {n: 3000 * n / (1 + 0.05 * (n - 1) + 2e-4 * n * (n - 1)) for n in STEEP}
FLAT = {n: 3000 * n / (1 + 0.05 * (n - 1)) for n in STEEP}


@pytest.fixture
def measured(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, float]], Run]:
    """A sweep whose rounds scatter by 2 % around these requests per second of a number of users, or 1.2 times them."""

    def make(rates: dict[int, float]) -> Run:
        rng = np.random.default_rng(4)
        rows = [
            {"arm": arm, "vus": vus, "round": r, "nodes": nodes, "requests_per_s": gain * rate * rng.normal(1, 0.02)}
            for arm, nodes, gain in (("primary-only", 1, 1.0), ("replicas-round-robin", 2, 1.2))
            for r in range(3)
            for vus, rate in rates.items()
        ]
        blocks = pd.DataFrame(rows)
        levels = blocks.groupby(["arm", "vus"], as_index=False)[["requests_per_s"]].mean().assign(p99_ms=1.0)
        monkeypatch.setattr(sweep, "blocks", lambda _: blocks)
        monkeypatch.setattr(sweep, "levels", lambda _: levels)
        run = make_run(rounds=1, workloads=("get-user",))
        run.update(parameters=run.parameters | {"up_to_nodes": 8})
        return run

    return make


def test_where_the_law_does_not_fit_only_what_was_measured_is_told(measured: Callable[..., Run]) -> None:
    run = measured(STEEP)
    said = sweep.verdicts(run)
    assert said[0].startswith("The primary alone: highest measured 21,")
    assert said[0].endswith("requests/s at 20 users; the scalability law does not fit, so no knee is told.")
    assert re.fullmatch(
        r"The primary alone: with \d+ users? the fitted law is \d+\.\d % (above|below) what was measured. "
        r"No more than 10.0 % is allowed, so the law does not fit.",
        said[1],
    )
    assert "What more nodes would give is not extrapolated: the law does not even fit the users" in str(said)
    assert "variance" not in str(said)
    assert "e-" not in str(said)
    table = sweep.scalability_table(run)["primary alone"]
    assert table["highest requests/s measured"].endswith("at 20 users")
    assert table["the law fits"] == "no"
    assert {table[name] for name in table.index[3:]} == {"–"}
    drawn = sweep_figures.sweep(sweep.levels(run), sweep.laws(run)).axes[0]
    assert [line.get_linestyle() for line in drawn.lines if len(line.get_xdata()) > len(STEEP)] == [":", ":"]
    assert not [line for line in drawn.lines if line.get_marker() == "*"]


def test_a_knee_is_told_beside_what_was_measured(measured: Callable[..., Run]) -> None:
    run = measured(SMOOTH)
    (first, second, *_) = sweep.verdicts(run)
    assert "highest measured" in first
    assert "by the fitted law throughput peaks at" in first
    knee = float(sweep.scalability(run)["knee"].iloc[0])
    assert knee == pytest.approx(np.sqrt(0.95 / 2e-4), rel=0.15)
    assert "by the fitted law" in second
    assert "Extrapolated, not measured: 8 nodes would give" in str(sweep.verdicts(run))
    sheet = sweep_figures.sweep(sweep.levels(run), sweep.laws(run))
    drawn = sheet.axes[0]
    assert [line for line in drawn.lines if line.get_marker() == "*"]
    # Both arms have their knee at the same users: labels beside the stars would be printed over each other.
    assert not drawn.texts
    labels = [text.get_text() for text in sheet.legends[0].get_texts()]
    assert [label.split("; ")[0] for label in labels] == ["primary alone", "replicas"]
    assert all("star: its knee, " in label for label in labels)


def test_a_cost_that_may_be_none_is_told_as_at_most(measured: Callable[..., Run]) -> None:
    said = sweep.verdicts(measured(FLAT))
    assert "no knee is shown within 500 users" in said[0]
    assert "coherency κ: at most" in said[1]


def test_two_rounds_of_commits_tell_no_price(tmp_path: Path) -> None:
    (sample,) = (paths.sample_runs() / "quorum-commit").iterdir()
    run = read_run(Path(shutil.copytree(sample, tmp_path / "quorum-commit" / sample.name)))
    assert "times (" in quorum.lead(run)[1]
    run.update(blocks=[block for block in run.blocks_of(CostBlock) if block.round < 2])
    assert list(quorum.lead(run)) == [
        "What a commit costs at each level: 2 rounds give no interval, so nothing can be concluded: "
        "at least 3 are needed."
    ]
    assert set(quorum.step_table(run)["slower"]) == {"too few rounds to tell"}
    assert set(quorum.step_table(run)["a commit takes, times"]) == {"–"}


def test_two_rounds_under_a_budget_tell_no_multiple(make_run: MakeRun) -> None:
    rates = {("get-user", "replicas-round-robin"): 2000.0}
    run = make_run(rounds=2, workloads=("get-user",), rates=rates)
    run.update(experiment="cpu-budget")
    assert budget.verdicts(run)[0] == (
        "get-user: the replicas against the primary alone: 2 rounds give no interval, so nothing can be concluded: "
        "at least 3 are needed."
    )
    assert budget.table(run)["× primary alone"].tolist() == ["1", "–"]
    heights = [bar.get_height() for bar in budget_figures.figure(run).axes[0].patches]
    assert heights[0] == 1.0
    assert np.isnan(heights[1])


def test_what_noise_hides_is_half_of_an_interval() -> None:
    same = pd.DataFrame({"relative_low": [-0.02, -0.04, -0.03], "relative_high": [0.02, 0.04, 0.05], "n": 5})
    assert honestly.noise(same) == (
        "Half of the intervals reached further than ±4.0 % from their middle: with 5 pairs a comparison, a difference "
        "of that size would be found about every second time here, a smaller one less often."
    )
