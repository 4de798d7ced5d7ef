"""Probes of what one server's processes and files use, through the powers of its provider."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Measurable
from labkit.lab.sampling.probe import Dated, Reading

USAGE_METRICS = {
    "cpu_s": "cpu_seconds_total",
    "memory_bytes": "memory_bytes",
    "cached_bytes": "cached_bytes",
    "read_bytes": "read_bytes_total",
    "written_bytes": "written_bytes_total",
    "received_bytes": "received_bytes_total",
    "sent_bytes": "sent_bytes_total",
    "throttled_s": "throttled_seconds_total",
    "cpu_limit": "cpu_limit_cores",
}
DISK_METRICS = ("data_directory_bytes", "pg_wal_bytes")
LAG_METRICS = ("lag_bytes", "lag_s")


class UsageProbe:
    """CPU, memory, storage and network use of a node; what the provider cannot measure is absent, never zero."""

    name = "usage"

    def __init__(self, node: str, control: Measurable) -> None:
        self.node, self._control = node, control

    @property
    def not_measured(self) -> Mapping[str, str]:
        return {USAGE_METRICS.get(name, name): reason for name, reason in self._control.not_measured.items()}

    async def read(self) -> list[Reading]:
        usage = self._control.usage()
        values = ((metric, getattr(usage, name)) for name, metric in USAGE_METRICS.items())
        readings: list[Reading] = [(self.node, metric, float(value)) for metric, value in values if value is not None]
        return readings if usage.read_at_ns is None else Dated(readings, usage.read_at_ns)

    def close(self) -> None:
        """Nothing is held open."""


class DiskProbe:
    """Bytes on disk of a node's data directory and of the WAL in it."""

    name = "disk"
    not_measured: Mapping[str, str] = {}

    def __init__(self, node: str, control: Measurable) -> None:
        self.node, self._control = node, control

    async def read(self) -> list[Reading]:
        # In a container it takes a process there: other probes must not wait for that.
        counted = await asyncio.to_thread(self._control.disk_usage)
        return [(self.node, metric, float(value)) for metric, value in counted.items()]

    def close(self) -> None:
        """Nothing is held open."""


def not_measurable(node: Node) -> dict[str, str]:
    """Metric name -> reason, for a node whose provider measures nothing at all."""
    reason = "labkit did not start this server: it sees what SQL shows, not the server's processes and files"
    found = dict.fromkeys((*USAGE_METRICS.values(), *DISK_METRICS), reason)
    if node.application_name is None:
        unnamed = "several replicas have one application_name, so the primary does not tell them apart"
        found |= dict.fromkeys(LAG_METRICS, unnamed)
    return found
