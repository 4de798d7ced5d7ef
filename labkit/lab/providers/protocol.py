"""How servers come to exist: the one protocol that every provider has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from labkit.lab.cluster.cluster import Cluster
    from labkit.lab.providers.declared import Declared


@dataclass(frozen=True)
class ClusterSpec:
    """What a cluster should be.

    `settings` are PostgreSQL settings that an experiment names on top of configs/postgresql/, the same on
    every node. `base_port` 0 takes any free ports on 127.0.0.1; otherwise node i listens on base_port + i.
    """

    name: str = "lab"
    replicas: int = 2
    base_port: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def node_names(self) -> list[str]:
        """pg1 is the first primary, pg2 … its replicas."""
        return [f"pg{i + 1}" for i in range(self.replicas + 1)]


class Provider(Protocol):
    """Brings a cluster into existence and takes it away again."""

    declared: Declared

    @property
    def name(self) -> str: ...

    def up(self, spec: ClusterSpec) -> Cluster:
        """Bring the cluster up, or find it running; idempotent."""
        ...

    def find(self, name: str) -> Cluster | None:
        """The cluster of that name as it stands, running or not; None if there is none."""
        ...

    def names(self) -> list[str]:
        """The clusters there are, running or not, whole or cut off while being made."""
        ...

    def down(self, name: str, *, purge: bool = False) -> None:
        """Stop every server; with `purge` delete their data too. No error if there is nothing."""
        ...
