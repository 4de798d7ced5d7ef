"""Which node an operation goes to."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from labkit.errors import BadInput
from labkit.lab.routing.arms import Arm

if TYPE_CHECKING:
    from labkit.lab.cluster.cluster import Cluster
    from labkit.lab.cluster.node import Node

Pick = Callable[[], int]
"""Gives the index of the node that serves the next operation."""


def nodes_for(arm: Arm, cluster: Cluster) -> list[Node]:
    """The nodes that serve reads in an arm, as their roles are at this moment. Raises BadInput."""
    replicas = cluster.replicas() if arm.replicas else []
    if not replicas and arm.least_replicas:
        helps = cluster.remedy("up", "adds them", replicas=arm.least_replicas)
        raise BadInput(f"arm {arm}: cluster {cluster.name} has no replica", remedy=helps)
    if len(replicas) < arm.least_replicas:
        raise BadInput(f"arm {arm}: cluster {cluster.name} has {len(replicas)} replicas that answer")
    chosen = replicas if arm.replicas == "all" else replicas[: arm.replicas]
    return [*([cluster.primary()] if arm.primary else []), *chosen]


def round_robin(nodes: Sequence[object]) -> Pick:
    """Each node in turn. Without a lock: one event loop asks, so there is nothing to protect."""
    return itertools.cycle(range(len(nodes))).__next__
