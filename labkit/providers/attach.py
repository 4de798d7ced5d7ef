"""Servers that exist already and are somebody else's: read, loaded and sampled over SQL, never started or changed.

They are named by $LABKIT_ATTACH: connection strings separated by blanks (URIs), or the path of a YAML file that holds
a list of them, or a mapping of node names to them. The user of each needs role pg_monitor for the lag and the states
of connections, and on the primary the right to create tables in that database, which seeding does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from labkit.cluster import Cluster, Node, User
from labkit.errors import BadInput, ClusterError
from labkit.providers.base import ClusterSpec, StopMode

VARIABLE = "LABKIT_ATTACH"
_OTHERS_TABLE = "SELECT to_regclass('public.users') IS NOT NULL AND to_regclass('public.labkit_dataset') IS NULL"


class AttachProvider:
    """Finds the servers that $LABKIT_ATTACH names; there is one cluster of them, whatever name it is asked for by."""

    name = "attach"

    def up(self, spec: ClusterSpec) -> Cluster:
        """Connect to every server. Raises BadInput, and ClusterError if one does not answer."""
        cluster = self._cluster(spec.name)
        problems = []
        if spec.settings:
            problems.append(f"settings: {', '.join(spec.settings)} cannot be set on servers that labkit does not own")
        if spec.base_port:
            problems.append("base_port: attached servers have their ports")
        if len(cluster.nodes) != spec.replicas + 1:
            problems.append(
                f"replicas: {spec.replicas} asked for, {VARIABLE} names a primary and {len(cluster.nodes) - 1} more"
            )
        if problems:
            raise BadInput(problems, subject="attached cluster")
        for node in cluster.nodes:
            node.wait_ready(5.0)
        primary = cluster.primary()
        with primary.session() as connection:
            row = connection.execute(_OTHERS_TABLE).fetchone()
        if row is not None and row[0]:
            raise ClusterError(
                "its database has a table `users` that labkit did not make, and seeding would replace it; "
                f"create a database for labkit and name that one in {VARIABLE}",
                node=primary.name,
            )
        return cluster

    def find(self, name: str) -> Cluster | None:
        """The attached servers, answering or not; None if none are named."""
        return self._cluster(name) if os.environ.get(VARIABLE) else None

    def names(self) -> list[str]:
        return ["attached"] if os.environ.get(VARIABLE) else []

    def down(self, name: str, *, purge: bool = False) -> None:
        """Always refused: raises ClusterError."""
        _refuse(name, "deleted" if purge else "stopped")

    def _cluster(self, name: str) -> Cluster:
        nodes: list[Node] = [AttachedNode(node, dsn) for node, dsn in connection_strings(os.environ).items()]
        version = "unknown"
        for node in nodes:
            if node.control.running():
                version = node.settings(["server_version"])["server_version"].split()[0]
                break
        return Cluster(name, self.name, nodes, binaries="", version=version)


class AttachedNode(Node):
    """A server known by its connection string, used by every role that labkit would otherwise have."""

    def __init__(self, name: str, dsn: str) -> None:
        keywords = conninfo_to_dict(dsn)
        self._dsn = dsn
        super().__init__(
            name, str(keywords.get("host") or "localhost"), int(keywords.get("port") or 5432), _Foreign(name, dsn), {}
        )

    def conninfo(self, user: User = "admin", **options: str | int) -> str:  # noqa: ARG002
        """The connection string; `options` are more libpq keywords. `user` makes no difference."""
        defaults: dict[str, str | int] = {"application_name": "labkit", "connect_timeout": 5}
        return make_conninfo(self._dsn, **(defaults | options))

    def configure(self, settings: Mapping[str, str | None]) -> None:
        """Always refused: raises ClusterError."""
        _refuse(self.name, f"configured ({', '.join(settings)})")

    def promote(self, deadline_s: float = 30.0) -> None:  # noqa: ARG002
        """Always refused: raises ClusterError."""
        _refuse(self.name, "promoted")

    def repoint(self, to: Node, deadline_s: float = 30.0) -> None:  # noqa: ARG002
        """Always refused: raises ClusterError."""
        _refuse(self.name, f"repointed to {to.name}")


class _Foreign:
    """NodeControl of a server that labkit does not own: it can only be asked whether it is there."""

    def __init__(self, name: str, dsn: str) -> None:
        self.name, self._dsn = name, dsn

    def start(self) -> None:
        if not self.running():
            _refuse(self.name, "started")

    def stop(self, mode: StopMode = "fast") -> None:
        _refuse(self.name, f"stopped ({mode})")

    def running(self) -> bool:
        # Also a server that refuses connections is running.
        answer = psycopg.pq.PGconn.ping(make_conninfo(self._dsn, connect_timeout=2).encode())
        return answer in (psycopg.pq.Ping.OK, psycopg.pq.Ping.REJECT)

    def log_tail(self, lines: int = 20) -> str:  # noqa: ARG002
        return ""

    def describe(self) -> Mapping[str, str | int | None]:
        return {}


def connection_strings(environment: Mapping[str, str]) -> dict[str, str]:
    """Node name -> connection string. Raises BadInput with everything that is wrong; never shows a password."""
    given = environment.get(VARIABLE, "").strip()
    if not given:
        raise BadInput(
            f"no servers to attach: set {VARIABLE} to their connection strings, such as "
            "'postgresql://user@host1/labkit postgresql://user@host2/labkit', or to a YAML file that lists them"
        )
    listed: Any = _from_file(Path(given).expanduser()) if given.endswith((".yaml", ".yml")) else given.split()
    named = listed if isinstance(listed, dict) else {f"pg{i + 1}": dsn for i, dsn in enumerate(listed)}
    problems = [problem for name, dsn in named.items() if (problem := _problem(str(name), dsn))]
    if problems:
        raise BadInput(problems, subject=VARIABLE)
    return {str(name): str(dsn) for name, dsn in named.items()}


def _from_file(path: Path) -> list[Any] | dict[Any, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{VARIABLE}: {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, list | dict) or not content:
        raise BadInput(f"{VARIABLE}: {path} must hold a list of connection strings, or `name: connection string` lines")
    return content


def _problem(name: str, dsn: object) -> str | None:
    if not isinstance(dsn, str):
        return f"{name}: a connection string is a text, not a {type(dsn).__name__}"
    try:
        keywords = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # The words of libpq quote the string, and with it a password.
        return f"{name}: not a connection string; postgresql://user@host:port/database is one"
    if "," in str(keywords.get("host") or ""):
        return f"{name}: names several hosts; one connection string is one server"
    if not str(keywords.get("port") or "5432").isdigit():
        return f"{name}: its port is not a number"
    return None


def _refuse(what: str, verb: str) -> NoReturn:
    raise ClusterError(f"{what} is attached, not owned by labkit: it cannot be {verb} from here; ask its owner")
