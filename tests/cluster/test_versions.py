"""The same configuration and the same verbs on every PostgreSQL that this machine has besides the chosen one."""

from __future__ import annotations

from pathlib import Path

import pytest
from fix_cluster import MakeCluster

from labkit.errors import ClusterError
from labkit.lab.providers.embedded import binaries


@pytest.fixture
def make_cluster(initdb_cluster: MakeCluster) -> MakeCluster:
    """No prepared one: how clusters are made is what these tests are about."""
    return initdb_cluster


def others() -> list[Path]:
    return [folder for folder, source in binaries._candidates() if source == "system folder"]


@pytest.mark.parametrize("folder", others(), ids=str)
def test_a_cluster_of_that_version_streams_fails_over_and_is_not_mixed_up(
    folder: Path, make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_PG_BIN", str(folder))
    version = binaries.version(folder)
    made = make_cluster()
    assert made.version == version
    assert made.binaries == str(folder)
    with made.primary().connect() as connection:
        assert connection.execute("SHOW server_version_num").fetchone() is not None
        connection.execute("CREATE TABLE kept AS SELECT 1 AS id")
        assert connection.execute("SHOW data_checksums").fetchone() == ("on",)
    made.wait_for_catchup(20)
    made.node("pg1").control.stop()
    made.node("pg2").promote(30)
    made.node("pg3").repoint(made.node("pg2"), 30)
    with made.node("pg3").connect("app") as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]

    monkeypatch.delenv("LABKIT_PG_BIN")
    if binaries.find().major != int(version.split(".")[0]):
        with pytest.raises(ClusterError, match="its data directory is of PostgreSQL"):
            make_cluster()
