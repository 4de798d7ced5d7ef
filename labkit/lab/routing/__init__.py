"""Which nodes serve a load, over how many connections, and which of them an operation goes to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.errors import BadInput
from labkit.lab.load.arrivals import share
from labkit.lab.routing.arms import Arm
from labkit.remedies import advice
from labkit.units import count

if TYPE_CHECKING:
    from labkit.lab.cluster.cluster import Cluster
    from labkit.lab.cluster.node import Node

Pick = Callable[[], int]
"""Gives the index of the node that serves the next operation."""


@dataclass(frozen=True)
class Serving:
    """The nodes that serve a load, in turn, and how many connections they have in all."""

    nodes: Sequence[Node]
    connections: int

    @property
    def by_node(self) -> list[tuple[Node, int]]:
        """Each node, and how many of the connections it has."""
        return [(node, share(self.connections, i, len(self.nodes))) for i, node in enumerate(self.nodes)]


def serving(arm: Arm, cluster: Cluster, connections: int) -> Serving:
    """Who serves in an arm where so many connections are asked for, as roles are at this moment. Raises BadInput."""
    replicas = len(cluster.replicas()) if arm.more_connections else 0
    return Serving(nodes_for(arm, cluster), arm.connections(connections, replicas))


def nodes_for(arm: Arm, cluster: Cluster) -> list[Node]:
    """The nodes that serve reads in an arm, as their roles are at this moment. Raises BadInput."""
    replicas = cluster.replicas() if arm.replicas or arm.more_connections else []
    if not replicas and arm.least_replicas:
        helps = cluster.remedy("up", "adds them", replicas=arm.least_replicas)
        raise BadInput(f"arm {arm}: cluster {cluster.name} has no replica", remedy=helps)
    if len(replicas) < arm.least_replicas:
        raise BadInput(
            f"arm {arm} needs {count(arm.least_replicas, 'replica')}, of cluster {cluster.name} {len(replicas)} answer",
            remedy=advice("name other arms"),
        )
    chosen = replicas if arm.replicas == "all" else replicas[: arm.replicas]
    return [*([cluster.primary()] if arm.primary else []), *chosen]


def round_robin(nodes: Sequence[object]) -> Pick:
    """Each node in turn. Without a lock: one event loop asks, so there is nothing to protect."""
    return itertools.cycle(range(len(nodes))).__next__
