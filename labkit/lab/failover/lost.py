"""The primary that failed: which node it is, and whether a failover from it may begin, go on, or is not needed."""

from __future__ import annotations

from labkit.errors import ClusterError
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node, role_or_none
from labkit.remedies import Remedy, advice


def find(cluster: Cluster) -> Node:
    """The one node that does not answer. Raises ClusterError if the cluster has a primary, or it cannot be told."""
    roles = cluster.roles()
    primaries = [node for node, role in roles.items() if role == "primary"]
    silent = [node for node, role in roles.items() if role is None]
    if primaries:
        others = f"{', '.join(silent)} does not answer" if silent else "every node answers"
        detached = cluster.detached_replicas()
        helps = [remedy for each in detached.values() for remedy in each.remedies]
        if starting := [name for name in silent if name not in detached]:
            helps.append(cluster.remedy("up", f"starts {', '.join(starting)}"))
        raise ClusterError(
            f"{', '.join(primaries)} is primary: there is nothing to fail over ({others})",
            remedy=[*helps, Remedy("again", "names the old primary, if this one was promoted by hand", old="NODE")],
        )
    if len(silent) != 1:
        said = ", ".join(f"{node} {role or 'does not answer'}" for node, role in roles.items())
        helps = [Remedy("again", "names it", old="NODE")]
        raise ClusterError(f"it cannot be told which node was the primary ({said})", remedy=helps)
    return cluster.node(silent[0])


def check(old: Node, *, fenced: bool) -> None:
    """Raises ClusterError if `old` answers: a failover would kill it. One that is `fenced` may run, as a replica."""
    role = role_or_none(old) if old.control.running() else None
    if role == "primary":
        helps = advice("stop it first, or it would be killed")
        raise ClusterError("it answers as the primary", node=old.name, remedy=helps)
    if role == "replica" and not fenced:
        helps = advice("name the node that was the primary")
        raise ClusterError("it is a replica, and answers", node=old.name, remedy=helps)


def serves_again(cluster: Cluster, old: Node) -> bool:
    """Whether it is the only primary, so that the replicas of before can follow it as if nothing had happened."""
    roles = cluster.roles()
    return roles[old.name] == "primary" and list(roles.values()).count("primary") == 1
