"""How far a failover has come, on disk: what `labkit status` says of one that was cut off."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labkit import project


def write(cluster: str, facts: Mapping[str, Any]) -> None:
    """Replace the note."""
    file = _file(cluster)
    fresh = file.with_suffix(".tmp")
    fresh.write_text(json.dumps(facts), encoding="utf-8")
    fresh.replace(file)


def remove(cluster: str) -> None:
    _file(cluster).unlink(missing_ok=True)


def sentence(cluster: str) -> str | None:
    """What there is to say about a failover that has begun and not ended; None if there is none."""
    with contextlib.suppress(OSError, ValueError):
        facts = json.loads(_file(cluster).read_text(encoding="utf-8"))
        chosen = f", to {facts['new']}" if facts.get("new") else ""
        return (
            f"a failover from {facts['old']}{chosen} is at, or was cut off in, step {facts['step']}; "
            f"`labkit failover --name {cluster}` goes on, `labkit down --purge --name {cluster}` gives up"
        )
    return None


def _file(cluster: str) -> Path:
    project.clusters().mkdir(parents=True, exist_ok=True)
    return project.clusters() / f".{cluster}.failover.json"
