"""CPU budgets on real containers, and what is refused before any server starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labkit.analysis import frames
from labkit.errors import BadInput
from labkit.experiments.cpu_budget import figures
from labkit.experiments.cpu_budget import findings as speedup
from labkit.experiments.cpu_budget.drive import cpu_budget
from labkit.experiments.cpu_budget.parameters import CpuBudget
from labkit.lab.providers import provider


@pytest.mark.docker
@pytest.mark.slow
def test_replicas_add_throughput_when_they_add_cpu(docker_engine: str, lab_data: Path) -> None:
    """Four rounds of a second and a half; the budget is small, so that a busy machine still has it to give."""
    assert docker_engine
    assert lab_data
    small = {
        "users": 2000,
        "vus": 50,
        "connections": 6,
        "duration_s": 6,
        "rounds": 4,
        "warmup_s": 0.5,
        "node_cpus": 0.1,
        "repeat_disturbed": 0,
        "interventions_s": 5,
    }
    name = f"budget-{os.getpid()}"
    try:
        run = cpu_budget(CpuBudget.build(small | {"cluster": name, "budgets": "limited"}))
    finally:
        provider("docker").down(name, purge=True)
    found = speedup.speedup(run)
    assert list(found["arm"]) == [
        "primary-only",
        "replicas-round-robin-1",
        "replicas-round-robin",
        "all-nodes-round-robin",
    ]
    assert list(found["nodes"]) == [1, 1, 2, 3]
    assert set(found["node_cpus"]) == {0.1}
    # Three times the CPU. How close to three the throughput comes depends on who else uses the machine.
    assert found["ratio"].iloc[3] > 1.2
    assert run.blocks[0].connections == {"pg1": 6}
    usage = frames.resources(run)
    assert (usage[usage["metric"] == "throttled_percent"]["value"] > 5).any()
    shown = "answered" if found["low"].iloc[3] > 1 else "and the primary alone cannot be told apart"
    assert f"all nodes {shown}" in str(speedup.verdicts(run))
    # On a machine that others use, nothing is tried; what is tried doubles the budget of its rounds alone.
    tried = [block for block in run.blocks if block.intervention]
    assert sum(block.intervention == "CPU limit doubled" for block in tried) == len(tried) / 5
    assert figures.figure(run).svg().startswith("<?xml")


def test_a_budget_without_docker_is_refused_with_all_that_is_wrong() -> None:
    wrong = {"provider": "embedded", "replicas": 1, "arms": "primary-only,replicas-round-robin-2", "connections": 1}
    with pytest.raises(BadInput) as refused:
        CpuBudget.build(wrong)
    assert [problem.split(":")[0] for problem in refused.value.problems] == ["budgets", "arms", "connections"]
