"""Parameters that several experiments have, and the choices they offer."""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

from labkit import paths
from labkit.errors import BadInput
from labkit.experiments.parameters import Parameters, as_list, param
from labkit.lab.dataset.locales import LOCALES
from labkit.replication import Replication

ARMS = ("primary-only", "replicas-round-robin")
PROVIDERS = ("embedded", "docker", "attach")
OWNING_PROVIDERS = ("embedded", "docker")  # whose servers may be stopped, restarted and killed
WORKLOADS = ("get-user", "search-users")

SPARE_CONNECTIONS = 10  # for the sampler, replication and whoever looks on


@dataclasses.dataclass(frozen=True)
class OnServers(Parameters):
    """Which run to read, or which servers to drive."""

    experiment: ClassVar[str]
    """The name of the experiment that these are parameters of."""

    run_id: str = param("", "a recorded run to read instead of driving a new one; empty drives")
    provider: str = param("embedded", "where the servers come from", choices=PROVIDERS)
    cluster: str = param("lab", "name of the cluster; it is found again if it exists")


@dataclasses.dataclass(frozen=True)
class OnACluster(OnServers):
    """On a cluster that may be there already, and may stay."""

    replicas: int = param(2, "streaming replicas beside the primary", low=0, high=8)
    keep_cluster: bool = param(False, "leave a cluster that this run started running afterwards")


@dataclasses.dataclass(frozen=True)
class ReadingUsers(OnACluster):
    """Read load on the users table."""

    users: int = param(1_000_000, "rows of the users table", low=100, high=100_000_000)
    locale: str = param("en_US", "language of the names", choices=LOCALES)
    seed: int = param(20230604, "seed of the dataset and of every random choice", low=0, high=2**31 - 1)
    connections: int = param(32, "database connections to each node that serves reads", low=1, high=1000)
    timeout_s: float = param(30.0, "deadline of one request, waiting for a connection included", low=0.1, high=600)
    warmup_s: float = param(1.0, "seconds at the start of every block that are not counted", low=0, high=600)
    sample_interval_s: float = param(1.0, "seconds between two samples of servers and host", low=0.1, high=60)

    def conflicts(self) -> list[str]:
        allowed = max_connections()
        if self.run_id or self.provider == "attach" or self.connections + SPARE_CONNECTIONS <= allowed:
            return []
        return [
            f"connections: {self.connections} to a node and {SPARE_CONNECTIONS} to spare need max_connections of at "
            f"least {self.connections + SPARE_CONNECTIONS}; {paths.configs() / 'postgresql'} sets {allowed}, in both "
            "primary/ and replica/"
        ]

    def _without_replicas(self, arms: str) -> list[str]:
        if self.replicas or not any(arm.startswith("replicas") for arm in as_list(arms)):
            return []
        return ["replicas: 0 leaves the arm replicas-round-robin without a server; name another arm or add replicas"]


def too_many_processes(processes: int, **shared: int) -> list[str]:
    """`shared`: what the load generators share out among themselves, by parameter; 0 is not asked for."""
    return [
        f"processes: {processes} load generators cannot share {name}: {limit}; use at most {limit}"
        for name, limit in shared.items()
        if 0 < limit < processes
    ]


def max_connections() -> int:
    """What the lab's own servers are configured to allow. Raises BadInput if the setting is gone."""
    file = paths.configs() / "postgresql" / "primary" / "postgresql.conf"
    found = re.search(r"^max_connections\s*=\s*(\d+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise BadInput(f"{file} does not set max_connections; write `max_connections = 300` there and for replicas")
    return int(found[1])


@dataclasses.dataclass(frozen=True)
class _OneWorkload(ReadingUsers):
    """What these experiments have in common."""

    workload: str = param("get-user", "what a request asks for", choices=WORKLOADS)
    warmup_s: float = param(0.5, "seconds at the start of every block that are not counted", low=0, high=600)


FAULTS = ("kill", "postmaster", "pause", "isolate", "switchover")


TRIAL_FAULTS = (*FAULTS, "kill-one-behind", "kill-all-behind")


def _modes(modes: list[str], replicas: int) -> list[str]:
    found = []
    for words in modes:
        try:
            Replication.parse(words).check(replicas)
        except BadInput as error:
            found += [f"mode: {problem}" for problem in error.problems]
    return found


def _provider(provider: str, faults: list[str]) -> list[str]:
    if provider == "attach":
        return ["provider: attached servers are neither killed nor damaged; take embedded or docker"]
    if "isolate" in faults and provider != "docker":
        return [f"fault: isolate needs provider docker; {provider} has no network of its own"]
    return []
