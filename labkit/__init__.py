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
    from labkit.budgets import cpu_budget
    from labkit.cluster import Cluster, Node
    from labkit.conclusions import verdicts
    from labkit.config import CpuBudget, ReadScaling, StreamingReplication
    from labkit.config_load import ConcurrencySweep, MaxThroughput, MeasuringHonestly
    from labkit.crashes import promotion_crash
    from labkit.dataset import DatasetSpec, seed
    from labkit.errors import BadInput, ClusterError, LabkitError, RunNotFound, RunUnreadable
    from labkit.experiments import read_scaling
    from labkit.experiments_load import concurrency_sweep, max_throughput, measuring_honestly
    from labkit.failover import FailoverSteps, Policy, Refused
    from labkit.failover_parameters import DurabilityMatrix, Failover, PromotionCrash, QuorumCommit
    from labkit.failures import durability_matrix, run_failover
    from labkit.frames import bottleneck, ecdf, headline, littles_law, per_second, reference, resources, rounds
    from labkit.lab import down, open_run, runs, up
    from labkit.quorum import quorum_commit
    from labkit.store import Run, RunStore
    from labkit.streaming import streaming_replication

_HOME = {
    "labkit.cluster": ("Cluster", "Node"),
    "labkit.conclusions": ("verdicts",),
    "labkit.config": ("CpuBudget", "ReadScaling", "StreamingReplication"),
    "labkit.budgets": ("cpu_budget",),
    "labkit.config_load": ("ConcurrencySweep", "MaxThroughput", "MeasuringHonestly"),
    "labkit.dataset": ("DatasetSpec", "seed"),
    "labkit.errors": ("BadInput", "ClusterError", "LabkitError", "RunNotFound", "RunUnreadable"),
    "labkit.crashes": ("promotion_crash",),
    "labkit.quorum": ("quorum_commit",),
    "labkit.failover": ("FailoverSteps", "Policy", "Refused"),
    "labkit.failover_parameters": ("DurabilityMatrix", "Failover", "PromotionCrash", "QuorumCommit"),
    "labkit.failures": ("durability_matrix", "run_failover"),
    "labkit.experiments": ("read_scaling",),
    "labkit.experiments_load": ("concurrency_sweep", "max_throughput", "measuring_honestly"),
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
    "labkit.streaming": ("streaming_replication",),
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
