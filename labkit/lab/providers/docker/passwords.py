"""The passwords of a cluster in containers: a libpq password file, which docker-compose.yaml takes as its secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

from labkit import paths
from labkit.errors import ClusterError
from labkit.lab.cluster.node import USERS
from labkit.lab.providers.declared import DOCKER
from labkit.remedies import Remedy, advice


def path(name: str) -> Path:
    return DOCKER.root() / name / "passwords"


def make(name: str, is_new: bool) -> None:
    """Make the passwords of a new cluster; keep those of another. Raises ClusterError if those are gone."""
    file = path(name)
    if not is_new and not file.exists():
        raise ClusterError(
            f"the passwords of cluster {name} are gone: {file} does not exist, but its volumes do",
            remedy=_without(name),
        )
    script = paths.configs() / "postgresql" / "passwords.sh"
    subprocess.run(["sh", str(script), str(file)], check=True)


def read(name: str) -> dict[str, str]:
    """Role name -> password. Raises ClusterError if the file is gone or damaged."""
    file = path(name)
    try:
        lines = [line.split(":") for line in file.read_text(encoding="utf-8").splitlines()]
        passwords = {line[3]: line[4] for line in lines}
    except (OSError, IndexError) as error:
        raise ClusterError(
            f"the passwords of cluster {name} cannot be read from {file} ({error})", remedy=_without(name)
        ) from error
    if missing := [user for user in USERS.values() if user not in passwords]:
        raise ClusterError(f"{file} has no password of {', '.join(missing)}", remedy=advice("put the line back"))
    return passwords


def _without(name: str) -> list[Remedy]:
    recreate = Remedy("recreate", "begins again without its rows", name=name, provider="docker")
    return [advice("put the file back"), recreate]
