"""The benchmarks, without a server: what others can read of them while they run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import load
from benchmarks.contenders import Job
from labkit import paths
from labkit.lab.cluster.cluster import Cluster

JOB = Job("host=h port=5 user=u password=hunter2 dbname=d", "SELECT $1", 10, 1, 2, 1, 0.1)
PGBENCH = """#!/bin/sh
echo "$*" > {seen}
env >> {seen}
echo "number of transactions actually processed: 50"
echo "tps = 10.0"
"""


def test_a_contender_reads_its_job_from_its_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        seen.update(options, words=words)
        return subprocess.CompletedProcess(words, 0, '{"requests": 1}', "")

    monkeypatch.setattr(subprocess, "run", run)
    assert load.contender("asyncpg_pool", JOB, cluster=None) == {"requests": 1}  # type: ignore[arg-type]
    assert "hunter2" not in " ".join(seen["words"])
    assert json.loads(seen["input"]) == asdict(JOB)


def test_a_contender_takes_the_job_that_it_is_given() -> None:
    words = [sys.executable, "-m", "benchmarks.contenders", "labkit"]
    refused = subprocess.run(
        words, input="{}", cwd=paths.home(), capture_output=True, text=True, timeout=60, check=False
    )
    assert "missing 7 required positional arguments: 'conninfo', 'statement'" in refused.stderr


def test_pgbench_takes_the_server_from_its_environment(tmp_path: Path) -> None:
    program, seen = tmp_path / "pgbench", tmp_path / "seen"
    program.write_text(PGBENCH.format(seen=seen))
    program.chmod(0o755)
    found = load.pgbench(JOB, Cluster("bench", "embedded", [], binaries=str(tmp_path), version="18"))
    assert (found["requests"], found["seconds"]) == (50, 5)
    arguments, *environment = seen.read_text().splitlines()
    assert "hunter2" not in arguments
    assert {"PGPASSWORD=hunter2", "PGHOST=h", "PGPORT=5", "PGUSER=u", "PGDATABASE=d"} <= set(environment)
