"""Node and Cluster: what there is, who is primary, and the verbs. Roles and LSNs are asked, never stored."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from labkit.errors import ClusterError, WaitTimeout
from labkit.lab.cluster import sql as postgres
from labkit.lab.cluster import synchronize as synchronous
from labkit.lab.cluster.sql import Connection, Role, WalPosition
from labkit.lab.cluster.synchronize import Level, Mode

if TYPE_CHECKING:
    from labkit.lab.cluster.powers import NodeControl

User = Literal["app", "admin", "replication"]
USERS: Mapping[User, str] = {"app": "labkit_app", "admin": "labkit_admin", "replication": "labkit_replication"}
DATABASE = "labkit"

T = TypeVar("T")


@dataclass(frozen=True)
class ReplicaLag:
    """How far a replica's replay is behind the primary; None where nobody can tell.

    lag_s is the primary's replay_lag; it is 0 for a replica that has replayed everything. A replica that is not
    connected to the primary has state `disconnected`.
    """

    name: str
    lag_bytes: int | None
    lag_s: float | None
    state: str
    sync_state: str | None


class Node:
    """One server. `control` starts and stops it; ask it for more powers with isinstance (providers/base.py)."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        control: NodeControl,
        passwords: Mapping[str, str],
        connection_options: Mapping[str, str] | None = None,
        peer: tuple[str, int] | None = None,
        passfile: str | None = None,
    ) -> None:
        self.name, self.host, self.port, self.control = name, host, port, control
        self.peer = peer or (host, port)
        """Host and port under which the other nodes reach this one."""
        self.passfile = passfile
        """Where this node's server finds the password of the replication user; None if it must be told."""
        self._passwords = passwords
        self._options = dict(connection_options or {})
        self.application_name: str | None = name
        """As the primary's pg_stat_replication calls this node; None if that tells it from no other."""

    def __repr__(self) -> str:
        return f"Node({self.name!r}, {self.host!r}, {self.port})"

    def conninfo(self, user: User = "admin", **options: str | int) -> str:
        """A libpq connection string for `user`, with its password; `options` are more libpq keywords."""
        keywords: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "dbname": DATABASE,
            "user": USERS[user],
            "password": self._passwords[USERS[user]],
            "application_name": "labkit",
            "connect_timeout": 5,
        }
        return make_conninfo(**(keywords | self._options | options))

    def connect(self, user: User = "admin", **kwargs: Any) -> Connection:
        """An open connection in autocommit mode; `kwargs` go to psycopg.connect.

        Raises ClusterError with the server's own words if it cannot be reached or refuses.
        """
        try:
            return psycopg.connect(self.conninfo(user), **({"autocommit": True} | kwargs))
        except psycopg.OperationalError as error:
            raise ClusterError(f"no connection to port {self.port}: {error}".rstrip(), node=self.name) from error

    @contextlib.contextmanager
    def session(self, **kwargs: Any) -> Iterator[Connection]:
        """An administrator's connection for a few statements, closed at the end.

        Whatever the server refuses in it, or a connection that breaks, becomes a ClusterError naming this node.
        """
        try:
            with self.connect(**kwargs) as connection:
                yield connection
        except psycopg.Error as error:
            raise ClusterError(str(error).strip(), node=self.name) from error
        except ClusterError as error:
            error.node = error.node or self.name
            raise

    def role(self) -> Role:
        """Asked of the server. Raises ClusterError if it cannot be reached."""
        with self.session() as connection:
            return postgres.role(connection)

    def lsn(self) -> WalPosition:
        """How far this server's WAL has come. Raises ClusterError if it cannot be reached."""
        with self.session() as connection:
            return postgres.wal_position(connection)

    def settings(self, names: Iterable[str]) -> dict[str, str]:
        """Current values as the server shows them. Raises ClusterError for a name that does not exist."""
        with self.session() as connection:
            return postgres.settings(connection, names)

    def configure(self, settings: Mapping[str, str | None]) -> None:
        """ALTER SYSTEM each setting (None resets it) and reload. Raises ClusterError if one is refused."""
        with self.session() as connection:
            postgres.configure(connection, settings)

    def reload(self) -> None:
        """Have the server read its configuration files again."""
        with self.session() as connection:
            postgres.reload(connection)

    def wait_ready(self, deadline_s: float = 60.0, database: str = DATABASE) -> None:
        """Until the server answers a query in `database`. Raises WaitTimeout; ClusterError at once if it has ended."""

        def answers() -> bool:
            if not self.control.running():
                raise ClusterError(
                    "the server ended while it was starting", node=self.name, log_tail=self.control.log_tail()
                )
            try:
                with psycopg.connect(self.conninfo(connect_timeout=2, dbname=database), autocommit=True) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers, deadline_s, "the server to accept connections", self)

    def promote(self, deadline_s: float = 30.0) -> None:
        """End recovery: this replica becomes a primary on a new timeline. Raises ClusterError, WaitTimeout."""
        with self.session() as connection:
            done = postgres.promote(connection, max(1, round(deadline_s)))
        if not done:
            raise WaitTimeout(
                f"waited {deadline_s:g} s for the promotion to end; it may still do so",
                node=self.name,
                log_tail=self.control.log_tail(),
            )

    def repoint(self, to: Node, deadline_s: float = 30.0) -> None:
        """Have this replica stream from `to`, through a slot of its own there, and wait until it does.

        No restart: since version 13 primary_conninfo takes effect on reload. Slots do not follow a promotion, so
        the new one is made first. Raises ClusterError if this node is no replica, WaitTimeout.
        """
        with to.session() as connection:
            postgres.create_slot(connection, self.name)
        with self.session() as connection:
            if postgres.role(connection) == "primary":
                raise ClusterError("a primary cannot be repointed; rewind or rebuild it as a replica first")
            self.follow(to, connection)
            self.wait_following(to, connection, deadline_s)

    def follow(self, to: Node, connection: Connection) -> None:
        """Tell this replica, over an administrator's connection to it, to stream from `to` through its slot there."""
        postgres.configure(connection, {"primary_conninfo": self.source(to), "primary_slot_name": self.name})

    def source(self, primary: Node) -> str:
        """What this node's primary_conninfo must be to stream from `primary`.

        Servers write it into their logs whenever it changes, so the password stays in the file where there is one.
        """
        host, port = primary.peer
        keywords = conninfo_to_dict(primary.conninfo("replication", application_name=self.name, host=host, port=port))
        if self.passfile is not None:
            del keywords["password"]
            keywords["passfile"] = self.passfile
        return make_conninfo("", **keywords)

    def wait_following(self, to: Node, connection: Connection, deadline_s: float = 30.0) -> None:
        """Until this replica streams from `to`. Raises WaitTimeout."""
        wait_until(
            lambda: postgres.streaming_from(connection) == to.peer, deadline_s, f"WAL streaming from {to.name}", self
        )


