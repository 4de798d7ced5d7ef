"""Servers that exist already and are not labkit's: read, loaded and sampled over SQL, never started or changed.

They are named by $LABKIT_ATTACH: connection strings separated by blanks (URIs), or the path of a YAML file that holds
a list of them, or a mapping of node names to them. The user of each needs the role pg_monitor for the lag and the
states of connections; on the primary also pg_checkpoint and the right to create tables in that database, for seeding.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import class_row

from labkit.errors import BadInput, ClusterError
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.marks import ADOPT_USERS, MARK
from labkit.lab.cluster.node import Node, User
from labkit.lab.cluster.powers import StopMode
from labkit.lab.providers.attach.connection_strings import VARIABLE, connection_strings
from labkit.lab.providers.declared import ATTACH, ProviderName
from labkit.lab.providers.protocol import ClusterSpec
from labkit.remedies import advice

LEAST_MAJOR = 14
_FACTS = """
SELECT current_setting('server_version') AS version,
       (SELECT system_identifier FROM pg_control_system()) AS system_identifier,
       pg_is_in_recovery() AS in_recovery,
       current_user::text AS user,
       pg_has_role('pg_monitor', 'USAGE') AS may_monitor,
       -- The role pg_checkpoint exists since version 15.
       (SELECT bool_or(rolname = 'pg_checkpoint' AND pg_has_role(oid, 'USAGE') OR rolname = current_user AND rolsuper)
        FROM pg_roles) AS may_checkpoint,
       coalesce(has_schema_privilege(to_regnamespace('public')::oid, 'CREATE'), false) AS may_create,
       coalesce(obj_description(to_regclass('users'), 'pg_class'), '') AS users_comment,
       to_regclass('users') IS NOT NULL AS has_users,
       (SELECT conninfo FROM pg_stat_wal_receiver) AS receives_by"""


@dataclass(frozen=True)
class _Facts:
    """What a server says of itself and of what the user may do there."""

    version: str
    system_identifier: int
    in_recovery: bool
    user: str
    may_monitor: bool
    may_checkpoint: bool
    may_create: bool
    has_users: bool
    users_comment: str
    receives_by: str | None

    @property
    def application_name(self) -> str | None:
        """The name that a replica gives its primary; None if it does not stream, or may not be asked."""
        keywords = conninfo_to_dict(self.receives_by or "")
        name = keywords.get("application_name") or keywords.get("fallback_application_name")
        return str(name) if name else None


class AttachProvider:
    """Finds the servers that $LABKIT_ATTACH names; there is one cluster of them, whatever name it is asked for by."""

    declared = ATTACH
    name = ATTACH.name

    def up(self, spec: ClusterSpec) -> Cluster:
        """Connect to every server, and check roles and rights. Raises BadInput with everything that is wrong."""
        cluster, facts, problems = self._look(spec.name)
        if spec.settings:
            problems.append(f"settings: {', '.join(spec.settings)} cannot be set on servers that labkit does not own")
        if spec.base_port:
            problems.append("base_port: attached servers have their ports")
        if len(cluster.nodes) != spec.replicas + 1:
            problems.append(
                f"replicas: {spec.replicas} asked for, {VARIABLE} names a primary and {len(cluster.nodes) - 1} more; "
                f"ask for {len(cluster.nodes) - 1}"
            )
        if len(facts) == len(cluster.nodes):
            problems += _problems_of_roles(facts)
        for name, found in facts.items():
            problems += _problems_of_rights(name, found)
        if problems:
            raise BadInput(problems, subject=f"servers of {VARIABLE}")
        return cluster

    def find(self, name: str) -> Cluster | None:
        """The attached servers, answering or not; None if none are named."""
        return self._look(name)[0] if os.environ.get(VARIABLE) else None

    def names(self) -> list[str]:
        return ["attached"] if os.environ.get(VARIABLE) else []

    def down(self, name: str, *, purge: bool = False) -> None:
        """Always refused: raises ClusterError."""
        _refuse(name, "deleted" if purge else "stopped")

    def _look(self, name: str) -> tuple[Cluster, dict[str, _Facts], list[str]]:
        """The servers, what those say that can be asked, and why the others cannot."""
        nodes = [AttachedNode(node, dsn) for node, dsn in connection_strings(os.environ).items()]
        marks = {f"labkit-{secrets.token_hex(8)}": node for node in nodes}
        facts: dict[str, _Facts] = {}
        opened: list[psycopg.Connection[Any]] = []
        problems = []
        with contextlib.ExitStack() as stack:
            for mark, node in marks.items():
                try:
                    connection = stack.enter_context(node.connect(application_name=mark))
                    found = connection.cursor(row_factory=class_row(_Facts)).execute(_FACTS).fetchone()
                except (ClusterError, psycopg.Error) as error:
                    problems.append(
                        f"{' '.join(str(error).split())}; check this server, and what {VARIABLE} says of it: host, "
                        "port, database, user and password"
                    )
                else:
                    assert found is not None
                    opened.append(connection)
                    facts[node.name] = found
                    node.application_name = found.application_name or node.name
            for same in _of_one_server(marks, opened):
                problems.append(_one_server(same))
                for node in same[1:]:
                    facts.pop(node.name, None)
        used = Counter(node.application_name for node in nodes)
        for node in nodes:
            if used[node.application_name] > 1:
                node.application_name = None
        version = next((found.version.split()[0] for found in facts.values()), "unknown")
        return AttachedCluster(name, self.name, nodes, binaries="", version=version, problems=problems), facts, problems


def _of_one_server(
    marks: Mapping[str, AttachedNode], opened: Sequence[psycopg.Connection[Any]]
) -> list[list[AttachedNode]]:
    """The nodes that are one server under several names: each of their connections sees all of these in its server.

    `marks`: the names by which the open connections to the nodes call themselves.
    """
    seen: dict[tuple[str, ...], None] = {}
    for connection in opened:
        asked = "SELECT application_name FROM pg_stat_activity WHERE application_name = ANY(%s)"
        here = {row[0] for row in connection.execute(asked, [list(marks)])}
        seen[tuple(mark for mark in marks if mark in here)] = None
    return [[marks[mark] for mark in here] for here in seen if len(here) > 1]


def _one_server(same: Sequence[AttachedNode]) -> str:
    named = " and ".join(f"{node.name} ({node.host}:{node.port})" for node in same)
    return f"{named} are one server under {len(same)} names; name each server once in {VARIABLE}"


def _problems_of_roles(facts: Mapping[str, _Facts]) -> list[str]:
    primaries = [name for name, found in facts.items() if not found.in_recovery]
    if not primaries:
        return [
            f"no primary: {_all(list(facts))} in recovery; add the connection string of their primary to {VARIABLE}"
        ]
    if len(primaries) > 1:
        return [
            f"more than one primary: {_all(primaries)} not in recovery; name the servers of one replication only, and "
            "if one of them should be a replica, ask its owner to make it one again"
        ]
    (primary,) = primaries
    return [
        f"{name}: it is not a replica of {primary}: it was made by another initdb; name a replica of {primary} instead"
        for name, found in facts.items()
        if found.system_identifier != facts[primary].system_identifier
    ]


def _problems_of_rights(name: str, found: _Facts) -> list[str]:
    problems = []
    major = int(found.version.split(".")[0])
    if major < LEAST_MAJOR:
        problems.append(f"{name}: it is PostgreSQL {found.version}, labkit needs {LEAST_MAJOR} or later")
    if not found.may_monitor:
        problems.append(
            f"{name}: user {found.user} may not see lag and connections; have its owner run GRANT pg_monitor TO "
            f'"{found.user}" on the primary'
        )
    if found.in_recovery:
        return problems
    if not found.may_checkpoint:
        remedy = f'GRANT pg_checkpoint TO "{found.user}"' if major >= 15 else f'ALTER ROLE "{found.user}" SUPERUSER'
        problems.append(
            f"{name}: user {found.user} may not run CHECKPOINT, with which seeding ends; have its owner run {remedy}"
        )
    if not found.may_create:
        problems.append(
            f"{name}: user {found.user} may not create tables there; have its owner run GRANT CREATE ON SCHEMA "
            f'public TO "{found.user}" in that database'
        )
    if found.has_users and not found.users_comment.startswith(MARK):
        problems.append(
            f"{name}: its database has a table `users` that labkit did not make, and seeding would replace it; "
            f"create a database for labkit and name that one in {VARIABLE}, or, if an earlier labkit did make it, "
            f"run {ADOPT_USERS}"
        )
    return problems


def _all(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


class AttachedCluster(Cluster):
    """Servers of one replication; `problems` says why some of them could not be asked."""

    def __init__(
        self,
        name: str,
        provider: ProviderName,
        nodes: Sequence[Node],
        *,
        binaries: str,
        version: str,
        problems: Sequence[str] = (),
    ) -> None:
        super().__init__(name, provider, list(nodes), binaries=binaries, version=version)
        self.problems = list(problems)

    @property
    def when_stopped(self) -> ClusterError:
        return ClusterError("; ".join(self.problems))

    def check_owned(self, verb: str) -> None:
        """Always refused: raises ClusterError."""
        _refuse(f"cluster {self.name}", verb)

    def detached_replicas(self) -> dict[str, ClusterError]:
        """Always empty: whom its replicas follow, or whether they read an archive, is their owner's business."""
        return {}

    def primary(self) -> Node:
        """The one node that is not in recovery. Raises ClusterError if there is none, or more than one."""
        primaries = [node for node, role in self.roles().items() if role == "primary"]
        if len(primaries) == 1:
            return self.node(primaries[0])
        said = f"more than one primary: {_all(primaries)} not in recovery" if primaries else "no primary answers"
        reasons = "; ".join([said, *self.problems])
        helps = advice(f"correct {VARIABLE}, or ask the owner of these servers")
        raise ClusterError(reasons, remedy=helps)


