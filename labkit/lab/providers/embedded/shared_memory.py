"""System V shared memory that a killed server leaves behind: given back when its data directory is deleted.

A server that starts again in the same data directory takes it over. Without one nobody does, and the kernel has room
for so many segments only (`kernel.shmmni`, 4,096): then no server starts any more.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

_LINE = 6  # of postmaster.pid, from 0: key and id of the segment (LOCK_FILE_LINE_SHMEM_KEY, miscadmin.h)
_IPC_RMID = 0
_SEGMENTS = Path("/proc/sysvipc/shm")


def release(data: Path) -> None:
    """Remove the segment of the killed server of a data directory, if it is still there and nobody uses it.

    It is taken for that server's only if key, id and the process that made it are those of postmaster.pid. Does
    nothing where the kernel does not list its segments, as on macOS.
    """
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        pid, (key, number) = int(lines[0]), map(int, lines[_LINE].split())
        listed = _SEGMENTS.read_text(encoding="utf-8").splitlines()[1:]
    except (OSError, ValueError, IndexError):  # stopped in good order, cut off before it had one, or not Linux
        return
    for line in listed:
        its_key, its_number, _, _, creator, _, attached = map(int, line.split()[:7])
        # Both print the same 32 bits, one with a sign.
        if (its_key % 2**32, its_number, creator, attached) == (key % 2**32, number, pid, 0):
            ctypes.CDLL(None).shmctl(number, _IPC_RMID, None)
