"""Parameters of the experiments about losing a primary."""

from __future__ import annotations

import dataclasses

from labkit.errors import BadInput
from labkit.experiments.parameters import as_list, param
from labkit.experiments.shared import OnACluster, OnServers
from labkit.lab.cluster.synchronize import LEVELS, Synchronous

FAULTS = ("kill", "postmaster", "pause", "isolate", "switchover")
TRIAL_FAULTS = (*FAULTS, "kill-one-behind", "kill-all-behind")
CAUSES = ("deleted", "mounted", "immutable", "sticky", "unwritable", "foreign")
MODES = ("async", "FIRST 1", "ANY 1", "ANY 2")


@dataclasses.dataclass(frozen=True)
class Failover(OnACluster):
    """Write load, the primary lost under it, a replica promoted, and an audit of every row."""

    replicas: int = param(2, "streaming replicas beside the primary", low=1, high=8)
    mode: str = param("ANY 1", "who a commit waits for: async, FIRST k or ANY k")
    level: str = param("on", "synchronous_commit: how far the replica must have come", choices=LEVELS)
    writers: int = param(10, "writers, each waiting for its answer before it writes again", low=1, high=1000)
    rows_per_tx: int = param(1, "rows of one transaction", low=1, high=10_000)
    payload_bytes: int = param(64, "length of each row's text", low=1, high=100_000)
    fault: str = param("kill", "how the primary is lost; switchover is a clean stop", choices=TRIAL_FAULTS)
    before_s: float = param(3.0, "seconds of writing before the fault", low=0.1, high=3600)
    behind_s: float = param(0.3, "for the faults that end in -behind: seconds without receiving", low=0.01, high=60)
    after_s: float = param(2.0, "seconds of writing after the new primary's first row", low=0.1, high=3600)
    max_lag_bytes: int = param(16 * 2**20, "a replica further behind is not promoted", low=0)
    accept_data_loss: bool = param(False, "promote although committed rows may be lost")
    hold_writes: bool = param(
        True, "where commits waited for a replica, the new primary acknowledges none before one follows it"
    )
    rejoin: bool = param(True, "read the old primary's own rows, then make it a replica")
    by_hand: bool = param(False, "each verb of the drill takes its step; else all are taken at once, then shown")
    seed: int = param(20230604, "seed of the payload and of every random choice", low=0, high=2**31 - 1)
    timeout_s: float = param(30.0, "deadline of one transaction", low=0.1, high=600)
    sample_interval_s: float = param(0.5, "seconds between two samples of servers and host", low=0.1, high=60)

    def conflicts(self) -> list[str]:
        return _modes([self.mode], self.replicas) + _provider(self.provider, [self.fault])

    @property
    def replication(self) -> Synchronous:
        return Synchronous.parse(self.mode, self.level)


@dataclasses.dataclass(frozen=True)
class DurabilityMatrix(OnServers):
    """Many failovers, each of a fresh cluster: what every mode and level of replication loses, and what it costs."""

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


@dataclasses.dataclass(frozen=True)
class PromotionCrash(OnServers):
    """pg_promote in every set-up that makes it crash, beside two that look alike and do not."""

    cluster: str = param("crash", "name of the cluster that is made anew for every set-up")
    causes: str = param(",".join(CAUSES), "which set-ups to try", choices=CAUSES, many=True)

    def conflicts(self) -> list[str]:
        return _provider(self.provider, [])


@dataclasses.dataclass(frozen=True)
class QuorumCommit(OnACluster):
    """What each level of synchronous replication costs, and what waits when replicas stop."""

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


def _modes(modes: list[str], replicas: int) -> list[str]:
    found = []
    for words in modes:
        try:
            Synchronous.parse(words).check(replicas)
        except BadInput as error:
            found += [f"mode: {problem}" for problem in error.problems]
    return found


def _provider(provider: str, faults: list[str]) -> list[str]:
    if provider == "attach":
        return ["provider: attached servers are neither killed nor damaged; take embedded or docker"]
    if "isolate" in faults and provider != "docker":
        return [f"fault: isolate needs provider docker; {provider} has no network of its own"]
    return []