class AttachedNode(Node):
    """A server known by its connection string, used by every role that labkit would otherwise have."""

    def __init__(self, name: str, dsn: str) -> None:
        keywords = conninfo_to_dict(dsn)
        self._dsn = dsn
        super().__init__(
            name, str(keywords.get("host") or "localhost"), int(keywords.get("port") or 5432), _Foreign(name, dsn), {}
        )

    def conninfo(self, user: User = "admin", **options: str | int) -> str:  # noqa: ARG002
        """The connection string; `options` are more libpq keywords. Neither `user` nor a dbname makes a difference."""
        given: dict[str, str | int] = {"application_name": "labkit", "connect_timeout": 5}
        given |= {name: value for name, value in options.items() if name != "dbname"}
        return make_conninfo(self._dsn, **given)

    def connect(self, user: User = "admin", **kwargs: Any) -> psycopg.Connection[Any]:
        """An open connection in autocommit mode; `kwargs` go to psycopg.connect. Raises ClusterError."""
        try:
            return super().connect(user, **kwargs)
        except ClusterError as error:
            raise ClusterError(f"{self.host}:{self.port}: {error.__cause__}", node=self.name) from error.__cause__

    def reload(self) -> None:
        """Always refused: raises ClusterError."""
        _refuse(self.name, "told to read its configuration again")

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


def _refuse(what: str, verb: str) -> NoReturn:
    reason = f"{what} is attached, not owned by labkit: it cannot be {verb} from here"
    raise ClusterError(reason, remedy=advice("ask its owner"))
