"""The front door: clusters held by hand, and runs found again."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.lab import providers
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.providers.protocol import ClusterSpec
from labkit.lab.reservation import alone_on


def up(
    name: str = "lab",
    replicas: int = 2,
    *,
    provider: str = "embedded",
    base_port: int = 0,
    settings: Mapping[str, str] | None = None,
) -> Cluster:
    """Bring a cluster up, or find it running: one primary `pg1` and its replicas `pg2` ….

    `base_port` 0 takes free ports. `settings` are PostgreSQL settings on top of configs/postgresql/.
    Raises ClusterError, and ProviderUnavailable if this machine cannot run servers.
    """
    return providers.provider(provider).up(ClusterSpec(name, replicas, base_port, dict(settings or {})))


def down(name: str = "lab", *, provider: str = "embedded", purge: bool = False) -> None:
    """Stop a cluster; with `purge` delete its data too. No error if there is none.

    Raises ClusterError while an experiment uses it.
    """
    source = providers.provider(provider)
    with alone_on(source.declared.name, name):
        source.down(name, purge=purge)
