"""Parameters of quorum-commit."""

from __future__ import annotations

import dataclasses

from labkit.experiments.failover.parameters import MODES
from labkit.experiments.parameters import as_list, param
from labkit.experiments.shared import OnACluster, _modes, _provider
from labkit.replication import LEVELS


@dataclasses.dataclass(frozen=True)
class QuorumCommit(OnACluster):
    """What each level of synchronous replication costs, and what waits when replicas stop."""

    experiment = "quorum-commit"

    replicas: int = param(2, "streaming replicas beside the primary", low=2, high=8)
    modes: str = param("async,FIRST 1,ANY 1,ANY 2", "who commits wait for", choices=MODES, many=True)
    levels: str = param(
        "off,local,remote_write,on,remote_apply", "how far a replica must have come", choices=LEVELS, many=True
    )
    rounds: int = param(4, "rounds over all modes and levels", low=1, high=1000)
    block_s: float = param(0.6, "measured seconds of one mode and level in one round", low=0.1, high=3600)
    warmup_s: float = param(0.2, "seconds at the start of every block that are not counted", low=0, high=600)
    writers: int = param(10, "writers, each waiting for its answer before it writes again", low=1, high=1000)
    deadline_s: float = param(1.0, "how long a client waits for a commit that no replica answers", low=0.1, high=60)
    seed: int = param(20230604, "seed of the payload", low=0, high=2**31 - 1)

    def conflicts(self) -> list[str]:
        return _modes(as_list(self.modes), self.replicas) + _provider(self.provider, [])

    @property
    def arms(self) -> list[tuple[str, str]]:
        """Mode and level; without a replica to wait for, only how far the primary itself must have come differs."""
        alone = [level for level in as_list(self.levels) if level in ("off", "local")]
        return [
            (mode, level)
            for mode in as_list(self.modes)
            for level in (alone if mode == "async" else [lv for lv in as_list(self.levels) if lv not in alone])
        ]
