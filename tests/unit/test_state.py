"""The record of a cluster on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from labkit.errors import ClusterError
from labkit.lab.providers.embedded import state
from labkit.lab.providers.embedded.state import ClusterState, NodeState


def make(tmp_path: Path) -> ClusterState:
    servers = tmp_path / "lab" / "servers"
    nodes = [NodeState("pg1", 5001, servers / "pg1", ready=True), NodeState("pg2", 5002, servers / "pg2")]
    return ClusterState("lab", "creating", servers, Path("/pg/bin"), "18.6", 5001, {"work_mem": "1MB"}, nodes)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert state.read(tmp_path, "lab") is None
    state.write(tmp_path, make(tmp_path))
    assert state.read(tmp_path, "lab") == make(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema": 99}', '{"schema": 1}', '{"schema": 1, "nodes": [{}]}'])
def test_a_damaged_record_says_how_to_get_rid_of_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "cluster.json").write_text(content, encoding="utf-8")
    with pytest.raises(ClusterError, match=r'cluster\.json cannot be read.*labkit\.down\("lab", purge=True\)'):
        state.read(tmp_path, "lab")


def test_passwords_are_long_distinct_and_for_their_owner_only(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    made = state.make_passwords(tmp_path, "lab", ["one", "two"])
    file = tmp_path / "lab" / "passwords.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert state.read_passwords(tmp_path, "lab") == made
    assert made["one"] != made["two"]
    assert all(len(password) >= 32 for password in made.values())