class Cluster:
    """Nodes in order, pg1 first. `binaries` and `version` say what they run."""

    def __init__(self, name: str, provider: str, nodes: list[Node], *, binaries: str, version: str) -> None:
        self.name, self.provider, self.nodes = name, provider, nodes
        self.binaries, self.version = binaries, version

    @property
    def when_stopped(self) -> str:
        """What to say of it when none of its servers runs."""
        return f"stopped; `{command('up', self.name, self.provider)}` starts it"

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
        """The primary that a node can be made anew from. Raises ClusterError if no other node is one."""
        target, others = self.node(name), self.without(name)
        primaries = [node for node, role in others.roles().items() if role == "primary"]
        if not primaries:
            is_it = "it is the primary itself" if _role_or_none(target) == "primary" else "no other node is primary"
            raise ClusterError(f"it cannot be made anew as a replica: {is_it}; promote another node first", node=name)
        return self.node(primaries[0]) if len(primaries) == 1 else others.primary()

    def roles(self) -> dict[str, Role | None]:
        """Node name -> role as the server says; None if it does not answer."""
        return {node.name: _role_or_none(node) for node in self.nodes}

    def primary(self) -> Node:
        """The one node that is not in recovery. Raises ClusterError if there is none, or more than one."""
        roles = self.roles()
        primaries = [node for node in self.nodes if roles[node.name] == "primary"]
        if len(primaries) == 1:
            return primaries[0]
        said = ", ".join(f"{name} {role or 'does not answer'}" for name, role in roles.items())
        if not primaries:
            which = " --old NODE" if list(roles.values()).count(None) > 1 else ""
            up, failover = (command(verb, self.name, self.provider) for verb in ("up", f"failover{which}"))
            stopped = f"`{up}` starts what is stopped, " if None in roles.values() else ""
            raise ClusterError(f"cluster {self.name} has no primary ({said}); {stopped}`{failover}` promotes a replica")
        raise ClusterError(
            f"cluster {self.name} has more than one primary ({said}): the old one came back after a failover; "
            f"`{command('rejoin NODE', self.name, self.provider)}` makes NODE, the old one, a replica"
        )

    def replicas(self) -> list[Node]:
        """The nodes that answer and are in recovery, in order."""
        roles = self.roles()
        return [node for node in self.nodes if roles[node.name] == "replica"]

    def replication(self) -> list[dict[str, Any]]:
        """The primary's pg_stat_replication, one plain dict a connected replica. Raises ClusterError."""
        with self.primary().session() as connection:
            return postgres.replication(connection)

    def lag(self) -> list[ReplicaLag]:
        """How far every other node's replay is behind the primary, in node order. Raises ClusterError."""
        primary = self.primary()
        with primary.session() as connection:
            connected = {row["application_name"]: row for row in postgres.replication(connection)}
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
        return synchronous.apply(self, synchronous.Synchronous(mode, k, level), deadline_s)

    def wait_streaming(self, deadline_s: float = 60.0) -> None:
        """Until every other node streams from the primary. Raises WaitTimeout, ClusterError if one follows nobody."""
        primary = self.primary()
        with primary.session() as connection:
            for node in [other for other in self.nodes if other is not primary]:

                def streams(name: str | None = node.application_name) -> bool:
                    rows = postgres.replication(connection)
                    return any(row["application_name"] == name and row["state"] == "streaming" for row in rows)

                what = f"streaming from {primary.name}"
                soon_s = min(deadline_s, 2.0)  # within this a server acts on a setting that it was told to reload
                with contextlib.suppress(WaitTimeout):
                    wait_until(streams, soon_s, what, node)
                    continue
                if advice := self.astray().get(node.name):
                    raise ClusterError(advice, node=node.name)
                try:
                    wait_until(streams, deadline_s - soon_s, what, node)
                except WaitTimeout as error:
                    if node.control.running() and (reason := _paused(node)):
                        error.message += f"; {reason}"
                    raise

    def astray(self) -> dict[str, str]:
        """Replicas that are told to follow nobody, as a failover leaves an old primary, and what to do with each."""
        return {
            node.name: "it runs, but follows nobody, as a failover leaves an old primary; "
            f"`{command(f'rejoin {node.name}', self.name, self.provider)}` makes it a replica"
            for node in self.nodes
            if _alone(node)
        }

    def wait_for_catchup(self, deadline_s: float = 60.0) -> None:
        """Until every replica has replayed all that is committed on the primary now. Raises WaitTimeout."""
        with self.primary().session() as connection:
            target = postgres.flush_wal(connection)
        give_up = time.monotonic() + deadline_s
        for node in self.replicas():
            with node.session() as connection:

                def caught_up(connection: Connection = connection) -> bool:
                    return (postgres.wal_position(connection).replayed or 0) >= target

                left_s = max(0.0, give_up - time.monotonic())
                wait_until(caught_up, left_s, f"replay up to {postgres.lsn_text(target)}", node)


