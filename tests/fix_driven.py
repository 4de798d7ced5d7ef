"""`labkit` in a process of its own, with a data folder of its own that is cleared away with its servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_cluster import Prepared, folder_for_servers, in_memory


def command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from labkit.cli import main; main()", *words]


def with_parameters(*pairs: str) -> list[str]:
    """`-p name=value` for each."""
    return [word for pair in pairs for word in ("-p", pair)]


@pytest.fixture
def data() -> Iterator[Path]:
    """The data folder of these processes."""
    with folder_for_servers(in_memory()) as folder:
        yield folder


@pytest.fixture
def environment(data: Path) -> Iterator[dict[str, str]]:
    found = os.environ | {"LABKIT_DATA": str(data)}
    yield found
    subprocess.run(command("down", "--all", "--purge"), env=found, capture_output=True, timeout=60, check=True)


@pytest.fixture
def driven(environment: dict[str, str], prepared: Prepared, data: Path) -> dict[str, str]:
    """The same, where a cluster named `driven` was up before, and is stopped."""
    prepared.copy(data / "clusters", "driven")
    return environment


def nodes_running(environment: dict[str, str]) -> list[bool]:
    """Of every cluster, node by node."""
    words = command("status", "--json")
    status = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return [node["running"] for cluster in json.loads(status.stdout) for node in cluster["nodes"]]
