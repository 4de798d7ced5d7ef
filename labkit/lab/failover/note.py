"""How far a failover has come, on disk: what is said of one that was cut off, and where the next goes on.

The note lies in the folder that a purge removes, so a new cluster of the same name knows nothing of it.
"""

from __future__ import annotations

import contextlib
import json
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from labkit import files
from labkit.errors import ClusterError
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.providers.declared import DECLARED
from labkit.remedies import advice


@dataclass(frozen=True)
class Note:
    """`step` had begun; `fenced`: the old primary would start as a replica; `promoting`: it was told to become primary,
    whether or not it has."""

    old: str
    step: str
    new: str | None = None
    fenced: bool = False
    promoting: str | None = None


def read(cluster: Cluster) -> Note | None:
    """Of a failover that has begun and not ended; None if there is none."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Note(**json.loads(_file(cluster).read_text(encoding="utf-8")))
    return None


def write(cluster: Cluster, facts: Note) -> None:
    """Replace the note."""
    file = _file(cluster)
    file.parent.mkdir(parents=True, exist_ok=True)
    files.replace(file, json.dumps(asdict(facts)), durable=False)


def remove(cluster: Cluster) -> None:
    _file(cluster).unlink(missing_ok=True)


def unfinished(cluster: Cluster) -> ClusterError | None:
    """What there is to say of a failover that has begun and not ended, not raised; None if there is none."""
    found = read(cluster)
    if found is None:
        return None
    chosen = f", to {found.new}" if found.new else ""
    fenced = f" ({found.old} is fenced: it would start as a replica)" if found.fenced else ""
    return ClusterError(
        f"a failover from {found.old}{chosen} is at, or was cut off in, step {found.step}{fenced}",
        remedy=[cluster.remedy("failover", "goes on"), cluster.remedy("down", "gives up", purge=True)],
    )


def alone_on(cluster: Cluster) -> AbstractContextManager[None]:
    """The right to be the only failover or rejoin of a cluster. Raises ClusterError if another is under way."""
    reason = f"a failover or rejoin of cluster {cluster.name} is under way already"
    busy = ClusterError(reason, remedy=advice("wait for its end"))
    return files.locked(_root(cluster) / f".{cluster.name}.failover.lock", lambda _: busy)


def _file(cluster: Cluster) -> Path:
    return _root(cluster) / cluster.name / "failover.json"


def _root(cluster: Cluster) -> Path:
    return DECLARED[cluster.provider].root()
