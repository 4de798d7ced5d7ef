"""Parameters of the experiments about losing a primary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from labkit.experiments.parameters import param
from labkit.experiments.shared import AnyFault, OnACluster, impossible_modes, powers_for
from labkit.experiments.values import Written
from labkit.lab.failover.policy import Policy
from labkit.replication import Level, Replication

AnyMode = Annotated[Replication, Written(Replication.parse)]


class Failover(OnACluster):
    """Write load, the primary lost under it, a replica promoted, and an audit of every row."""

    experiment = "failover"

    replicas: int = param(2, "streaming replicas beside the primary", low=1, high=8)
    mode: AnyMode = param("ANY 1", "which replicas a commit waits for: async, FIRST k or ANY k")
    level: Level = param("on", "synchronous_commit: how far the replica must have come")
    writers: int = param(10, "writers, each waiting for its answer before it writes again", low=1, high=1000)
    rows_per_tx: int = param(1, "rows of one transaction", low=1, high=10_000)
    payload_bytes: int = param(64, "length of each row's text", low=1, high=100_000)
    fault: AnyFault = param("kill", "how the primary is lost; switchover is a clean stop")
    before_s: float = param(3.0, "seconds of writing before the fault", low=0.1, high=3600)
    behind_s: float = param(0.3, "for the faults that end in -behind: seconds without receiving", low=0.01, high=60)
    after_s: float = param(2.0, "seconds of writing after the new primary's first row", low=0.1, high=3600)
    max_lag_bytes: int = param(Policy.max_lag_bytes, "a replica further behind is not promoted", low=0)
    accept_data_loss: bool = param(False, "promote even if committed rows may be lost")
    hold_writes: bool = param(
        True, "where commits waited for a replica, the new primary acknowledges no commit until one follows it"
    )
    rejoin: bool = param(True, "read the old primary's own rows, then make it a replica")
    by_hand: bool = param(False, "each verb of the drill takes its step; otherwise all are taken at once, then shown")
    seed: int = param(20230604, "seed of the payload and of every random choice", low=0, high=2**31 - 1)
    timeout_s: float = param(30.0, "deadline of one transaction", low=0.1, high=600)
    sample_interval_s: float = param(0.5, "seconds between two samples of servers and host", low=0.1, high=60)

    def conflicts(self) -> list[str]:
        return super().conflicts() + impossible_modes("mode", [self.mode], self.replicas)

    def needs(self) -> Mapping[type, str]:
        return powers_for("fault", [self.fault])

    @property
    def replication(self) -> Replication:
        """What commits wait for: `mode` at `level`."""
        return self.mode.at(self.level)
