"""Servers as plain processes on this machine: no Docker, no root, nothing to install.

State on disk (state.py) says what there should be; the processes themselves say what runs. Servers outlive the
process that started them, and another one finds them again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence

from labkit import paths
from labkit.errors import ClusterError, WaitTimeout
from labkit.lab.cluster import sql
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import USERS, Node
from labkit.lab.cluster.powers import StopMode
from labkit.lab.providers import checks
from labkit.lab.providers.declared import EMBEDDED
from labkit.lab.providers.embedded import account, binaries, creation, state
from labkit.lab.providers.embedded.server import EmbeddedServer
from labkit.lab.providers.embedded.state import ClusterState, NodeState
from labkit.lab.providers.protocol import ClusterSpec
from labkit.remedies import Remedy, advice, setting
from labkit.units import count

READY_DEADLINE_S = 60.0
# Loopback needs no encryption, and asking a server about TLS and GSSAPI first costs two round trips per connection.
CONNECTION_OPTIONS = {"sslmode": "disable", "gssencmode": "disable"}


class EmbeddedProvider:
    """Brings clusters up below data/clusters/ with the binaries that binaries.py finds."""

    declared = EMBEDDED
    name = EMBEDDED.name
    lock_deadline_s = 120.0
    """How long `up` and `down` wait for another process that works on the same cluster."""

    def up(self, spec: ClusterSpec) -> Cluster:
        """Bring the cluster up, or find it running and add what is missing; idempotent.

        Raises BadInput, ProviderUnavailable or ClusterError. A new cluster that fails on the way is removed again;
        of an existing one whatever runs keeps running.
        """
        checks.check_spec(spec)
        with checks.alone_on(paths.clusters(), spec.name, self.lock_deadline_s):
            recorded = state.read(paths.clusters(), spec.name)
            if recorded is not None and recorded.phase == "creating":
                self._remove(recorded)
                recorded = None
            return self._create(spec) if recorded is None else self._resume(recorded, spec)

    def find(self, name: str) -> Cluster | None:
        """The cluster as it stands, running or not; None if there is none, or it was cut off while being made."""
        checks.check_spec(ClusterSpec(name))
        recorded = state.read(paths.clusters(), name)
        if recorded is None or recorded.phase == "creating":
            return None
        return self._cluster(recorded, [node for node in recorded.nodes if node.ready])

    def names(self) -> list[str]:
        """The clusters there are, in alphabetical order."""
        return sorted(file.parent.name for file in paths.clusters().glob("*/cluster.json"))

    def down(self, name: str, *, purge: bool = False) -> None:
        """Stop every server; with `purge` delete their data too. No error if there is nothing."""
        checks.check_spec(ClusterSpec(name))
        with checks.alone_on(paths.clusters(), name, self.lock_deadline_s):
            try:
                recorded = state.read(paths.clusters(), name)
            except ClusterError:
                if not purge:
                    raise
                self._remove_unrecorded(name)
                return
            if recorded is None:
                if purge:
                    self._remove_unrecorded(name)
                return
            if purge or recorded.phase == "creating":
                # From here on it is not whole: if this is cut off, the next up or down goes on with it.
                recorded.phase = "creating"
                state.write(paths.clusters(), recorded)
                self._stop(recorded, "immediate")  # what a clean shutdown would write is deleted next
                self._remove(recorded)
            else:
                self._stop(recorded)

    # --- replicas -------------------------------------------------------------------------------------------------

    def rebuild(self, name: str, node: str) -> None:
        """Replace a node's data, whatever it was, by a copy of the current primary's; the node is a replica then.

        Raises ClusterError if the node is the only primary, or there is none to copy.
        """
        with checks.alone_on(paths.clusters(), name, self.lock_deadline_s):
            recorded = self._recorded(name)
            cluster = self._cluster(recorded, recorded.nodes)
            target = cluster.node(node)
            primary = cluster.source_for(node)
            user = account.choose()
            chosen = account.reachable(binaries.find(), user)
            known = _server(target).state
            _server(target).stop("immediate")
            known.ready = False
            state.write(paths.clusters(), recorded)
            creation.remove(known.folder)
            pair = self._cluster(recorded, [_server(primary).state, known])
            self._add_replicas(recorded, pair, [known], chosen, user)
            state.write(paths.clusters(), recorded)

    def remove_replicas(self, name: str) -> list[str]:
        """Remove every node that is not the primary, with its data and its slot; returns their names."""
        with checks.alone_on(paths.clusters(), name, self.lock_deadline_s):
            recorded = self._recorded(name)
            cluster = self._cluster(recorded, recorded.nodes)
            primary = cluster.primary()
            gone = [node for node in recorded.nodes if node.name != primary.name]
            for node in gone:
                node.ready = False
            state.write(paths.clusters(), recorded)
            for node in gone:
                creation.remove(node.folder)
            with primary.session() as connection:
                for node in gone:
                    sql.drop_slot(connection, node.name)
            recorded.nodes = [_server(primary).state]
            state.write(paths.clusters(), recorded)
            return [node.name for node in gone]

    def _recorded(self, name: str) -> ClusterState:
        recorded = state.read(paths.clusters(), name)
        if recorded is None or recorded.phase == "creating":
            raise ClusterError(f"there is no cluster {name}", remedy=Remedy("up", "makes one", name=name))
        return recorded

    # --- making ---------------------------------------------------------------------------------------------------

    def _create(self, spec: ClusterSpec) -> Cluster:
        user = account.choose()
        chosen = account.reachable(binaries.find(), user)
        ports = checks.free_ports(len(spec.node_names), spec.base_port, spec.node_names)
        clusters = paths.clusters()
        servers = account.server_folder(state.folder(clusters, spec.name) / "servers", user)
        made = ClusterState(
            name=spec.name,
            phase="creating",
            servers=servers,
            binaries=chosen.folder,
            version=chosen.version,
            base_port=spec.base_port,
            settings={key: str(value) for key, value in spec.settings.items()},
            nodes=[NodeState(name, port, servers / name) for name, port in zip(spec.node_names, ports, strict=True)],
        )
        try:
            checks.check_disk(servers, checks.NODE_BYTES * len(made.nodes), count(len(made.nodes), "server"))
            state.write(clusters, made)
            creation.remove(servers)  # of a cluster whose record was lost
            passwords = state.make_passwords(clusters, spec.name, list(USERS.values()))
            first = made.nodes[0]
            creation.initdb(first, chosen, user, USERS["admin"], passwords[USERS["admin"]])
            cluster = self._cluster(made, made.nodes)
            primary = cluster.node(first.name)
            primary.control.start()
            self._create_database(primary, passwords)
            self._add_replicas(made, cluster, made.nodes[1:], chosen, user)
            made.phase = "created"
            state.write(clusters, made)
        except BaseException:
            self._remove(made)
            raise
        return cluster

    def _create_database(self, node: Node, passwords: dict[str, str]) -> None:
        node.wait_ready(READY_DEADLINE_S, database="postgres")
        with node.session(dbname="postgres") as connection:
            sql.create_roles(connection, "labkit", passwords)
        with node.session() as connection:
            sql.grant_rows(connection)

    def _add_replicas(
        self,
        recorded: ClusterState,
        cluster: Cluster,
        nodes: Sequence[NodeState],
        chosen: binaries.Binaries,
        user: account.Account,
    ) -> None:
        """Copy the primary into `nodes`, start them, and wait until every one streams."""
        primary = cluster.primary()
        if nodes:
            with primary.session() as connection:
                for node in nodes:
                    sql.drop_slot(connection, node.name)
            password = state.read_passwords(paths.clusters(), recorded.name)[USERS["replication"]]
            creation.base_backup(nodes, primary.port, USERS["replication"], password, chosen, user)
            for node in nodes:
                cluster.node(node.name).control.start()
        for node in nodes:
            cluster.node(node.name).wait_ready(READY_DEADLINE_S)
        cluster.wait_streaming(READY_DEADLINE_S)
        for node in recorded.nodes:
            node.ready = node.ready or node in nodes or node.name == primary.name

    # --- finding again --------------------------------------------------------------------------------------------

    def _resume(self, recorded: ClusterState, spec: ClusterSpec) -> Cluster:
        user = account.choose()
        chosen = account.reachable(binaries.find(), user)
        clusters = paths.clusters()
        _check_same(recorded, spec, chosen)
        for node in [node for node in recorded.nodes if not node.ready]:
            creation.remove(node.folder)  # cut off while it was being added
            recorded.nodes.remove(node)
        recorded.binaries, recorded.version = chosen.folder, chosen.version
        changed = {key: str(value) for key, value in spec.settings.items()} != recorded.settings
        cluster = self._cluster(recorded, recorded.nodes)
        checks.check_one_primary(cluster, [node.name for node in cluster.nodes if _server(node).is_primary_by_data])
        if changed:
            self._apply_settings(recorded, spec)
            cluster = self._cluster(recorded, recorded.nodes)
        for known in cluster.nodes:
            known.control.start()
        for known in cluster.nodes:
            known.wait_ready(READY_DEADLINE_S)
        missing = [name for name in spec.node_names if name not in {node.name for node in recorded.nodes}]
        if missing:
            taken = [node.port for node in recorded.nodes]
            size = max(_server(node).disk_usage()["data_directory_bytes"] for node in cluster.nodes)
            checks.check_disk(
                recorded.servers, len(missing) * (size + checks.NODE_BYTES), count(len(missing), "more replica")
            )
            if spec.base_port:
                ports = [spec.base_port + spec.node_names.index(name) for name in missing]
                for name, port in zip(missing, ports, strict=True):
                    checks.check_port(name, port)
            else:
                ports = checks.free_ports(len(missing), 0, missing, taken)
            added = [NodeState(name, port, recorded.servers / name) for name, port in zip(missing, ports, strict=True)]
            recorded.nodes = sorted([*recorded.nodes, *added], key=lambda node: node.name)
            state.write(clusters, recorded)
            for node in added:
                creation.remove(node.folder)
            cluster = self._cluster(recorded, recorded.nodes)
            self._add_replicas(recorded, cluster, added, chosen, user)
        else:
            cluster.wait_streaming(READY_DEADLINE_S)
        state.write(clusters, recorded)
        return cluster

    def _apply_settings(self, recorded: ClusterState, spec: ClusterSpec) -> None:
        """Have every node use the experiment's settings; those that need a restart restart the servers.

        Raises ClusterError if the servers would refuse them; the old ones then stay in use.
        """
        before, after = recorded.settings, {key: str(value) for key, value in spec.settings.items()}
        differing = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        cluster = self._cluster(recorded, recorded.nodes)
        checks.check_fixed(cluster, differing)
        recorded.settings = after
        nodes = self._cluster(recorded, recorded.nodes).nodes
        try:
            for node in nodes:
                _server(node).write_settings()
        except ClusterError:
            recorded.settings = before
            for node in self._cluster(recorded, recorded.nodes).nodes:
                _server(node).write_settings()
            raise
        restart = False
        for node in nodes:
            if node.control.running():
                with node.session() as connection:
                    sql.reload(connection)
                    restart = restart or sql.needs_restart(connection, differing)
        state.write(paths.clusters(), recorded)
        if restart:
            self._stop(recorded)

    def _cluster(self, recorded: ClusterState, nodes: Sequence[NodeState]) -> Cluster:
        user = account.choose()
        passwords = state.read_passwords(paths.clusters(), recorded.name)
        for node in nodes:
            if node.folder.exists():  # else it is about to be made, with its password file
                creation.write_passfile(node, user, USERS["replication"], passwords[USERS["replication"]])
        made = [
            Node(
                node.name,
                checks.HOST,
                node.port,
                EmbeddedServer(node, recorded.binaries, user, recorded.settings),
                passwords,
                CONNECTION_OPTIONS,
                passfile=str(node.passfile),
            )
            for node in nodes
        ]
        return Cluster(recorded.name, self.name, made, binaries=str(recorded.binaries), version=recorded.version)

    # --- taking away ----------------------------------------------------------------------------------------------

    def _stop(self, recorded: ClusterState, mode: StopMode = "fast") -> None:
        """Stop every server, primaries first: in mode `fast` they send their last WAL before they end."""
        user = account.choose()
        servers = [EmbeddedServer(node, recorded.binaries, user, recorded.settings) for node in recorded.nodes]
        for server in servers:
            with contextlib.suppress(ClusterError):  # not running
                server.resume()  # a primary waits for a paused replica until wal_sender_timeout
        for server in sorted(servers, key=lambda server: not server.is_primary_by_data):
            try:
                server.stop(mode)
            except WaitTimeout:  # it does not react any more; its WAL recovers what is committed
                server.kill()

    def _remove(self, recorded: ClusterState) -> None:
        creation.remove(recorded.servers)
        shutil.rmtree(state.folder(paths.clusters(), recorded.name), ignore_errors=True)

    def _remove_unrecorded(self, name: str) -> None:
        """Remove a cluster whose record is lost or unreadable from where its files must be."""
        home = state.folder(paths.clusters(), name)
        if home.exists():
            creation.remove(account.server_folder(home / "servers", account.choose()))
            creation.remove(home)


def _server(node: Node) -> EmbeddedServer:
    assert isinstance(node.control, EmbeddedServer)
    return node.control


def _check_same(recorded: ClusterState, spec: ClusterSpec, chosen: binaries.Binaries) -> None:
    """Raises ClusterError if the cluster on disk cannot become what is asked for."""
    recreate = Remedy("recreate", "begins again without its rows", name=recorded.name)
    ready = [node for node in recorded.nodes if node.ready]
    for node in ready:
        try:
            major = (node.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        except OSError as error:
            reason = f"its data directory is gone or damaged ({error})"
            raise ClusterError(reason, node=node.name, remedy=recreate) from error
        if major != str(chosen.major):
            raise ClusterError(
                f"its data directory is of PostgreSQL {major}, the binaries ({chosen.source}) are {chosen.version}",
                node=node.name,
                remedy=[setting("LABKIT_PG_BIN", f"the folder of PostgreSQL {major}'s programs"), recreate],
            )
    if len(ready) > len(spec.node_names):
        raise ClusterError(
            f"cluster {recorded.name} has {count(len(ready) - 1, 'replica')}, asked for are {spec.replicas}",
            remedy=[advice(f"ask for {len(ready) - 1}"), advice("take another name"), recreate],
        )
    if spec.base_port and spec.base_port != recorded.base_port:
        raise ClusterError(
            f"cluster {recorded.name} listens on {', '.join(str(node.port) for node in ready)}, asked for is base port "
            f"{spec.base_port}",
            remedy=[advice("leave it out"), recreate],
        )
