"""Parameters that several experiments have, and what they may be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from labkit import paths
from labkit.checkers import comparisons
from labkit.errors import BadInput
from labkit.experiments.parameters import Parameters, param
from labkit.experiments.values import one_of
from labkit.lab.dataset.locales import Locale
from labkit.lab.failover.fault import FAULTS, NEEDS, Fault
from labkit.lab.providers import names
from labkit.lab.providers.declared import DECLARED, Owned, ProviderName, lacking
from labkit.lab.routing.arms import PRIMARY_ONLY, PRIMARY_ONLY_MORE, REPLICAS, REPLICAS_MORE, Arm
from labkit.names import GET_USER, ReadWorkload
from labkit.remedies import advice
from labkit.replication import ASYNC, Replication
from labkit.units import count

ReadArm = Annotated[Arm, one_of(PRIMARY_ONLY, REPLICAS, PRIMARY_ONLY_MORE, REPLICAS_MORE)]
Users = Annotated[int, Field(ge=1)]
AnyFault = Annotated[Fault, one_of(*FAULTS)]
Mode = Annotated[Replication, one_of(*map(Replication.parse, (ASYNC, "FIRST 1", "ANY 1", "ANY 2")))]
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
        named = [f"cluster: {problem}" for problem in names.problems(self.cluster)]
        return named + lacking(self.provider, self.needs())


class OnACluster(OnServers):
    """On a cluster that may be there already, and may stay."""

    replicas: int = param(2, "streaming replicas beside the primary", low=0, high=8)
    keep_cluster: bool = param(False, "leave a cluster that this run started running afterwards")


class ReadingUsers(OnACluster):
    """Read load on the users table."""

    users: int = param(1_000_000, "rows of the users table", low=100, high=100_000_000)
    locale: Locale = param("en_US", "language of the names")
    seed: int = param(20230604, "seed of the dataset and of every random choice", low=0, high=2**31 - 1)
    connections: int = param(
        32, "database connections of an arm in all, shared out between its nodes", low=1, high=1000
    )
    timeout_s: float = param(30.0, "deadline of one request, waiting for a connection included", low=0.1, high=600)
    warmup_s: float = param(1.0, "seconds at the start of every block that are not counted", low=0, high=600)
    sample_interval_s: float = param(1.0, "seconds between two samples of servers and host", low=0.1, high=60)

    @property
    def measured(self) -> tuple[Arm, ...]:
        """The arms that are measured."""
        return (PRIMARY_ONLY,)

    @property
    def generators(self) -> int:
        """How many load generators share out each load, and its connections."""
        return 1

    def conflicts(self) -> list[str]:
        found = super().conflicts() + too_few_replicas(self.replicas, self.measured) + self._confounded()
        # A recorded run needs no connection.
        return found if self.run_id else found + self._impossible_connections()

    def _confounded(self) -> list[str]:
        """Arms that could only be compared with one that differs from them in several things."""
        names = {
            arm: ["primary"] * arm.primary + ["replica"] * (arm.nodes(self.replicas) - arm.primary)
            for arm in self.measured
        }
        sides: comparisons.Sides = {
            str(arm): {
                0: {
                    comparisons.NODES: ", ".join(names[arm]),
                    comparisons.CONNECTIONS: arm.connections(self.connections, self.replicas),
                }
            }
            for arm in self.measured
        }
        return [
            f"arms: {each.arm} differs from {each.against} in {len(each.differs)} things ({each.in_words}), "
            "so a difference could not be laid to one of them; name an arm between them too"
            for each in comparisons.of_reads(sides)
            if len(each.differs) > 1
        ]

    def _impossible_connections(self) -> list[str]:
        shared_out = {
            arm: (arm.connections(self.connections, self.replicas), arm.nodes(self.replicas))
            for arm in self.measured
            if arm.nodes(self.replicas) and arm.connections(1, self.replicas)  # others lack replicas first of all
        }
        found = too_few_connections(self.connections, shared_out, self.generators)
        to_a_node = {arm: math.ceil(total / nodes) for arm, (total, nodes) in shared_out.items()}
        if not to_a_node or not DECLARED[self.provider].owns:  # what others own is asked of their servers
            return found
        arm, allowed = max(to_a_node, key=to_a_node.__getitem__), max_connections()
        asked = to_a_node[arm] + SPARE_CONNECTIONS
        if asked > allowed:
            found.append(
                f"connections: {self.connections} are {to_a_node[arm]} to a node in {arm}; these and "
                f"{SPARE_CONNECTIONS} to spare need max_connections of at least {asked}; "
                f"{paths.configs() / 'postgresql'} sets {allowed}, in both primary/ and replica/"
            )
        return found


class InRounds(ReadingUsers):
    """Read load on arms in rounds that are compared."""

    repeat_disturbed: int = param(
        2, "rounds of a load that are measured again at most, because other programs disturbed them", low=0, high=100
    )
    interventions_s: float = param(
        20.0,
        "seconds of short rounds that show what the limit was, some 10 s for a load on an arm; 0: none",
        low=0,
        high=3600,
    )


class OneWorkload(ReadingUsers):
    """Read load of one kind."""

    workload: ReadWorkload = param(GET_USER, "what a request asks for")
    warmup_s: float = param(0.5, "seconds at the start of every block that are not counted", low=0, high=600)


def too_few_replicas(replicas: int, arms: Iterable[Arm]) -> list[str]:
    """Arms that need more replicas than there are."""
    return [
        f"replicas: 0 leaves the arm {arm} without a server; name another arm or add replicas"
        if not replicas and not arm.primary
        else f"arms: {arm} needs {count(arm.least_replicas, 'replica')}, replicas is {replicas}"
        for arm in arms
        if arm.least_replicas > replicas
    ]


def too_few_connections(asked: int, shared_out: Mapping[Arm, tuple[int, int]], generators: int) -> list[str]:
    """The arm that lacks most: every load generator needs a connection to each node, or what it asks there would wait.

    `asked`: the parameter. `shared_out`: of each arm the connections in all, and the nodes.
    """
    lacking = [(nodes * generators, arm) for arm, (total, nodes) in shared_out.items() if total < nodes * generators]
    if not lacking:
        return []
    needed, arm = max(lacking, key=lambda found: found[0])
    each = "one to each node" if generators == 1 else f"one to each node for each of {generators} processes"
    least = math.ceil(needed * asked / shared_out[arm][0])
    return [f"connections: {asked} do not give {arm} {each}; use at least {least}"]


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
