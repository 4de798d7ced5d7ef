"""Node: one server, how to reach it, and the verbs that change it. Roles and LSNs are asked, never stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from labkit.errors import ClusterError
from labkit.lab.cluster import promotion, sql
from labkit.lab.cluster.powers import NodeControl, Repairable
from labkit.lab.cluster.sql import Connection, Role, WalPosition
from labkit.lab.cluster.waiting import wait_until
from labkit.remedies import advice

User = Literal["app", "admin", "replication"]


USERS: Mapping[User, str] = {"app": "labkit_app", "admin": "labkit_admin", "replication": "labkit_replication"}


DATABASE = "labkit"


class Node:
    """One server. `control` starts and stops it; ask it for more powers with isinstance (powers.py)."""

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
            return sql.role(connection)

    def lsn(self) -> WalPosition:
        """How far this server's WAL has come. Raises ClusterError if it cannot be reached."""
        with self.session() as connection:
            return sql.wal_position(connection)

    def settings(self, names: Iterable[str]) -> dict[str, str]:
        """Current values as the server shows them. Raises ClusterError for a name that does not exist."""
        with self.session() as connection:
            return sql.settings(connection, names)

    def configure(self, settings: Mapping[str, str | None]) -> None:
        """ALTER SYSTEM each setting (None resets it) and reload. Raises ClusterError if one is refused."""
        with self.session() as connection:
            sql.configure(connection, settings)

    def reload(self) -> None:
        """Have the server read its configuration files again."""
        with self.session() as connection:
            sql.reload(connection)

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
        """End recovery: this replica becomes a primary on a new timeline.

        Raises ClusterError, with nothing promoted if the preflight finds anything; WaitTimeout.
        """
        with self.session() as connection:
            if problems := promotion.preflight(connection):
                raise ClusterError("; ".join(problems), node=self.name)
            promotion.promote(self, connection, deadline_s)

    def repoint(self, to: Node, deadline_s: float = 30.0) -> None:
        """Have this replica stream from `to`, through a slot of its own there, and wait until it does.

        No restart: since version 13 primary_conninfo takes effect on reload. Raises ClusterError if this node is no
        replica, WaitTimeout.
        """
        with to.session() as source, self.session() as connection:
            if sql.role(connection) == "primary":
                helps = advice("rewind it or rebuild it as a replica first")
                raise ClusterError("a primary cannot be repointed", remedy=helps)
            self.follow(to, connection, source)
            self.wait_following(to, connection, deadline_s)

    def follow(self, to: Node, connection: Connection, source: Connection | None = None) -> None:
        """Tell this replica, over an administrator's connection to it, to stream from `to` through its slot there.

        Slots do not follow a promotion: over `source`, a connection to `to`, the slot is made first. Without `source`
        it is there.
        """
        if source is not None:
            sql.create_slot(source, self.name)
        sql.configure(connection, self.following(to))

    def following(self, to: Node) -> dict[str, str]:
        """The settings of a replica that streams from `to`."""
        return {"primary_conninfo": self.source(to), "primary_slot_name": self.name}

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
        wait_until(lambda: sql.streaming_from(connection) == to.peer, deadline_s, f"WAL streaming from {to.name}", self)


def replay_is_paused(node: Node) -> bool:
    """Whether it answers, as a replica whose replay is paused."""
    with contextlib.suppress(ClusterError), node.session() as connection:
        return sql.role(connection) == "replica" and sql.replay_paused(connection)
    return False


def why_detached(node: Node, others: Iterable[Node]) -> str | None:
    """Why it does not follow the primary, or would not if it were started; None if nothing keeps it from that.

    `others` are the nodes that are no primary. A node that answers is asked itself, of one that is stopped its files
    are. What cannot be asked is no reason.
    """
    told = None
    is_up = "runs, but follows" if (running := node.control.running()) else "is stopped, and would follow"
    with contextlib.suppress(ClusterError):
        if running:
            with node.session() as connection:
                if sql.role(connection) == "replica":
                    told = sql.settings(connection, ["primary_conninfo"]).get("primary_conninfo")  # hidden from some
        elif isinstance(control := node.control, Repairable):
            if "standby.signal" not in control.names("."):
                return "it is stopped, and would start as a second primary"
            told = control.program("postgres", "-D", control.data, "-C", "primary_conninfo").strip()
    if told == "":
        return f"it {is_up} no primary, as a failover leaves an old primary"
    keywords = conninfo_to_dict(told or "")
    for other in others:
        if (str(keywords.get("host")), str(keywords.get("port"))) == (other.peer[0], str(other.peer[1])):
            return f"it {is_up} {other.name}, which is not the primary"
    return None


def role_or_none(node: Node) -> Role | None:
    """The role that the server says; None if it does not answer within two seconds."""
    try:
        with node.session(connect_timeout=2) as connection:  # one that hangs would take its whole deadline
            return sql.role(connection)
    except ClusterError:
        return None
