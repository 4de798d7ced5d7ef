"""What the kernel says of processes, read from /proc: with a hundred of them psutil's own layers cost several times
as much (proc(5))."""

from __future__ import annotations

import os
import sys

import psutil

HERE = sys.platform == "linux"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def read(path: str) -> bytes:
    """A small file of /proc. One read is one consistent snapshot; the list of children of a busy server is the
    longest of these. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 65536)
    finally:
        os.close(descriptor)


def stat(pid: int) -> tuple[str, list[bytes]]:
    """The command name of a process and the fields of its `stat` after it, field 3 first. Raises OSError."""
    # The command name may hold spaces and brackets.
    before, _, after = read(f"/proc/{pid}/stat").rpartition(b")")
    return before.partition(b"(")[2].decode(errors="replace"), after.split()


def own_ticks(fields: list[bytes]) -> int:
    """Clock ticks of CPU that a process has used itself, user and system, from the fields of its `stat`."""
    return int(fields[11]) + int(fields[12])


def children_ticks(fields: list[bytes]) -> int:
    """Clock ticks of CPU of the children that it has collected."""
    return int(fields[13]) + int(fields[14])


def children(pid: int) -> list[int]:
    """The children of a process with one thread. Raises OSError if it is gone."""
    return _children(pid, pid)


def children_of_all_threads(pid: int) -> list[int]:
    """The children of a process, whichever thread made them. Raises OSError if it is gone."""
    threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  (Path objects would cost more than the reading)
    return [child for thread in threads for child in _children(pid, int(thread))]


def _children(pid: int, thread: int) -> list[int]:
    try:
        return [int(child) for child in read(f"/proc/{pid}/task/{thread}/children").split()]
    except FileNotFoundError:  # kernels built without this list, or a thread that has ended
        return [child.pid for child in psutil.Process(pid).children()] if thread == pid else []
