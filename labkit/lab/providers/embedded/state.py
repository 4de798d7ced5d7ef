"""What is written down about an embedded cluster: cluster.json, passwords.json and the lock beside them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labkit.errors import ClusterError, WaitTimeout

SCHEMA_VERSION = 1


@dataclass
class NodeState:
    """One node on disk. `ready` is false from before its folder is made until it has served its first query."""

    name: str
    port: int
    folder: Path
    ready: bool = False

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def passfile(self) -> Path:
        """With the replication user's password, for the server and nobody else."""
        return self.folder / "pgpass"

    @property
    def log(self) -> Path:
        return self.folder / "postgresql.log"


@dataclass
class ClusterState:
    """One cluster on disk. `servers` is the folder of all nodes' folders, wherever the servers' user can reach it."""

    name: str
    phase: str
    servers: Path
    binaries: Path
    version: str
    base_port: int = 0
    settings: dict[str, str] = field(default_factory=dict)
    nodes: list[NodeState] = field(default_factory=list)


def folder(clusters: Path, name: str) -> Path:
    return clusters / name


def read(clusters: Path, name: str) -> ClusterState | None:
    """The recorded state; None if there is no such cluster. Raises ClusterError if the record cannot be read."""
    file = folder(clusters, name) / "cluster.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error
    try:
        if content.pop("schema") != SCHEMA_VERSION:
            raise ValueError("it was written by another version of labkit")
        nodes = [NodeState(**(node | {"folder": Path(node["folder"])})) for node in content.pop("nodes")]
        servers, binaries = Path(content.pop("servers")), Path(content.pop("binaries"))
        return ClusterState(**content, servers=servers, binaries=binaries, nodes=nodes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(file, error) from error


def write(clusters: Path, state: ClusterState) -> None:
    """Record the state; a crash leaves either the old or the new record."""
    home = folder(clusters, state.name)
    home.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"schema": SCHEMA_VERSION, **asdict(state)}
    _replace(home / "cluster.json", json.dumps(content, indent=1, default=str), 0o644)


def read_passwords(clusters: Path, name: str) -> dict[str, str]:
    """Role name -> password. Raises ClusterError if the file is gone or damaged."""
    file = folder(clusters, name) / "passwords.json"
    try:
        return {str(role): str(password) for role, password in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise _unreadable(file, error) from error


def make_passwords(clusters: Path, name: str, roles: Iterator[str] | list[str]) -> dict[str, str]:
    """New random passwords, in a file that only the lab's user can read."""
    passwords = {role: secrets.token_urlsafe(24) for role in roles}
    _replace(folder(clusters, name) / "passwords.json", json.dumps(passwords, indent=1), 0o600)
    return passwords


@contextlib.contextmanager
def locked(clusters: Path, name: str, deadline_s: float = 120.0) -> Iterator[None]:
    """Hold the cluster's lock: one `up` or `down` at a time. Raises WaitTimeout naming the holder.

    The lock file lies beside the cluster's folder and is never deleted: deleting it would let two processes hold
    two files of one name. The system releases the lock however its holder ends.
    """
    try:
        clusters.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(clusters / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ClusterError(
            f"the folder for clusters {clusters} cannot be used ({error.strerror}); point LABKIT_DATA at a folder that "
            "can be written to"
        ) from error
    try:
        give_up = time.monotonic() + deadline_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
                    raise WaitTimeout(
                        f"waited {deadline_s:g} s for another labkit (process {holder}) that is working on cluster "
                        f"{name}; try again when it has ended"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _replace(file: Path, text: str, mode: int) -> None:
    fresh = file.with_suffix(".tmp")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(file)


def _unreadable(file: Path, error: Exception) -> ClusterError:
    return ClusterError(
        f"{file} cannot be read ({type(error).__name__}: {error}); "
        f"`labkit down --purge --name {file.parent.name}` removes what is left of this cluster"
    )
