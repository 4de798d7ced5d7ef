"""Parameters: declared once as frozen dataclasses, loaded, overridden and validated all at once."""

from labkit.config.failover import DurabilityMatrix, Failover, PromotionCrash, QuorumCommit
from labkit.config.load import ConcurrencySweep, MaxThroughput, MeasuringHonestly
from labkit.config.parameters import Parameters, as_list, as_stages, assignments, param, read_yaml
from labkit.config.reading import CpuBudget, ReadScaling, StreamingReplication
from labkit.config.shared import LOCALES

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
