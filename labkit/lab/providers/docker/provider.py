"""Servers in containers: docker-compose.yaml brings them up and down, the engine's API does everything else.

What there is, is asked of the engine: containers and volumes carry the cluster's name in their label `labkit`. On disk
there are only the passwords, data/docker/<cluster>/passwords.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence

from labkit.errors import ClusterError
from labkit.lab.cluster import sql
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.providers import checks
from labkit.lab.providers.declared import DOCKER
from labkit.lab.providers.docker import compose_cli, limits, passwords
from labkit.lab.providers.docker.container import PASSFILE, ContainerServer
from labkit.lab.providers.docker.engine import Container, Engine
from labkit.lab.providers.embedded.server import quoted
from labkit.lab.providers.protocol import ClusterSpec
from labkit.remedies import Remedy, advice
from labkit.units import count

IMAGE, DEFAULT_IMAGE = "LABKIT_PG_IMAGE", "postgres:18"
READY_DEADLINE_S = 120.0
# Containers of one machine reach each other without leaving it: no encryption to pay for.
CONNECTION_OPTIONS = {"sslmode": "disable", "gssencmode": "disable"}
_SERVER_PORT = 5432


class ComposeProvider:
    """Brings clusters up through Docker Compose."""

    declared = DOCKER
    name = DOCKER.name
    lock_deadline_s = 120.0

    def up(self, spec: ClusterSpec) -> Cluster:
        """Bring the cluster up, or find it and start and add what is missing; idempotent.

        Image and limits come from LABKIT_PG_IMAGE, LABKIT_NODE_CPUS and LABKIT_NODE_MEMORY; a change of them recreates
        the containers, on the same data. Raises BadInput, ProviderUnavailable or ClusterError. A new cluster that
        fails on the way is removed again; of an existing one whatever runs keeps running.
        """
        checks.check_spec(spec)
        engine = Engine()
        compose = compose_cli.command()
        limits.check(os.environ, engine.capacity())
        with checks.alone_on(DOCKER.root(), spec.name, self.lock_deadline_s):
            before = engine.containers(spec.name)
            is_new = not before and not engine.volumes(spec.name)
            if len(before) > len(spec.node_names):
                raise ClusterError(
                    f"cluster {spec.name} has {count(len(before) - 1, 'replica')}, asked for are {spec.replicas}",
                    remedy=[
                        advice(f"ask for {len(before) - 1}"),
                        advice("take another name"),
                        Remedy("clean", "removes the replicas", purge=True, name=spec.name, provider="docker"),
                    ],
                )
            ports = _ports(spec, before)
            engine.ensure_image(os.environ.get(IMAGE) or DEFAULT_IMAGE)
            environment = self._environment(spec.name, ports)
            passwords.make(spec.name, is_new)
            try:
                compose_cli.run([*compose, "up", "--no-start", "--quiet-pull", *spec.node_names], environment)
                return self._start(engine, spec)
            except BaseException:
                if is_new:
                    _remove(compose, environment)
                    shutil.rmtree(passwords.path(spec.name).parent)
                raise

    def find(self, name: str) -> Cluster | None:
        """The cluster as it stands, running or not; None if it has no containers."""
        checks.check_spec(ClusterSpec(name))
        engine = Engine()
        return self._cluster(engine, name) if engine.containers(name) else None

    def names(self) -> list[str]:
        """Clusters that have containers or volumes, in alphabetical order."""
        return Engine().names()

    def down(self, name: str, *, purge: bool = False) -> None:
        """Stop every server, primaries first; with `purge` remove containers, network and volumes too."""
        checks.check_spec(ClusterSpec(name))
        engine = Engine()
        with checks.alone_on(DOCKER.root(), name, self.lock_deadline_s):
            known = engine.containers(name)
            engine.end_programs(name)
            if known and not purge:
                for server in _primaries_first([ContainerServer(engine, name, node) for node in known]):
                    server.stop()
            elif purge and (known or engine.volumes(name)):
                _remove(compose_cli.command(), self._environment(name, {}))
                shutil.rmtree(passwords.path(name).parent, ignore_errors=True)

    # --- replicas -------------------------------------------------------------------------------------------------

    def rebuild(self, name: str, node: str) -> None:
        """Replace a node's data, whatever it was, by a copy of the current primary's; the node is a replica then.

        Raises ClusterError if the node is the primary, or there is none to copy.
        """
        engine = Engine()
        with checks.alone_on(DOCKER.root(), name, self.lock_deadline_s):
            cluster = self._cluster(engine, name)
            target = cluster.node(node)
            primary = cluster.source_for(node)
            _server(target).discard_data()
            target.control.start()
            target.wait_ready(READY_DEADLINE_S)
            Cluster(name, self.name, [primary, target], binaries="", version="").wait_streaming(READY_DEADLINE_S)

    def remove_replicas(self, name: str) -> list[str]:
        """Remove every node that is not the primary, with its data and its slot on the primary; their names."""
        engine = Engine()
        with checks.alone_on(DOCKER.root(), name, self.lock_deadline_s):
            cluster = self._cluster(engine, name)
            primary = cluster.primary()
            gone = [node for node in cluster.nodes if node is not primary]
            for node in gone:
                engine.remove(_server(node).container(), f"labkit-{name}_{node.name}")
            with primary.session() as connection:
                for node in gone:
                    sql.drop_slot(connection, node.name)
            return [node.name for node in gone]

    # --- parts ----------------------------------------------------------------------------------------------------

    def _start(self, engine: Engine, spec: ClusterSpec) -> Cluster:
        cluster = self._cluster(engine, spec.name)
        checks.check_one_primary(cluster, [node.name for node in cluster.nodes if _server(node).is_primary_by_data()])
        settings_before = _give_settings(cluster, spec.settings)
        try:
            for node in cluster.nodes:
                node.control.start()
            for node in cluster.nodes:
                node.wait_ready(READY_DEADLINE_S)
        except ClusterError:
            # Settings that a stopped server could not be asked about may be the reason.
            for name, text in settings_before.items():
                _server(cluster.node(name)).write_settings(text)
            raise
        cluster = self._cluster(engine, spec.name)  # the version is known now
        cluster.wait_streaming(READY_DEADLINE_S)
        return cluster

    def _cluster(self, engine: Engine, name: str) -> Cluster:
        secrets = passwords.read(name)
        containers = engine.containers(name)
        nodes = [
            Node(
                node,
                checks.HOST,
                _port(container) or 0,
                ContainerServer(engine, name, node),
                secrets,
                CONNECTION_OPTIONS,
                peer=(node, _SERVER_PORT),
                passfile=PASSFILE,
            )
            for node, container in containers.items()
        ]
        image = next((str(container.attrs["Config"]["Image"]) for container in containers.values()), "")
        return Cluster(name, self.name, nodes, binaries=image, version=_version(nodes))

    def _environment(self, name: str, ports: Mapping[str, int]) -> dict[str, str]:
        chosen = {f"LABKIT_PORT_{node.removeprefix('pg')}": str(port) for node, port in ports.items()}
        return {
            **os.environ,
            "LABKIT_CLUSTER": name,
            "LABKIT_PASSWORDS": str(passwords.path(name)),
            **chosen,
        }


def _remove(compose: Sequence[str], environment: Mapping[str, str]) -> None:
    compose_cli.run([*compose, "--profile", "*", "down", "--volumes", "--timeout", "0"], environment)


def _ports(spec: ClusterSpec, containers: Mapping[str, Container]) -> dict[str, int]:
    """The port of every node: those that exist keep theirs. Raises ClusterError if one is taken."""
    known = {node: port for node, container in containers.items() if (port := _port(container))}
    if spec.base_port:
        wanted = {node: spec.base_port + int(node.removeprefix("pg")) - 1 for node in spec.node_names}
        if moved := [node for node in known if known[node] != wanted[node]]:
            raise ClusterError(
                f"cluster {spec.name} listens on {', '.join(map(str, known.values()))}, asked for is base port "
                f"{spec.base_port}, which would move {', '.join(moved)}",
                remedy=[
                    advice("leave it out"),
                    Remedy("recreate", "begins again without its rows", name=spec.name, provider="docker"),
                ],
            )
    else:
        missing = [node for node in spec.node_names if node not in known]
        wanted = known | dict(
            zip(missing, checks.free_ports(len(missing), 0, missing, list(known.values())), strict=True)
        )
    for node in spec.node_names:
        if node not in containers or containers[node].status == "exited":
            checks.check_port(node, wanted[node])
    return {node: wanted[node] for node in spec.node_names}


def _port(container: Container) -> int | None:
    bindings = container.attrs["HostConfig"]["PortBindings"] or {}
    bound = bindings.get(f"{_SERVER_PORT}/tcp")
    return int(bound[0]["HostPort"]) if bound else None


def _give_settings(cluster: Cluster, settings: Mapping[str, str]) -> dict[str, str]:
    """Have every node use the experiment's settings; those that need a restart stop the servers.

    Returns what was there before, by node, where it changed. Raises ClusterError if a running server refuses them; the
    old ones then stay in use.
    """
    text = "".join(f"{name} = '{value}'\n" for name, value in quoted(settings).items())
    before = {node.name: _server(node).settings_text() for node in cluster.nodes}
    before = {name: old for name, old in before.items() if old != text}
    differing = {line for old in before.values() for line in set(old.splitlines()) ^ set(text.splitlines())}
    names = {line.split(" = ")[0] for line in differing}
    if any(_server(cluster.node(name)).is_primary_by_data() is not None for name in before):
        checks.check_fixed(cluster, names)
    for name in before:
        _server(cluster.node(name)).write_settings(text)
    running = [node for node in cluster.nodes if node.name in before and node.control.running()]
    try:
        for node in running:
            _server(node).check_settings()
    except ClusterError:
        for name, old in before.items():
            _server(cluster.node(name)).write_settings(old)
        raise
    for node in running:
        with node.session() as connection:
            sql.reload(connection)
            restart = sql.needs_restart(connection, names)
        if restart:
            node.control.stop()
    return before


def _primaries_first(servers: Sequence[ContainerServer]) -> list[ContainerServer]:
    """They send their last WAL before they end."""
    return sorted(servers, key=lambda server: not server.is_primary_by_data())


def _version(nodes: Sequence[Node]) -> str:
    for node in nodes:
        try:
            return node.settings(["server_version"])["server_version"].split()[0]
        except ClusterError:
            continue
    return "unknown"


def _server(node: Node) -> ContainerServer:
    assert isinstance(node.control, ContainerServer)
    return node.control
