"""Parameters of durability-matrix."""

from __future__ import annotations

import dataclasses

from labkit.experiments.failover.parameters import MODES
from labkit.experiments.parameters import as_list, param
from labkit.experiments.shared import TRIAL_FAULTS, OnServers, _modes, _provider
from labkit.replication import LEVELS


@dataclasses.dataclass(frozen=True)
class DurabilityMatrix(OnServers):
    """Many failovers, each of a fresh cluster: what every mode and level of replication loses, and what it costs."""

    experiment = "durability-matrix"

    resume: str = param("", "a run that was cut off: go on with it, its own parameters count")
    cluster: str = param("matrix", "name of the cluster that is made anew for every trial")
    replicas: int = param(2, "streaming replicas beside the primary", low=1, high=8)
    modes: str = param("async,FIRST 1,ANY 1,ANY 2", "who commits wait for", choices=MODES, many=True)
    levels: str = param(
        "local,remote_write,on,remote_apply", "how far a replica must have come", choices=LEVELS, many=True
    )
    faults: str = param("kill,kill-all-behind", "how the primary is lost", choices=TRIAL_FAULTS, many=True)
    kills: int = param(2, "trials of every mode, level and fault", low=1, high=10_000)
    writers: int = param(10, "writers, each waiting for its answer before it writes again", low=1, high=1000)
    rows_per_tx: int = param(1, "rows of one transaction", low=1, high=10_000)
    payload_bytes: int = param(64, "length of each row's text", low=1, high=100_000)
    before_s: float = param(0.7, "seconds of writing before the fault; up to half of it more at random", low=0.1)
    behind_s: float = param(0.2, "for the faults that end in -behind: seconds without receiving", low=0.01, high=60)
    after_s: float = param(0.3, "seconds of writing after the new primary's first row", low=0.05, high=3600)
    hold_writes: bool = param(
        True, "where commits waited for a replica, the new primary acknowledges none before one follows it"
    )
    seed: int = param(20230604, "seed of every random choice", low=0, high=2**31 - 1)
    timeout_s: float = param(20.0, "deadline of one transaction", low=0.1, high=600)

    def conflicts(self) -> list[str]:
        return _modes(as_list(self.modes), self.replicas) + _provider(self.provider, as_list(self.faults))

    @property
    def cells(self) -> list[tuple[str, str, str]]:
        """Mode, level, fault."""
        return [(m, lv, f) for m in as_list(self.modes) for lv in as_list(self.levels) for f in as_list(self.faults)]
