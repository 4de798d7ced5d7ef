"""Parameters of quorum-commit."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.experiments.parameters import param
from labkit.experiments.shared import Mode, OnACluster, impossible_modes
from labkit.experiments.values import Several, joined
from labkit.lab.providers.declared import Owned
from labkit.replication import LEVELS, REMOTE_LEVELS, Level, Replication


class QuorumCommit(OnACluster):
    """What each level of synchronous replication costs, and what waits when replicas stop."""

    experiment = "quorum-commit"

    replicas: int = param(2, "streaming replicas beside the primary", low=2, high=8)
    modes: Several[Mode] = param("async,FIRST 1,ANY 1,ANY 2", "which replicas commits wait for")
    levels: Several[Level] = param(joined(LEVELS), "how far a replica must have come")
    rounds: int = param(4, "rounds over all modes and levels", low=1, high=1000)
    block_s: float = param(0.6, "measured seconds of one mode and level in one round", low=0.1, high=3600)
    warmup_s: float = param(0.2, "seconds at the start of every block that are not counted", low=0, high=600)
    writers: int = param(10, "writers, each waiting for its answer before it writes again", low=1, high=1000)
    deadline_s: float = param(1.0, "how long a client waits for a commit that no replica confirms", low=0.1, high=60)
    seed: int = param(20230604, "seed of the payload", low=0, high=2**31 - 1)

    def conflicts(self) -> list[str]:
        return super().conflicts() + impossible_modes("modes", self.modes, self.replicas)

    def needs(self) -> Mapping[type, str]:
        return {Owned: "deadline_s: a replica that is stopped"}

    @property
    def arms(self) -> list[Replication]:
        """Every mode at its levels: with no replica to wait for, only those differ that ask the primary alone."""
        return [
            mode.at(level)
            for mode in self.modes
            for level in self.levels
            if (level in REMOTE_LEVELS) == (mode.mode != "off")
        ]
