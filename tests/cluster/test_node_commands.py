"""labkit replicas, logs and psql: the same on every provider that owns its servers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from fix_cli import shell

from labkit.lab.cluster.cluster import Cluster
from labkit.lab.providers.protocol import Provider

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def labkit(each_provider: Provider, each_cluster: Cluster) -> Command:
    """Run a labkit command on the module's cluster."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return shell(*words, "--provider", each_provider.name, "--name", each_cluster.name)

    return run


def test_replicas_stop_leaves_the_primary_alone_and_up_brings_them_back(labkit: Command, each_cluster: Cluster) -> None:
    assert labkit("replicas", "stop").returncode == 0
    assert each_cluster.roles() == {"pg1": "primary", "pg2": None, "pg3": None}
    assert labkit("up", "--replicas", "2").returncode == 0
    assert each_cluster.roles() == {"pg1": "primary", "pg2": "replica", "pg3": "replica"}


def test_a_rebuilt_replica_streams_again_from_a_fresh_slot(labkit: Command, each_cluster: Cluster) -> None:
    done = labkit("replicas", "rebuild", "pg3")
    assert done.stdout == "pg3 is a new replica of pg1\n", done.stderr
    each_cluster.wait_streaming(30)
    refused = labkit("replicas", "rebuild", "pg1")
    assert refused.returncode == 2
    assert "it is the primary itself" in refused.stderr


def test_clean_deletes_nothing_unless_told_to(labkit: Command, each_cluster: Cluster) -> None:
    refused = labkit("replicas", "clean")
    assert refused.returncode == 2
    assert "this deletes the data of pg2, pg3; say so with --purge" in refused.stderr
    each_cluster.wait_streaming(5)


def test_logs_show_the_server_s_own_words(labkit: Command) -> None:
    assert "database system is ready to accept" in labkit("logs", "pg1", "-n", "10000").stdout
    assert "there are pg1, pg2, pg3" in labkit("logs", "pg9").stderr


def test_psql_asks_the_node_and_passes_its_exit_code_on(labkit: Command) -> None:
    asked = labkit("psql", "pg2", "-XAtc", "SELECT pg_is_in_recovery(), current_setting('cluster_name')")
    assert asked.stdout == "t|pg2\n", asked.stderr
    assert labkit("psql", "pg2", "-XAtc", "SELECT nonsense").returncode == 1
