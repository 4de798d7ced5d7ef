"""The primary that failed: which node it is, and whether a failover from it may begin, go on, or is not needed."""

from __future__ import annotations

from labkit.errors import ClusterError
from labkit.lab.cluster.cluster import Cluster, command
from labkit.lab.cluster.node import Node, role_or_none


def find(cluster: Cluster) -> Node:
    """The one node that does not answer. Raises ClusterError if the cluster has a primary, or it cannot be told."""
    roles = cluster.roles()
    primaries = [node for node, role in roles.items() if role == "primary"]
    silent = [node for node, role in roles.items() if role is None]
    if primaries:
        up = command("up", cluster.name, cluster.provider)
        others = f"{', '.join(silent)} does not answer, `{up}` starts it" if silent else "everybody answers"
        raise ClusterError(
            f"{', '.join(primaries)} is primary: there is nothing to fail over ({others}). If it was promoted by hand, "
            "name the old primary with --old"
        )
    if len(silent) != 1:
        said = ", ".join(f"{node} {role or 'does not answer'}" for node, role in roles.items())
        raise ClusterError(f"it cannot be told which node was the primary ({said}); name it with --old")
    return cluster.node(silent[0])


def check(old: Node, *, fenced: bool) -> None:
    """Raises ClusterError if `old` answers: a failover would kill it. One that is `fenced` may run, as a replica."""
    role = role_or_none(old) if old.control.running() else None
    if role == "primary":
        raise ClusterError("it answers as the primary; stop it first, or it would be killed", node=old.name)
    if role == "replica" and not fenced:
        raise ClusterError("it is a replica, and answers; name the node that was the primary", node=old.name)


def serves_again(cluster: Cluster, old: Node) -> bool:
    """Whether it is the only primary, so that the replicas of before can follow it as if nothing had happened."""
    roles = cluster.roles()
    return roles[old.name] == "primary" and list(roles.values()).count("primary") == 1
