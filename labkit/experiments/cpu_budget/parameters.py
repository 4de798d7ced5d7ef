"""Parameters of cpu-budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from labkit.experiments.parameters import param
from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.experiments.values import Several, joined, one_of
from labkit.lab.cluster.powers import Limitable
from labkit.lab.providers.declared import ProviderName
from labkit.lab.routing.arms import ALL_NODES, PRIMARY_ONLY, REPLICAS, Arm, some_replicas
from labkit.names import GET_USER, ReadWorkload

MOST_REPLICAS = 8
BudgetArm = Annotated[Arm, one_of(PRIMARY_ONLY, *map(some_replicas, range(1, MOST_REPLICAS)), REPLICAS, ALL_NODES)]
Budget = Literal["shared", "limited"]


class CpuBudget(ReadScaling):
    """Read load on 1 … all nodes, with the machine's CPU shared by all of them and with a budget of each node's own."""

    experiment = "cpu-budget"

    provider: ProviderName = param("docker", "where the servers come from; CPU limits need docker")
    users: int = param(100_000, "rows of the users table", low=100, high=100_000_000)
    workloads: Several[ReadWorkload] = param(GET_USER, "which loads to run")
    arms: Several[BudgetArm] = param(
        joined((PRIMARY_ONLY, some_replicas(1), REPLICAS, ALL_NODES)),
        f"where reads go; {some_replicas(1)} is one replica alone",
    )
    connections: int = param(
        30, "database connections of an arm in all, shared out between its nodes", low=1, high=1000
    )
    budgets: Several[Budget] = param("shared,limited", "CPU shared by all nodes, or limited for each")
    node_cpus: float = param(0.25, "CPUs that each node may use under the budget `limited`", low=0.01, high=64)

    def conflicts(self) -> list[str]:
        missing = (
            [] if PRIMARY_ONLY in self.arms else [f"arms: {PRIMARY_ONLY} is missing, the others are compared with it"]
        )
        return super().conflicts() + missing

    def needs(self) -> Mapping[type, str]:
        return {Limitable: "budgets: limited"} if "limited" in self.budgets else {}
