"""`labkit up | status | down | doctor` as a shell sees them: output, exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fix_cli import shell

from labkit.lab.providers.embedded.provider import EmbeddedProvider


def answer(*words: str) -> Any:
    done = shell(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_cluster_s_life(provider: EmbeddedProvider) -> None:
    made = answer("up", "--name", "own", "--replicas", "1", "--set", "work_mem=3MB")[0]
    assert [(node["name"], node["role"], node["replication"]) for node in made["nodes"]] == [
        ("pg1", "primary", None),
        ("pg2", "replica", "streaming"),
    ]
    shown = shell("status", "--name", "own")
    assert shown.returncode == 0
    for node in made["nodes"]:
        for word in (node["name"], node["role"], str(node["port"]), str(node["pid"]), node["data_directory"]):
            assert word in shown.stdout

    assert answer("down", "--name", "own") == [{"name": "own", "state": "stopped"}]
    stopped = answer("status", "--name", "own")[0]
    assert [node["running"] for node in stopped["nodes"]] == [False, False]
    assert [node["role"] for node in stopped["nodes"]] == [None, None]
    assert "labkit up --name own" in stopped["problem"]

    assert answer("down", "--name", "own", "--purge") == [{"name": "own", "state": "removed"}]
    assert answer("down", "--name", "own") == [{"name": "own", "state": "absent"}]
    assert "own" not in provider.names()


def test_status_shows_a_replica_that_is_down(provider: EmbeddedProvider) -> None:
    answer("up", "--name", "own", "--replicas", "1")
    found = provider.find("own")
    assert found is not None
    found.node("pg2").control.stop("immediate")
    nodes = answer("status", "--name", "own")[0]["nodes"]
    assert [(node["running"], node["replication"]) for node in nodes] == [(True, None), (False, "disconnected")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("up", "--name", "a/b", "--replicas", "50"), "2 problems in the cluster specification"),
        (("up", "--set", "work_mem"), "'work_mem' is not of the form name=value"),
        (("up", "--replicas", "many"), "Invalid value for '--replicas'"),
        (("status", "--name", "absent"), "there is no cluster 'absent'"),
        (("down", "--name", "x", "--all"), "give --name or --all, not both"),
        (("fly",), "No such command 'fly'"),
    ],
)
@pytest.mark.usefixtures("lab_data")
def test_bad_usage_is_one_message_and_exit_code_2(words: tuple[str, ...], message: str) -> None:
    done = shell(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("lab_data")
def test_no_binaries_is_exit_code_2_and_says_what_is_missing(tmp_path: Path) -> None:
    done = shell("up", "--name", "own", LABKIT_PG_BIN=str(tmp_path))
    assert done.returncode == 2
    assert "it lacks postgres, initdb, pg_basebackup" in done.stderr
    doctor = shell("doctor", "--json", LABKIT_PG_BIN=str(tmp_path))
    assert doctor.returncode == 2
    binaries = next(check for check in json.loads(doctor.stdout) if check["name"] == "binaries")
    assert binaries["status"] == "fail"
    assert "LABKIT_PG_BIN" in binaries["remedy"] + binaries["found"]


@pytest.mark.usefixtures("lab_data")
def test_doctor_looks_at_all_that_the_lab_needs() -> None:
    checks = {check["name"]: check for check in answer("doctor")}
    assert set(checks) >= {
        "python",
        "packages",
        "psycopg",
        "jupyter kernel",
        "binaries",
        "account",
        "ports",
        "disk",
        "memory",
        "open files",
        "cores",
    }
    assert "PostgreSQL" in checks["binaries"]["found"]
    shown = shell("doctor")
    assert shown.returncode == 0
    assert all(check["found"] in shown.stdout for name, check in checks.items() if name in ("python", "binaries"))


def test_a_data_folder_that_cannot_be_used_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = shell("up", LABKIT_DATA=str(tmp_path / "file"))
    assert done.returncode == 2
    assert "cannot be used (Not a directory); set LABKIT_DATA to a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_small_disk_is_one_message(lab_data: Path) -> None:
    small = lab_data / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        done = shell("up", LABKIT_DATA=str(small))
        left = [path.name for path in (small / "clusters").iterdir()]
    finally:
        subprocess.run(["umount", small], check=True)
    assert done.returncode == 2
    assert f"not enough disk for 3 servers: about 600 MB needed, 8 MB free at {small}" in done.stderr
    assert left == [".lab.lock"]
