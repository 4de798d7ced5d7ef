"""Parameters: declared once as frozen dataclasses, loaded, overridden and validated all at once."""

from labkit.experiments.failover.parameters import DurabilityMatrix, Failover, PromotionCrash, QuorumCommit
from labkit.experiments.max_throughput.parameters import ConcurrencySweep, MaxThroughput, MeasuringHonestly
from labkit.experiments.parameters import Parameters, as_list, as_stages, assignments, param, read_yaml
from labkit.experiments.read_scaling.parameters import CpuBudget, ReadScaling, StreamingReplication
from labkit.experiments.shared import LOCALES

__all__ = [
    "LOCALES",
    "ConcurrencySweep",
    "CpuBudget",
    "DurabilityMatrix",
    "Failover",
    "MaxThroughput",
    "MeasuringHonestly",
    "Parameters",
    "PromotionCrash",
    "QuorumCommit",
    "ReadScaling",
    "StreamingReplication",
    "as_list",
    "as_stages",
    "assignments",
    "param",
    "read_yaml",
]
