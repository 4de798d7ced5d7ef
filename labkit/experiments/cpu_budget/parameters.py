"""Parameters of cpu-budget."""

from __future__ import annotations

import dataclasses

from labkit.experiments.parameters import as_list, param
from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.experiments.shared import (
    PROVIDERS,
    WORKLOADS,
)

MOST_REPLICAS = 8


BUDGET_ARMS = (
    "primary-only",
    *(f"replicas-round-robin-{count}" for count in range(1, MOST_REPLICAS)),
    "replicas-round-robin",
    "all-nodes-round-robin",
)


@dataclasses.dataclass(frozen=True)
class CpuBudget(ReadScaling):
    """Read load on 1 … all nodes, with the machine's CPU shared by all of them and with a budget of each node's own."""

    experiment = "cpu-budget"

    provider: str = param("docker", "where the servers come from; CPU limits need docker", choices=PROVIDERS)
    users: int = param(100_000, "rows of the users table", low=100, high=100_000_000)
    workloads: str = param("get-user", "which loads to run", choices=WORKLOADS, many=True)
    arms: str = param(
        "primary-only,replicas-round-robin-1,replicas-round-robin,all-nodes-round-robin",
        "where reads go; replicas-round-robin-1 is one replica alone",
        choices=BUDGET_ARMS,
        many=True,
    )
    connections: int = param(30, "database connections in all, shared out among the nodes of an arm", low=1, high=1000)
    budgets: str = param(
        "shared,limited", "CPU shared by all nodes, or limited for each", choices=("shared", "limited"), many=True
    )
    node_cpus: float = param(0.25, "CPUs that each node may use under the budget `limited`", low=0.01, high=64)

    def conflicts(self) -> list[str]:
        found = super().conflicts()
        if "limited" in as_list(self.budgets) and self.provider != "docker":
            found.append(f"budgets: limited needs provider docker; {self.provider} cannot limit a server's CPU")
        counts = [int(arm.rsplit("-", 1)[1]) for arm in as_list(self.arms) if arm[-1].isdigit()]
        found += [
            f"arms: replicas-round-robin-{count} needs {count} replicas, replicas is {self.replicas}"
            for count in counts
            if count > self.replicas
        ]
        if self.connections < self.replicas + 1:
            found.append(
                f"connections: {self.connections} in all are less than one for each of {self.replicas + 1} nodes"
            )
        return found
