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
    from labkit.analysis.frames import bottleneck, ecdf, headline, littles_law, per_second, reference, resources, rounds
    from labkit.errors import BadInput, ClusterError, LabkitError, RunNotFound, RunUnreadable
    from labkit.experiments.cpu_budget.drive import cpu_budget
    from labkit.experiments.declared import (
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
    from labkit.experiments.durability_matrix.drive import durability_matrix, run_failover
    from labkit.experiments.failover.drill import FailoverDrill
    from labkit.experiments.max_throughput.drive import concurrency_sweep, max_throughput, measuring_honestly
    from labkit.experiments.promotion_crash.drive import promotion_crash
    from labkit.experiments.quorum_commit.drive import quorum_commit
    from labkit.experiments.read_scaling.drive import read_scaling
    from labkit.experiments.read_scaling.findings import verdicts
    from labkit.experiments.streaming_replication.drive import streaming_replication
    from labkit.lab.cluster.cluster import Cluster, Node
    from labkit.lab.clusters import down, open_run, runs, up
    from labkit.lab.dataset import DatasetSpec, seed
    from labkit.lab.failover import FailoverSteps, Policy, Refused
    from labkit.run.store import Run, RunStore

_HOME = {
    "labkit.lab.cluster.cluster": ("Cluster", "Node"),
    "labkit.experiments.read_scaling.findings": ("verdicts",),
    "labkit.experiments.declared": (
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
    "labkit.experiments.cpu_budget.drive": ("cpu_budget",),
    "labkit.lab.dataset": ("DatasetSpec", "seed"),
    "labkit.errors": ("BadInput", "ClusterError", "LabkitError", "RunNotFound", "RunUnreadable"),
    "labkit.experiments.promotion_crash.drive": ("promotion_crash",),
    "labkit.experiments.quorum_commit.drive": ("quorum_commit",),
    "labkit.lab.failover": ("FailoverSteps", "Policy", "Refused"),
    "labkit.experiments.failover.drill": ("FailoverDrill",),
    "labkit.experiments.durability_matrix.drive": ("durability_matrix", "run_failover"),
    "labkit.experiments.read_scaling.drive": ("read_scaling",),
    "labkit.experiments.max_throughput.drive": ("concurrency_sweep", "max_throughput", "measuring_honestly"),
    "labkit.analysis.frames": (
        "bottleneck",
        "ecdf",
        "headline",
        "littles_law",
        "per_second",
        "reference",
        "resources",
        "rounds",
    ),
    "labkit.lab.clusters": ("down", "open_run", "runs", "up"),
    "labkit.run.store": ("Run", "RunStore"),
    "labkit.experiments.streaming_replication.drive": ("streaming_replication",),
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
