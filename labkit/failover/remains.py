"""What the files of a server that is down, or does not answer, still tell."""

from __future__ import annotations

import re

from labkit import postgres
from labkit.cluster import Node
from labkit.errors import BadInput, ClusterError
from labkit.providers.base import Repairable
from labkit.synchronous import Synchronous, parse_names

_REDO = re.compile(r"^Latest checkpoint's REDO location:\s+([0-9A-F]+/[0-9A-F]+)$", re.MULTILINE)
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
        redo, timeline = _REDO.search(found), _TIMELINE.search(found)
        if redo is None or timeline is None:
            return None
        control.program(
            "pg_waldump",
            "--quiet",
            f"--path={control.data}/pg_wal",
            f"--timeline={timeline[1]}",
            f"--start={redo[1]}",
        )
    except ClusterError as error:
        end = _END.search(str(error))
        return postgres.parse_lsn(end[1]) if end else None
    return None


def promised(node: Node) -> Synchronous | None:
    """What its commits waited for, as its files set it; None if they cannot be read."""
    control = node.control
    if not isinstance(control, Repairable) or control.running():
        return None
    try:
        names, level = (
            control.program("postgres", "-D", control.data, "-C", name).strip()
            for name in ("synchronous_standby_names", "synchronous_commit")
        )
        return parse_names(names, level)
    except (ClusterError, BadInput):
        return None
