"""Parameters of streaming-replication."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.experiments.parameters import param
from labkit.experiments.shared import OnACluster
from labkit.experiments.values import Several, joined
from labkit.lab.cluster.powers import ReplicaKeeper
from labkit.replication import LEVELS, Level


class StreamingReplication(OnACluster):
    """What streaming replication does: positions, lag, staleness, a conflict, and a slot that is lost."""

    experiment = "streaming-replication"

    cluster: str = param("replication", "name of the cluster; it is found again if it exists")
    replicas: int = param(2, "streaming replicas beside the primary", low=1, high=8)
    levels: Several[Level] = param(joined(LEVELS), "levels of synchronous_commit")
    commits: int = param(200, "commits whose visibility on each replica is timed, at each level", low=2, high=100_000)
    interval_ms: float = param(10.0, "milliseconds between two of these commits", low=0, high=10_000)
    write_load_s: float = param(
        4.0, "seconds of write load under which positions and lag are observed", low=1, high=600
    )
    slot_keep_mb: int = param(64, "max_slot_wal_keep_size while a replica is down, in MB", low=32, high=4096)

    def needs(self) -> Mapping[type, str]:
        return {ReplicaKeeper: "slot_keep_mb: a replica that is recreated"}
