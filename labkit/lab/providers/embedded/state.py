"""What is written down about an embedded cluster: cluster.json and passwords.json."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labkit import files
from labkit.errors import ClusterError
from labkit.remedies import Remedy

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
        """With the replication user's password, for the server alone."""
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
    files.replace(home / "cluster.json", json.dumps(content, indent=1, default=str) + "\n")


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
    files.replace(folder(clusters, name) / "passwords.json", json.dumps(passwords, indent=1) + "\n", mode=0o600)
    return passwords


def _unreadable(file: Path, error: Exception) -> ClusterError:
    return ClusterError(
        f"{file} cannot be read ({type(error).__name__}: {error})",
        remedy=Remedy("down", "removes what is left of this cluster", name=file.parent.name, purge=True),
    )
