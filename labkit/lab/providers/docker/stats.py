"""What the engine's statistics of a container mean, and one stream of them for each container."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from labkit.errors import ClusterError
from labkit.lab.cluster.powers import Usage

Reading = Mapping[str, Any]
STALE_S = 5.0
"""The engine sends a reading a second; one older than this is no reading of now."""
NO_BLOCK_IO = (
    "the engine's kernel has counted no block I/O for this container; with cgroup v1 newer kernels count none until "
    "some container has an I/O limit"
)


def usage(reading: Reading, cpu_limit: float | None = None, read_at_ns: int | None = None) -> Usage:
    """A reading of the stats API, of an engine on cgroup v1 or v2, as what the node has used since it started.

    memory_bytes is what only swapping could free: anonymous and shared memory. cached_bytes is the page cache.
    `docker stats` shows both together with kernel memory, less the part of the cache that was not used of late.
    """
    cpu = reading["cpu_stats"]
    memory = reading.get("memory_stats", {}).get("stats", {})
    # cgroup v1 has both, for the group alone and with its children.
    total = "total_" if "total_inactive_anon" in memory else ""
    networks = (reading.get("networks") or {}).values()
    return Usage(
        cpu_s=cpu["cpu_usage"]["total_usage"] / 1e9,
        memory_bytes=_sum(memory, f"{total}inactive_anon", f"{total}active_anon"),
        cached_bytes=_sum(memory, f"{total}inactive_file", f"{total}active_file"),
        read_bytes=block_bytes(reading, "read"),
        written_bytes=block_bytes(reading, "write"),
        # An isolated node has no network: what it had received before is gone with the interface.
        received_bytes=sum(network["rx_bytes"] for network in networks) if networks else None,
        sent_bytes=sum(network["tx_bytes"] for network in networks) if networks else None,
        throttled_s=cpu.get("throttling_data", {}).get("throttled_time", 0) / 1e9,
        cpu_limit=cpu_limit,
        read_at_ns=read_at_ns,
    )


def block_bytes(reading: Reading, operation: str) -> int | None:
    """Bytes read from or written to all block devices; None if the kernel counts none."""
    entries = reading.get("blkio_stats", {}).get("io_service_bytes_recursive") or []
    found = [int(entry["value"]) for entry in entries if entry["op"].lower() == operation]
    return sum(found) if found else None


def _sum(memory: Mapping[str, int], *names: str) -> int | None:
    return sum(memory[name] for name in names) if all(name in memory for name in names) else None


class StatsStream:
    """The newest reading of a container: asked once, then kept by a thread that reads the engine's stream.

    The thread ends with the container, or when nothing was asked for a while.
    """

    def __init__(self, ask: Callable[[], Reading], stream: Callable[[], Generator[Reading, None, None]]) -> None:
        self._ask, self._stream = ask, stream
        self._lock = threading.Lock()
        self._reading: Reading | None = None
        self._read_at_ns, self._asked_at = 0, 0.0
        self._thread: threading.Thread | None = None

    def newest(self) -> Reading:
        """The newest reading. Raises ClusterError if the container does not run."""
        return self.newest_at()[0]

    def newest_at(self) -> tuple[Reading, int]:
        """The same, and when it came on the monotonic clock: the engine sends it as soon as it has read it."""
        now = time.monotonic()
        with self._lock:
            self._asked_at = now
            if self._reading is not None and now - self._read_at_ns / 1e9 < STALE_S:
                return self._reading, self._read_at_ns
        reading = self._ask()
        if not _lives(reading):
            raise ClusterError("the engine has no statistics of the container: it does not run")
        with self._lock:
            self._keep(reading)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._follow, name="labkit-docker-stats", daemon=True)
                self._thread.start()
            return reading, self._read_at_ns

    def _follow(self) -> None:
        # A stream that breaks is opened again by the next one who asks and finds the reading old.
        with contextlib.suppress(ClusterError), contextlib.closing(self._stream()) as readings:
            for reading in readings:
                with self._lock:
                    if not _lives(reading) or time.monotonic() - self._asked_at > 6 * STALE_S:
                        self._reading = None
                        return
                    self._keep(reading)

    def _keep(self, reading: Reading) -> None:
        self._reading, self._read_at_ns = reading, time.monotonic_ns()


def _lives(reading: Reading) -> bool:
    # Of a container that has ended the engine sends the same form, empty.
    return bool(reading.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage"))