def command(words: str, name: str, provider: str) -> str:
    """A line for the shell: what labkit should do with a cluster."""
    return f"labkit {words} --name {name}" + ("" if provider == "embedded" else f" --provider {provider}")


def wait_until(
    condition: Callable[[], T],
    deadline_s: float,
    what: str,
    node: Node | None = None,
    interval_s: float = 0.01,
) -> T:
    """Poll until `condition` returns something true, and return that.

    Raises WaitTimeout after `deadline_s`, saying what was waited for, on which node and how long, with the tail of
    that node's log.
    """
    started = time.monotonic()
    while True:
        if result := condition():
            return result
        waited_s = time.monotonic() - started
        if waited_s >= deadline_s:
            raise WaitTimeout(
                f"waited {waited_s:.1f} s for {what}, in vain",
                node=node.name if node else None,
                log_tail=node.control.log_tail() if node else "",
            )
        time.sleep(min(interval_s, max(0.0, deadline_s - waited_s)))


def _paused(node: Node) -> str:
    """What keeps a replica whose replay is paused from going on; empty if it is not, or does not answer."""
    with contextlib.suppress(ClusterError), node.session() as connection:
        if postgres.role(connection) == "replica" and postgres.replay_paused(connection):
            return "its WAL replay is paused: SELECT pg_wal_replay_resume() on it lets it follow a new primary"
    return ""


def _alone(node: Node) -> bool:
    """Whether it answers, as a replica that is not told whom to follow."""
    with contextlib.suppress(ClusterError), node.session() as connection:
        told = postgres.settings(connection, ["primary_conninfo"]).get("primary_conninfo")  # hidden from some roles
        return postgres.role(connection) == "replica" and told == ""
    return False


def _role_or_none(node: Node) -> Role | None:
    try:
        with node.session(connect_timeout=2) as connection:  # one that hangs keeps everybody waiting
            return postgres.role(connection)
    except ClusterError:
        return None
