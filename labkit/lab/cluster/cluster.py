"""Cluster: the nodes there are, which of them is primary, and what holds of all of them."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labkit.errors import ClusterError, WaitTimeout
from labkit.lab.cluster import sql, synchronize
from labkit.lab.cluster.node import Node, replay_is_paused, role_or_none, why_detached
from labkit.lab.cluster.sql import Connection, Role, resume_replay
from labkit.lab.cluster.waiting import wait_until
from labkit.lsn import lsn_text
from labkit.remedies import Argument, Remedy, Verb, advice
from labkit.replication import Level, Mode, Replication

if TYPE_CHECKING:
    from labkit.lab.providers.declared import ProviderName


@dataclass(frozen=True)
class ReplicaLag:
    """How far a replica's replay is behind the primary; None where it is unknown.

    lag_s is the primary's replay_lag; it is 0 for a replica that has replayed everything. A replica that is not
    connected to the primary has state `disconnected`.
    """

    name: str
    lag_bytes: int | None
    lag_s: float | None
    state: str
    sync_state: str | None


class Cluster:
    """Nodes in order, pg1 first. `binaries` and `version` say what they run."""

    def __init__(self, name: str, provider: ProviderName, nodes: list[Node], *, binaries: str, version: str) -> None:
        self.name, self.provider, self.nodes = name, provider, nodes
        self.binaries, self.version = binaries, version

    @property
    def when_stopped(self) -> ClusterError:
        """What there is to say of it when none of its servers runs; not raised."""
        return ClusterError("stopped", remedy=self.remedy("up", "starts it"))

    def remedy(self, verb: Verb, effect: str = "", **arguments: Argument) -> Remedy:
        """Something that labkit can do with this cluster."""
        return Remedy(verb, effect, **arguments, name=self.name, provider=self.provider)

    def check_owned(self, verb: str) -> None:
        """Raises ClusterError if labkit may not change the roles of these servers; `verb` is what was asked for."""

    def __repr__(self) -> str:
        return f"Cluster({self.name!r}, {self.provider!r}, {self.nodes!r})"

    def node(self, name: str) -> Node:
        """The node of that name. Raises ClusterError naming those there are."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise ClusterError(f"cluster {self.name} has no node {name}; there are {', '.join(n.name for n in self.nodes)}")

    def without(self, name: str) -> Cluster:
        """The same cluster, one node left out."""
        others = [node for node in self.nodes if node.name != name]
        return Cluster(self.name, self.provider, others, binaries=self.binaries, version=self.version)

    def source_for(self, name: str) -> Node:
        """The primary that a node's data can be copied from. Raises ClusterError if no other node is one."""
        target, others = self.node(name), self.without(name)
        primaries = [node for node, role in others.roles().items() if role == "primary"]
        if not primaries:
            is_it = "it is the primary itself" if role_or_none(target) == "primary" else "no other node is primary"
            helps = advice("promote another node first")
            raise ClusterError(f"it cannot become a replica: {is_it}", node=name, remedy=helps)
        return self.node(primaries[0]) if len(primaries) == 1 else others.primary()

    def roles(self) -> dict[str, Role | None]:
        """Node name -> role as the server says; None if it does not answer."""
        return {node.name: role_or_none(node) for node in self.nodes}

    def primary(self) -> Node:
        """The one node that is not in recovery. Raises ClusterError if there is none, or more than one."""
        roles = self.roles()
        primaries = [node for node in self.nodes if roles[node.name] == "primary"]
        if len(primaries) == 1:
            return primaries[0]
        said = ", ".join(f"{name} {role or 'does not answer'}" for name, role in roles.items())
        if not primaries:
            old = {"old": "NODE"} if list(roles.values()).count(None) > 1 else {}
            helps = [self.remedy("up", "starts what is stopped")] if None in roles.values() else []
            helps.append(self.remedy("failover", "promotes a replica", **old))
            raise ClusterError(f"cluster {self.name} has no primary ({said})", remedy=helps)
        raise ClusterError(
            f"cluster {self.name} has more than one primary ({said}): the old one came back after a failover",
            remedy=self.remedy("rejoin", "makes NODE, the old one, a replica", node="NODE"),
        )

    def replicas(self) -> list[Node]:
        """The nodes that answer and are in recovery, in order."""
        roles = self.roles()
        return [node for node in self.nodes if roles[node.name] == "replica"]

    def replication(self) -> list[dict[str, Any]]:
        """The primary's pg_stat_replication, one plain dict per connected replica. Raises ClusterError."""
        with self.primary().session() as connection:
            return sql.replication(connection)

    def lag(self) -> list[ReplicaLag]:
        """How far every other node's replay is behind the primary, in node order. Raises ClusterError."""
        primary = self.primary()
        with primary.session() as connection:
            connected = {row["application_name"]: row for row in sql.replication(connection)}
        found = []
        for node in self.nodes:
            row = connected.get(node.application_name)
            if node is primary:
                continue
            if row is None:
                found.append(ReplicaLag(node.name, None, None, "disconnected", None))
                continue
            lag_bytes, lag_s = row["replay_lag_bytes"], row["replay_lag_s"]
            if lag_s is None and lag_bytes is not None and lag_bytes <= 0:
                lag_s = 0.0  # the primary forgets replay_lag of a replica that idles, caught up
            found.append(ReplicaLag(node.name, lag_bytes, lag_s, row["state"], row["sync_state"]))
        return found

    def synchronous(
        self, mode: Mode = "ANY", k: int = 1, level: Level = "on", deadline_s: float = 15.0
    ) -> dict[str, str]:
        """Have commits wait for `FIRST k` or `ANY k` replicas, or for none (`off`); `level` is synchronous_commit.

        Applied by reload, on every node that runs. Returns replica -> sync_state as the primary shows it. Raises
        BadInput (k greater than the replicas that run), ClusterError, WaitTimeout if the primary does not act on it in
        time; what was set before is then set again.
        """
        return synchronize.apply(self.nodes, self.primary(), Replication(mode, k, level), deadline_s)

    def wait_streaming(self, deadline_s: float = 60.0) -> None:
        """Until every other node streams from the primary. Raises WaitTimeout; ClusterError if one follows none."""
        primary = self.primary()
        with primary.session() as connection:
            for node in [other for other in self.nodes if other is not primary]:

                def streams(name: str | None = node.application_name) -> bool:
                    rows = sql.replication(connection)
                    return any(row["application_name"] == name and row["state"] == "streaming" for row in rows)

                what = f"streaming from {primary.name}"
                soon_s = min(deadline_s, 2.0)  # within this a server acts on a setting that it was told to reload
                with contextlib.suppress(WaitTimeout):
                    wait_until(streams, soon_s, what, node)
                    continue
                if detached := self.detached_replicas().get(node.name):
                    raise detached
                try:
                    wait_until(streams, deadline_s - soon_s, what, node)
                except WaitTimeout as error:
                    if node.control.running() and replay_is_paused(node):
                        error.reason += ": its WAL replay is paused"
                        error.remedies = (resume_replay("lets it follow a new primary"), *error.remedies)
                    raise

    def detached_replicas(self) -> dict[str, ClusterError]:
        """Nodes that do not follow the primary, or would not if `up` started them, as a failover leaves an old one.

        Node -> what is wrong and what helps, an error that is not raised. Empty without one primary to be followed.
        """
        roles = self.roles()
        if list(roles.values()).count("primary") != 1:
            return {}
        others = [node for node in self.nodes if roles[node.name] != "primary"]
        reasons = {node.name: why_detached(node, others) for node in others}
        return {
            name: ClusterError(reason, node=name, remedy=self.remedy("rejoin", "makes it a replica", node=name))
            for name, reason in reasons.items()
            if reason
        }

    def wait_for_catchup(self, deadline_s: float = 60.0) -> None:
        """Until every replica has replayed all that is committed on the primary now. Raises WaitTimeout."""
        with self.primary().session() as connection:
            target = sql.flush_wal(connection)
        give_up = time.monotonic() + deadline_s
        for node in self.replicas():
            with node.session() as connection:

                def caught_up(connection: Connection = connection) -> bool:
                    return (sql.wal_position(connection).replayed or 0) >= target

                left_s = max(0.0, give_up - time.monotonic())
                wait_until(caught_up, left_s, f"replay up to {lsn_text(target)}", node)
