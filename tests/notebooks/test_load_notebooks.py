"""The notebooks about load itself, driven on real servers with few seconds, as `labkit run` drives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labkit.analysis.frames import blocks
from labkit.analysis.report import report
from labkit.analysis.report.findings import summary
from labkit.experiments import catalogue
from labkit.experiments.concurrency_sweep import findings as sweep

SMALL = {"cluster": "load-notebooks", "replicas": 1, "users": 2000, "connections": 4, "warmup_s": 0.1, "seed": 7}
RUNS: dict[str, tuple[dict[str, Any], int]] = {
    "max-throughput": ({"trial_s": 0.6, "rate_high": 2000, "confirm": 1, "precision": 0.5, "p99_limit_ms": 500}, 1),
    "concurrency-sweep": (
        {"levels": "1,2,4,8,16", "rounds": 3, "step_s": 0.5, "replicas": 2, "cluster": "load-sweep"}
        | {"repeat_disturbed": 0, "interventions_s": 0},
        3,
    ),
    "measuring-honestly": (
        {"block_s": 2, "rate": 300, "little_levels": "1,4", "comparisons": 3, "pairs": 3, "pair_block_s": 0.2},
        3,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_it_drives_draws_and_concludes(name: str, lab_data: Path) -> None:
    """Within four minutes on a busy machine: servers, load, figures, sentences and one page."""
    del lab_data
    changes, figures = RUNS[name]
    kind = catalogue.experiment(name)
    parameters = kind.parameters.build(SMALL | changes)
    executed = report.execute(kind.notebook_path, parameters.as_dict())
    assert executed.run is not None
    run = executed.run
    assert run.status == "complete"
    drawn = [
        o for cell in executed.notebook.cells for o in cell.get("outputs", []) if "image/svg+xml" in o.get("data", {})
    ]
    # What more nodes would give is drawn only where both laws fit what was measured.
    left_out = name == "concurrency-sweep" and isinstance(sweep.more_nodes(run, run.parameter("up_to_nodes", int)), str)
    assert len(drawn) == figures - left_out
    page = report.publish(executed, run, kind.findings)
    assert kind.findings.verdicts(run)
    assert kind.findings.lead(run)[0].split(".")[0] in page.read_text(encoding="utf-8").replace("&#x27;", "'")
    assert summary(run, kind.findings).headline
    assert len(blocks(run)) == len(run.blocks)

    again = report.execute(kind.notebook_path, {"run_id": str(run.path)}, output=run.derived / "again.ipynb")
    assert again.run is not None
    assert again.run.id == run.id
