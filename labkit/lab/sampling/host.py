"""Probes of the machine the lab runs on, and of the load generator's processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil

from labkit.lab.sampling.probe import Reading


class HostProbe:
    """The whole machine: load averages, CPU of all cores together, memory, network.

    Network counts every interface, loopback too: a cluster on this machine is reached through loopback.
    """

    node, name = "host", "host"

    def __init__(self) -> None:
        self.not_measured: Mapping[str, str] = (
            {}
            if hasattr(psutil.virtual_memory(), "cached")
            else {"cached_bytes": "this operating system does not report its page cache"}
        )
        self._cpu_began = False

    async def read(self) -> list[Reading]:
        load = psutil.getloadavg()
        memory = psutil.virtual_memory()
        network = psutil.net_io_counters()
        values = {
            "load1": load[0],
            "load5": load[1],
            "load15": load[2],
            "memory_used_bytes": memory.used,
            "memory_available_bytes": memory.available,
            "received_bytes_total": network.bytes_recv,
            "sent_bytes_total": network.bytes_sent,
        }
        # psutil counts from the same thread's last call; the first only marks the beginning.
        cpu_percent = psutil.cpu_percent()
        if self._cpu_began:
            values["cpu_percent"] = cpu_percent
        self._cpu_began = True
        if not self.not_measured:
            values["cached_bytes"] = memory.cached
        return [(self.node, metric, float(value)) for metric, value in values.items()]

    def close(self) -> None:
        """Nothing is held open."""


class ProcessProbe:
    """CPU time and resident memory of named processes, all of one name added up."""

    name = "processes"
    not_measured: Mapping[str, str] = {}

    def __init__(self, node: str, pids: Sequence[int]) -> None:
        self.node = node
        self._processes = [psutil.Process(pid) for pid in pids]

    async def read(self) -> list[Reading]:
        cpu_s, memory_bytes = 0.0, 0
        for process in self._processes:
            with process.oneshot():
                times = process.cpu_times()
                cpu_s += times.user + times.system
                memory_bytes += process.memory_info().rss
        return [(self.node, "cpu_seconds_total", cpu_s), (self.node, "memory_bytes", float(memory_bytes))]

    def close(self) -> None:
        """Nothing is held open."""
