"""What do streaming replicas buy me, and what do I lose when the primary dies? A lab and a library.

    import labkit

    p = labkit.ReadScaling.build({"vus": 200, "users": 20_000, "duration_s": 12})
    run = labkit.read_scaling(p)          # drives real servers and returns the recorded run
    labkit.headline(run)                  # a DataFrame; each function's docstring lists columns and units

`open_run("latest")` reads a recorded run, with no server at all. `up` and `down` hold a cluster by hand.
Names are loaded on first use, so that a load generator's process does not import what only draws.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.cluster import Cluster, Node
    from labkit.config import (
        ConcurrencySweep,
        CpuBudget,
        DurabilityMatrix,
        Failover,
        MaxThroughput,
        MeasuringHonestly,
        PromotionCrash,
        QuorumCommit,
        ReadScaling,
        StreamingReplication,
    )
    from labkit.dataset import DatasetSpec, seed
    from labkit.errors import BadInput, ClusterError, LabkitError, RunNotFound, RunUnreadable
    from labkit.experiments.budgets import cpu_budget
    from labkit.experiments.crashes import promotion_crash
    from labkit.experiments.drill import FailoverDrill
    from labkit.experiments.failover import durability_matrix, run_failover
    from labkit.experiments.load import concurrency_sweep, max_throughput, measuring_honestly
    from labkit.experiments.quorum import quorum_commit
    from labkit.experiments.read_scaling import read_scaling
    from labkit.experiments.streaming import streaming_replication
    from labkit.failover import FailoverSteps, Policy, Refused
    from labkit.findings.conclusions import verdicts
    from labkit.frames import bottleneck, ecdf, headline, littles_law, per_second, reference, resources, rounds
    from labkit.lab import down, open_run, runs, up
    from labkit.store import Run, RunStore

_HOME = {
    "labkit.cluster": ("Cluster", "Node"),
    "labkit.findings.conclusions": ("verdicts",),
    "labkit.config": (
        "ConcurrencySweep",
        "CpuBudget",
        "DurabilityMatrix",
        "Failover",
        "MaxThroughput",
        "MeasuringHonestly",
        "PromotionCrash",
        "QuorumCommit",
        "ReadScaling",
        "StreamingReplication",
    ),
    "labkit.experiments.budgets": ("cpu_budget",),
    "labkit.dataset": ("DatasetSpec", "seed"),
    "labkit.errors": ("BadInput", "ClusterError", "LabkitError", "RunNotFound", "RunUnreadable"),
    "labkit.experiments.crashes": ("promotion_crash",),
    "labkit.experiments.quorum": ("quorum_commit",),
    "labkit.failover": ("FailoverSteps", "Policy", "Refused"),
    "labkit.experiments.drill": ("FailoverDrill",),
    "labkit.experiments.failover": ("durability_matrix", "run_failover"),
    "labkit.experiments.read_scaling": ("read_scaling",),
    "labkit.experiments.load": ("concurrency_sweep", "max_throughput", "measuring_honestly"),
    "labkit.frames": (
        "bottleneck",
        "ecdf",
        "headline",
        "littles_law",
        "per_second",
        "reference",
        "resources",
        "rounds",
    ),
    "labkit.lab": ("down", "open_run", "runs", "up"),
    "labkit.store": ("Run", "RunStore"),
    "labkit.experiments.streaming": ("streaming_replication",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: RUF022  (sorted without regard to case, as the documentation lists them)
    "BadInput",
    "bottleneck",
    "Cluster",
    "ClusterError",
    "concurrency_sweep",
    "ConcurrencySweep",
    "cpu_budget",
    "CpuBudget",
    "DatasetSpec",
    "down",
    "durability_matrix",
    "DurabilityMatrix",
    "ecdf",
    "Failover",
    "FailoverDrill",
    "FailoverSteps",
    "headline",
    "LabkitError",
    "littles_law",
    "max_throughput",
    "MaxThroughput",
    "measuring_honestly",
    "MeasuringHonestly",
    "Node",
    "open_run",
    "per_second",
    "Policy",
    "promotion_crash",
    "PromotionCrash",
    "quorum_commit",
    "QuorumCommit",
    "read_scaling",
    "ReadScaling",
    "reference",
    "Refused",
    "resources",
    "rounds",
    "Run",
    "run_failover",
    "RunNotFound",
    "runs",
    "RunStore",
    "RunUnreadable",
    "seed",
    "streaming_replication",
    "StreamingReplication",
    "up",
    "verdicts",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'labkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
