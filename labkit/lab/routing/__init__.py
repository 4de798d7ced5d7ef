"""Which node an operation goes to."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from labkit.errors import BadInput

if TYPE_CHECKING:
    from labkit.lab.cluster.cluster import Cluster
    from labkit.lab.cluster.node import Node

Pick = Callable[[], int]
"""Gives the index of the node that serves the next operation."""


def nodes_for(arm: str, cluster: Cluster) -> list[Node]:
    """The nodes that serve reads in an arm, as their roles are at this moment. Raises BadInput."""
    if arm == "primary-only":
        return [cluster.primary()]
    if arm == "replicas-round-robin":
        replicas = cluster.replicas()
        if not replicas:
            raise BadInput(f"arm {arm}: cluster {cluster.name} has no replica; `labkit up --replicas 2` adds them")
        return replicas
    if arm == "all-nodes-round-robin":
        return [cluster.primary(), *cluster.replicas()]
    if found := re.fullmatch(r"replicas-round-robin-(\d+)", arm):
        replicas, wanted = cluster.replicas(), int(found[1])
        if len(replicas) < wanted:
            raise BadInput(f"arm {arm}: cluster {cluster.name} has {len(replicas)} replicas that answer")
        return replicas[:wanted]
    raise BadInput(f"unknown arm {arm!r}")


def round_robin(nodes: Sequence[object]) -> Pick:
    """Each node in turn. Without a lock: one event loop asks, so there is nothing to protect."""
    return itertools.cycle(range(len(nodes))).__next__
