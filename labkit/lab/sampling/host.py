"""Probes of the machine the lab runs on, and of the lab's own processes."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import psutil

from labkit.checkers.host_cpu import BUSY, IDLE, KERNEL, LAB, PROCESSES, STOLEN
from labkit.lab import procfs
from labkit.lab.sampling.probe import Reading

NO_ACCOUNT = (
    "this system does not say who used its CPU: what other programs used, and what the hypervisor took, is not known"
)


class HostProbe:
    """The whole machine: load averages, CPU of all cores together, memory, network.

    Network counts every interface, loopback too: a cluster on this machine is reached through loopback.
    """

    node, name = "host", "host"

    def __init__(self) -> None:
        self.accounts = procfs.HERE and sum(psutil.cpu_times()) > 0
        """Whether the kernel says what its CPU was used for; some sandboxes show nothing but zeros."""
        self.not_measured: dict[str, str] = {}
        if not hasattr(psutil.virtual_memory(), "cached"):
            self.not_measured["cached_bytes"] = "this operating system does not report its page cache"
        if not self.accounts:
            self.not_measured |= dict.fromkeys((BUSY, IDLE, STOLEN), NO_ACCOUNT)
        self._cpu_before: tuple[float, float] | None = None

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
        values |= self._cpu(psutil.cpu_times())
        if "cached_bytes" not in self.not_measured:
            values["cached_bytes"] = memory.cached
        return [(self.node, metric, float(value)) for metric, value in values.items()]

    def _cpu(self, times: Any) -> dict[str, float]:
        """Percent of all cores since the last reading, none at the first; and the counters of the account."""
        stolen = getattr(times, "steal", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Added up, not what is left of the total: that would fall by a rounding where nothing was used. What guests of
        # this machine used is part of `user` and `nice` already.
        busy = sum(getattr(times, field, 0.0) for field in ("user", "nice", "system", "irq", "softirq"))
        total = busy + idle + stolen
        found = {BUSY: busy, IDLE: idle, STOLEN: stolen} if self.accounts else {}
        if self._cpu_before is not None and total > self._cpu_before[0]:
            spent, unused = total - self._cpu_before[0], idle - self._cpu_before[1]
            found["cpu_percent"] = max(100 * (1 - unused / spent), 0.0)
        self._cpu_before = total, idle
        return found

    def close(self) -> None:
        """Nothing is held open."""


class ProcessProbe:
    """CPU time and resident memory of named processes, all of one name added up.

    `pids` may grow. What a process had used counts on after its end, as long as one of them is left.
    """

    name = "processes"
    not_measured: Mapping[str, str] = {}

    def __init__(self, node: str, pids: Sequence[int]) -> None:
        self.node, self._pids = node, pids
        self._processes: dict[int, psutil.Process] = {}
        self._cpu_s: dict[int, float] = {}

    async def read(self) -> list[Reading]:
        memory_bytes, gone = [], None
        for pid in self._pids:
            try:
                process = self._processes.get(pid) or psutil.Process(pid)
                self._processes[pid] = process
                with process.oneshot():
                    times = process.cpu_times()
                    self._cpu_s[pid] = times.user + times.system
                    memory_bytes.append(process.memory_info().rss)
            except psutil.NoSuchProcess as error:
                gone = error
        if gone is not None and not memory_bytes:
            raise gone
        used_s = sum(self._cpu_s.values())
        return [(self.node, PROCESSES, used_s), (self.node, "memory_bytes", float(sum(memory_bytes)))]

    def close(self) -> None:
        """Nothing is held open."""


class LabProbe:
    """CPU time of this process and of its children, apart from servers and from the processes of `others`."""

    node, name = LAB, "lab"
    not_measured: Mapping[str, str] = {}

    def __init__(self, others: Sequence[Sequence[int]]) -> None:
        self._others = others
        self._ticks: dict[int, int] = {}
        self._ended_ticks = 0

    async def read(self) -> list[Reading]:
        now: dict[int, int] = {}
        others = {pid for pids in self._others for pid in pids}
        self._add(procfs.children_of_all_threads(os.getpid()), others, now)
        # This process's own counters would get all that a server has ever used when it collects one that ended.
        self._ended_ticks += sum(ticks for pid, ticks in self._ticks.items() if now.get(pid, -1) < ticks)
        self._ticks = now
        own_s = 0.0 if os.getpid() in others else time.process_time()
        ticks = self._ended_ticks + sum(now.values())
        return [(self.node, PROCESSES, own_s + ticks / procfs.TICKS_PER_S)]

    def _add(self, pids: Sequence[int], others: set[int], now: dict[int, int]) -> None:
        for pid in pids:
            try:
                command, fields = procfs.stat(pid)
                if pid in others or command == "postgres":
                    continue
                now[pid] = procfs.own_ticks(fields)
                self._add(procfs.children(pid), others, now)
            except (OSError, psutil.NoSuchProcess):  # it has ended meanwhile
                continue

    def close(self) -> None:
        """Nothing is held open."""


class KernelProbe:
    """CPU time of the kernel's own threads: what disks and network cost beside the processes that use them.

    There are some sixty on two cores and over a thousand on a large machine, so they are read no more often than takes
    2 % of a core; in between the last value holds.
    """

    node, name = KERNEL, "kernel threads"
    not_measured: Mapping[str, str] = {}
    _PARENT = 2  # kthreadd, the parent of all others
    _SHARE = 0.02

    def __init__(self) -> None:
        self._ticks: dict[int, int] = {}
        self._total = 0
        self._due_s = 0.0

    @classmethod
    def can_see(cls) -> bool:
        """Whether they are visible: not in a container, nor where there is no /proc."""
        try:
            return procfs.HERE and procfs.stat(cls._PARENT)[0] == "kthreadd"
        except OSError:
            return False

    async def read(self) -> list[Reading]:
        if (begun_s := time.monotonic()) >= self._due_s:
            now: dict[int, int] = {}
            for pid in [self._PARENT, *procfs.children(self._PARENT)]:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    now[pid] = procfs.own_ticks(procfs.stat(pid)[1])
            if self._due_s:
                self._total += sum(max(ticks - self._ticks.get(pid, 0), 0) for pid, ticks in now.items())
            self._ticks = now
            ended_s = time.monotonic()
            self._due_s = ended_s + (ended_s - begun_s) / self._SHARE
        return [(self.node, PROCESSES, self._total / procfs.TICKS_PER_S)]

    def close(self) -> None:
        """Nothing is held open."""


RELAY = "docker-proxy"
"""Docker's process that carries what goes to a port of this machine into a container."""


def docker_proxies(ports: Collection[int]) -> list[int]:
    """The processes that carry a load to containers by these ports: their CPU is the servers', not other programs'."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.info["name"] == RELAY and "-host-port" in words:
            port = words[words.index("-host-port") + 1]
            found += [process.pid] if port in map(str, ports) else []
    return found


def on_this_machine(host: str) -> bool:
    """Whether a server's address is one of this machine; also where its name cannot be resolved."""
    if not host or host.startswith(("/", "@")):
        return True
    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return True
    own = {address.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for address in addresses}
    return any(address in own or ipaddress.ip_address(address).is_loopback for address in found)
