"""Parameters of durability-matrix."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.experiments.parameters import param
from labkit.experiments.shared import AnyFault, Mode, OnServers, impossible_modes, powers_for
from labkit.experiments.values import Several, joined
from labkit.lab.failover.fault import Fault
from labkit.replication import LEVELS, Level, Replication


class DurabilityMatrix(OnServers):
    """Many failovers, each of a fresh cluster: what every mode and level of replication loses, and what it costs."""

    experiment = "durability-matrix"

    resume: str = param("", "an interrupted run to continue; its own parameters apply")
    cluster: str = param("matrix", "name of the cluster that is recreated for every trial")
    replicas: int = param(2, "streaming replicas beside the primary", low=1, high=8)
    modes: Several[Mode] = param("async,FIRST 1,ANY 1,ANY 2", "which replicas commits wait for")
    levels: Several[Level] = param(joined(LEVELS[1:]), "how far a replica must have come")
    faults: Several[AnyFault] = param("kill,kill-all-behind", "how the primary is lost")
    kills: int = param(2, "trials of every mode, level and fault", low=1, high=10_000)
    writers: int = param(10, "writers, each waiting for its answer before it writes again", low=1, high=1000)
    rows_per_tx: int = param(1, "rows of one transaction", low=1, high=10_000)
    payload_bytes: int = param(64, "length of each row's text", low=1, high=100_000)
    before_s: float = param(0.7, "seconds of writing before the fault; up to half of it more at random", low=0.1)
    behind_s: float = param(0.2, "for the faults that end in -behind: seconds without receiving", low=0.01, high=60)
    after_s: float = param(0.3, "seconds of writing after the new primary's first row", low=0.05, high=3600)
    hold_writes: bool = param(
        True, "where commits waited for a replica, the new primary acknowledges no commit until one follows it"
    )
    seed: int = param(20230604, "seed of every random choice", low=0, high=2**31 - 1)
    timeout_s: float = param(20.0, "deadline of one transaction", low=0.1, high=600)

    def conflicts(self) -> list[str]:
        return super().conflicts() + impossible_modes("modes", self.modes, self.replicas)

    def needs(self) -> Mapping[type, str]:
        return powers_for("faults", self.faults)

    @property
    def cells(self) -> list[tuple[Replication, Fault]]:
        """Every mode at every level, with every fault."""
        return [(mode.at(level), fault) for mode in self.modes for level in self.levels for fault in self.faults]
