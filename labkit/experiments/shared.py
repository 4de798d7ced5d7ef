"""Parameters that several experiments have, and what they may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from labkit import paths
from labkit.errors import BadInput
from labkit.experiments.parameters import Parameters, param
from labkit.experiments.values import one_of
from labkit.lab.dataset.locales import Locale
from labkit.lab.failover.fault import FAULTS, NEEDS, Fault
from labkit.lab.providers.declared import DECLARED, Owned, ProviderName, lacking
from labkit.lab.routing.arms import PRIMARY_ONLY, REPLICAS, Arm
from labkit.remedies import advice
from labkit.replication import Replication

ReadArm = Annotated[Arm, one_of(PRIMARY_ONLY, REPLICAS)]
WorkloadName = Literal["get-user", "search-users"]
Users = Annotated[int, Field(ge=1)]
AnyFault = Annotated[Fault, one_of(*FAULTS)]
Mode = Annotated[Replication, one_of(*map(Replication.parse, ("async", "FIRST 1", "ANY 1", "ANY 2")))]
"""Who commits wait for; the level is a parameter of its own."""

SPARE_CONNECTIONS = 10  # for the sampler, replication and a reader


class OnServers(Parameters):
    """Which run to read, or which servers to drive."""

    experiment: ClassVar[str]
    """The name of the experiment that these are parameters of."""

    run_id: str = param("", "a recorded run to read; empty: drive a new one")
    provider: ProviderName = param("embedded", "where the servers come from")
    cluster: str = param("lab", "name of the cluster; it is found again if it exists")

    def needs(self) -> Mapping[type, str]:
        """The powers that are asked of the provider, each with a parameter and its value that ask for it."""
        return {}

    def conflicts(self) -> list[str]:
        return lacking(self.provider, self.needs())


class OnACluster(OnServers):
    """On a cluster that may be there already, and may stay."""

    replicas: int = param(2, "streaming replicas beside the primary", low=0, high=8)
    keep_cluster: bool = param(False, "leave a cluster that this run started running afterwards")


class ReadingUsers(OnACluster):
    """Read load on the users table."""

    users: int = param(1_000_000, "rows of the users table", low=100, high=100_000_000)
    locale: Locale = param("en_US", "language of the names")
    seed: int = param(20230604, "seed of the dataset and of every random choice", low=0, high=2**31 - 1)
    connections: int = param(32, "database connections to each node that serves reads", low=1, high=1000)
    timeout_s: float = param(30.0, "deadline of one request, waiting for a connection included", low=0.1, high=600)
    warmup_s: float = param(1.0, "seconds at the start of every block that are not counted", low=0, high=600)
    sample_interval_s: float = param(1.0, "seconds between two samples of servers and host", low=0.1, high=60)

    def conflicts(self) -> list[str]:
        return super().conflicts() + self._too_many_connections()

    def _too_many_connections(self) -> list[str]:
        allowed = max_connections()
        asked = self.connections + SPARE_CONNECTIONS
        # What others own is asked of their servers, and a recorded run needs none.
        if self.run_id or not DECLARED[self.provider].owns or asked <= allowed:
            return []
        return [
            f"connections: {self.connections} to a node and {SPARE_CONNECTIONS} to spare need max_connections of at "
            f"least {asked}; {paths.configs() / 'postgresql'} sets {allowed}, in both primary/ and replica/"
        ]


class OneWorkload(ReadingUsers):
    """Read load of one kind."""

    workload: WorkloadName = param("get-user", "what a request asks for")
    warmup_s: float = param(0.5, "seconds at the start of every block that are not counted", low=0, high=600)


def too_few_replicas(replicas: int, arms: Iterable[Arm]) -> list[str]:
    """Arms that need more replicas than there are."""
    return [
        f"replicas: 0 leaves the arm {arm} without a server; name another arm or add replicas"
        if not replicas
        else f"arms: {arm} needs {arm.least_replicas} replicas, replicas is {replicas}"
        for arm in arms
        if arm.least_replicas > replicas
    ]


def too_many_processes(processes: int, **shared: int) -> list[str]:
    """`shared`: what the load generators share out among themselves, by parameter; 0 is not asked for."""
    return [
        f"processes: {processes} load generators cannot share {name}: {limit}; use at most {limit}"
        for name, limit in shared.items()
        if 0 < limit < processes
    ]


def impossible_modes(name: str, modes: Iterable[Replication], replicas: int) -> list[str]:
    """Modes that wait for more replicas than there are; `name` is the parameter."""
    found = []
    for mode in modes:
        try:
            mode.check(replicas)
        except BadInput as error:
            found += [f"{name}: {problem}" for problem in error.problems]
    return found


def powers_for(name: str, faults: Sequence[Fault]) -> dict[type, str]:
    """What faults need of the provider; `name` is the parameter. The first fault speaks for others like it."""
    return {NEEDS.get(fault.does, Owned): f"{name}: {fault}" for fault in reversed(faults)}


def max_connections() -> int:
    """What the lab's own servers are configured to allow. Raises BadInput if the setting is gone."""
    file = paths.configs() / "postgresql" / "primary" / "postgresql.conf"
    found = re.search(r"^max_connections\s*=\s*(\d+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        helps = advice("write `max_connections = 300` there and for replicas")
        raise BadInput(f"{file} does not set max_connections", remedy=helps)
    return int(found[1])
