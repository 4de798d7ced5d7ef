"""What can be done to servers: the one protocol every control of a node has, and the powers only some have.

Ask for a power with `isinstance(control, Killable)`: an embedded node can be killed and measured, an
attached one can be neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

StopMode = Literal["fast", "smart", "immediate"]
KillScope = Literal["tree", "postmaster"]


@dataclass(frozen=True)
class Usage:
    """What a node's processes have used so far. Counters count from the node's start; None: not measurable.

    cpu_s: CPU seconds, user and system. memory_bytes: private memory of all processes plus shared memory
    once. cached_bytes: page cache charged to the node. read/written_bytes: real storage I/O.
    received/sent_bytes: network. throttled_s: time the CPU limit kept it waiting. cpu_limit: CPUs it may use, those of
    the machine if nothing limits it. read_at_ns: when that was so, on the monotonic clock; None: just now.
    """

    cpu_s: float | None = None
    memory_bytes: int | None = None
    cached_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None
    throttled_s: float | None = None
    cpu_limit: float | None = None
    read_at_ns: int | None = None


@runtime_checkable
class NodeControl(Protocol):
    """What every provider that owns its servers can do to one of them."""

    def start(self) -> None: ...

    def stop(self, mode: StopMode = "fast") -> None: ...

    def running(self) -> bool:
        """Whether the server process exists: says nothing about accepting queries."""
        ...

    def log_tail(self, lines: int = 20) -> str: ...

    def describe(self) -> Mapping[str, str | int | None]:
        """Where a person finds the server: its process or container, its directories, its log."""
        ...


@runtime_checkable
class Killable(Protocol):
    def kill(self, scope: KillScope = "tree") -> None:
        """SIGKILL to the whole process tree, or to the postmaster alone."""
        ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


@runtime_checkable
class Isolatable(Protocol):
    def isolate(self) -> None: ...

    def rejoin_network(self) -> None: ...


@runtime_checkable
class Limitable(Protocol):
    def limit(self, cpus: float | None) -> None:
        """Let the node use at most so many CPUs from now on; None: as many as the machine has."""
        ...


@runtime_checkable
class Measurable(Protocol):
    not_measured: Mapping[str, str]
    """Metric name -> why this provider cannot measure it."""

    def usage(self) -> Usage:
        """What the node has used so far. Raises ClusterError if the node is not running."""
        ...

    def disk_usage(self) -> Mapping[str, int]:
        """`data_directory_bytes` and `pg_wal_bytes`, allocated on disk; pg_wal is counted in both."""
        ...


@runtime_checkable
class Repairable(Protocol):
    """A node whose files can be worked on while its server is down."""

    @property
    def data(self) -> str:
        """The data directory, as the programs of this node see it."""
        ...

    def put(self, name: str, text: str, *, append: bool = False) -> None:
        """Write a file of the data directory, as the server's user. Raises ClusterError."""
        ...

    def names(self, folder: str) -> list[str]:
        """What lies in a folder of the data directory, in no order. Raises ClusterError."""
        ...

    def program(self, name: str, *arguments: str, password: str = "") -> str:
        """Run one of PostgreSQL's programs as the server's user; what it prints.

        `password` is for the server that the program connects to. Raises ClusterError with its words if it fails.
        """
        ...

    def clear(self) -> None:
        """Delete the data, so that a base backup can take its place. Raises ClusterError if the server runs."""
        ...


@runtime_checkable
class Damageable(Protocol):
    """A node whose files can be put into states that PostgreSQL does not expect, whether its server runs or not."""

    @property
    def owner(self) -> int:
        """The user id that the server's files belong to, as the node sees it."""
        ...

    def as_root(self, script: str) -> None:
        """Run a shell script in the data directory, as root where the lab may be root there.

        Raises ClusterError with its words if it fails.
        """
        ...


@runtime_checkable
class ReplicaKeeper(Protocol):
    """Providers that can rebuild replicas, and remove them."""

    def rebuild(self, name: str, node: str) -> None:
        """Replace a node's data, whatever it was, by a copy of the current primary's; the node is a replica then.

        Raises ClusterError if the node is the only primary, or there is none to copy.
        """
        ...

    def remove_replicas(self, name: str) -> list[str]:
        """Remove every node that is not the primary, with its data and its slot; returns their names."""
        ...
