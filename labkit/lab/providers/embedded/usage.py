"""What a server's process tree has used, cheaply enough to ask every second.

On Linux /proc is read directly: with a hundred backends psutil's own layers would cost several times as much.
Counters do not fall when a backend ends: the kernel adds a collected child's CPU time and I/O to its postmaster's.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

import psutil

from labkit.lab import procfs
from labkit.lab.cluster.powers import Usage

NOT_MEASURED = {
    "cached_bytes": "the page cache belongs to the host; the kernel accounts it to a node only inside a cgroup",
    "received_bytes": "the kernel counts network traffic for an interface, not for a process",
    "sent_bytes": "the kernel counts network traffic for an interface, not for a process",
    "throttled_s": "the servers run without a CPU limit",
    "cpu_limit": "the servers run without a CPU limit",
}
if not procfs.HERE:
    NOT_MEASURED |= {
        "memory_bytes": "this system does not tell a process's shared memory from its private memory",
        "read_bytes": "this system does not count storage I/O of a process",
        "written_bytes": "this system does not count storage I/O of a process",
    }

_PAGE = resource.getpagesize()
_ATTEMPTS = 5


class UsageMeter:
    """Reads the usage of one postmaster and its children."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self._last_cpu_s: dict[int, float] = {}
        self._ended_cpu_s = 0.0

    def read(self) -> Usage:
        """Usage so far. Raises psutil.NoSuchProcess if the postmaster is gone."""
        return self._from_proc() if procfs.HERE else self._from_psutil()

    def _from_proc(self) -> Usage:
        pid = self.process.pid
        try:
            own = _process(pid, with_children=True)
            for _ in range(_ATTEMPTS):
                children = [counters for child in procfs.children(pid) if (counters := _process_or_none(child))]
                before, own = own, _process(pid, with_children=True)
                if own == before:
                    break  # else one may have been collected in between, and be counted twice or not at all
        except OSError as error:
            raise psutil.NoSuchProcess(pid) from error
        ticks, private, shared, read, written = zip(own, *children, strict=True)
        return Usage(
            cpu_s=sum(ticks) / procfs.TICKS_PER_S,
            memory_bytes=(sum(private) + max(shared)) * _PAGE,
            read_bytes=sum(read),
            written_bytes=sum(written),
        )

    def _from_psutil(self) -> Usage:
        now: dict[int, float] = {}
        for process in [self.process, *self.process.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            now[process.pid] = times.user + times.system
        # Nothing keeps the time of ended children here, so it is added up from one reading to the next.
        self._ended_cpu_s += sum(cpu_s for pid, cpu_s in self._last_cpu_s.items() if pid not in now)
        self._last_cpu_s = now
        return Usage(cpu_s=self._ended_cpu_s + sum(now.values()))


def _process(pid: int, *, with_children: bool = False) -> tuple[int, int, int, int, int]:
    """CPU ticks, private pages, shared pages, bytes read, bytes written of one process (proc(5))."""
    _, fields = procfs.stat(pid)
    ticks = procfs.own_ticks(fields)
    if with_children:
        ticks += procfs.children_ticks(fields)
    memory = procfs.read(f"/proc/{pid}/statm").split()
    shared = int(memory[2])
    # rchar, wchar, syscr, syscw, read_bytes, write_bytes, cancelled_write_bytes: each name before its number.
    io = procfs.read(f"/proc/{pid}/io").split()
    return ticks, int(memory[1]) - shared, shared, int(io[9]), int(io[11])


def _process_or_none(pid: int) -> tuple[int, int, int, int, int] | None:
    """The same of one that may have ended: its postmaster's own counters have it then."""
    try:
        return _process(pid)
    except OSError:
        return None


def disk_usage(data: Path) -> dict[str, int]:
    """Bytes allocated on disk: the data directory, and pg_wal, which is part of it."""
    wal = _allocated(data / "pg_wal")
    return {"data_directory_bytes": _allocated(data, skip="pg_wal") + wal, "pg_wal_bytes": wal}


def _allocated(folder: Path, skip: str = "") -> int:
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name == skip:
                    continue
                try:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                except FileNotFoundError:  # the server removes files while they are being counted
                    continue
                if entry.is_dir(follow_symlinks=False):
                    total += _allocated(Path(entry.path))
    except FileNotFoundError:
        return total
    return total
