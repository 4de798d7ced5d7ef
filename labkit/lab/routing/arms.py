"""Arms, as values: which nodes serve reads, and over how many connections. Imports no server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labkit import names


@dataclass(frozen=True)
class Arm:
    """Which nodes serve reads, in turn: the primary or not, and so many replicas; `all` of them, however many.

    An arm has as many connections in all as are asked for, shared out between its nodes. With `more_connections` it has
    as many for each replica of the cluster: what pools of one size, one to each replica, add up to.
    """

    name: str
    primary: bool
    replicas: int | Literal["all"]
    more_connections: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def least_replicas(self) -> int:
        """How many replicas there must be. All of them, beside the primary, may be none."""
        if self.more_connections:
            return 2  # as many for a single replica are no more
        if self.replicas == "all":
            return 0 if self.primary else 1
        return self.replicas

    def nodes(self, replicas: int) -> int:
        """How many nodes serve, of a cluster with so many replicas."""
        return self.primary + (replicas if self.replicas == "all" else self.replicas)

    def connections(self, asked: int, replicas: int) -> int:
        """All its connections, of `asked` and a cluster with so many replicas."""
        return asked * replicas if self.more_connections else asked


PRIMARY_ONLY = Arm(names.PRIMARY_ONLY, primary=True, replicas=0)
REPLICAS = Arm(names.REPLICAS, primary=False, replicas="all")
PRIMARY_ONLY_MORE = Arm(names.PRIMARY_ONLY_MORE, primary=True, replicas=0, more_connections=True)
REPLICAS_MORE = Arm(names.REPLICAS_MORE, primary=False, replicas="all", more_connections=True)
ALL_NODES = Arm(names.ALL_NODES, primary=True, replicas="all")


def some_replicas(count: int) -> Arm:
    """The first so many replicas."""
    return Arm(names.some_replicas(count), primary=False, replicas=count)
