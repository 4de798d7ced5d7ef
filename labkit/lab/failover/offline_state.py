"""What the files of a server that is down, or does not answer, still tell."""

from __future__ import annotations

import re
from collections.abc import Iterable

from labkit.errors import BadInput, ClusterError
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Repairable
from labkit.lsn import lsn_text, parse_lsn
from labkit.replication import Replication

_REDO = re.compile(r"^Latest checkpoint's REDO location:\s+([0-9A-F]+/[0-9A-F]+)$", re.MULTILINE)
_SEGMENT = re.compile(r"^Bytes per WAL segment:\s+(\d+)$", re.MULTILINE)
_TIMELINE = re.compile(r"^Latest checkpoint's TimeLineID:\s+(\d+)$", re.MULTILINE)
# pg_waldump reads until it finds no valid record: that is how WAL ends, and where.
_END = re.compile(r"error in WAL record at ([0-9A-F]+/[0-9A-F]+)")


def last_lsn(node: Node) -> int | None:
    """Where its WAL ends, or ended at this moment if the server hangs; None if its files cannot be read."""
    control = node.control
    if not isinstance(control, Repairable):
        return None
    try:
        found = control.program("pg_controldata", f"--pgdata={control.data}")
        redo, timeline, segment = (pattern.search(found) for pattern in (_REDO, _TIMELINE, _SEGMENT))
        if redo is None or timeline is None or segment is None:
            return None
        written = segments(control.names("pg_wal"), int(timeline[1]), int(segment[1]))
        if written is None:
            return None
        newest, first, end = written
        # A promoted server writes its new timeline into the control file only with the checkpoint that follows.
        start = parse_lsn(redo[1]) if newest == int(timeline[1]) else first
        control.program(
            "pg_waldump",
            "--quiet",
            f"--path={control.data}/pg_wal",
            f"--timeline={newest}",
            f"--start={lsn_text(start)}",
            # Without an end it would wait 5 s for a segment that is not there yet.
            f"--end={lsn_text(end)}",
        )
    except ClusterError as error:
        invalid = _END.search(str(error))
        return parse_lsn(invalid[1]) if invalid else None
    return end


def segments(names: Iterable[str], timeline: int, segment_bytes: int) -> tuple[int, int, int] | None:
    """The newest timeline, where its first WAL segment begins and its last one ends; None if there is none, or if it
    is older than `timeline`, that of the control file.

    `names` are those of pg_wal. A segment's name is its timeline and its number, the latter in two parts: which 4 GiB,
    and which segment of these (PostgreSQL's XLogFileName); each has eight hexadecimal digits.
    """
    there = [name for name in names if re.fullmatch("[0-9A-F]{24}", name)]
    newest = max((int(name[:8], 16) for name in there), default=0)
    if newest < max(1, timeline):
        return None
    numbers = [
        int(name[8:16], 16) * (2**32 // segment_bytes) + int(name[16:], 16)
        for name in there
        if int(name[:8], 16) == newest
    ]
    return newest, min(numbers) * segment_bytes, (max(numbers) + 1) * segment_bytes


def promised(node: Node) -> Replication | None:
    """What its commits waited for, as its files set it; None if they cannot be read."""
    control = node.control
    if not isinstance(control, Repairable):
        return None
    try:
        names, level = (
            control.program("postgres", "-D", control.data, "-C", name).strip()
            for name in ("synchronous_standby_names", "synchronous_commit")
        )
        return Replication.from_setting(names, level)
    except (ClusterError, BadInput):
        return None
