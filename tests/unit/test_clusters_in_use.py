"""labkit down, failover, rejoin, replicas on a cluster that an experiment uses: only that one is left alone."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fix_cli import invoke

import labkit
from labkit import paths
from labkit.errors import ClusterError
from labkit.lab.cluster.node import USERS
from labkit.lab.providers.embedded import state
from labkit.lab.providers.embedded.state import ClusterState
from labkit.lab.reservation import alone_on

IN_USE = "an experiment uses cluster lab now (process "


@pytest.fixture
def clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three clusters without a server."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    names = ["a", "lab", "z"]
    for name in names:
        servers = paths.clusters() / name / "servers"
        state.write(paths.clusters(), ClusterState(name, "ready", servers, tmp_path, "18.6"))
        state.make_passwords(paths.clusters(), name, list(USERS.values()))
    return names


@pytest.fixture
def in_use(clusters: list[str]) -> Iterator[None]:
    """An experiment uses the second of them."""
    with alone_on("embedded", clusters[1]):
        yield


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize(("purge", "state_of_others"), [([], "stopped"), (["--purge"], "removed")])
def test_a_cluster_in_use_keeps_no_other_from_being_taken_down(purge: list[str], state_of_others: str) -> None:
    done = invoke("down", "--all", *purge)
    assert done.exit_code == 2
    assert done.stdout.splitlines() == [
        f"cluster a: {state_of_others}",
        "cluster lab: left",
        f"cluster z: {state_of_others}",
    ]
    assert f"1 cluster of 3 left as before:\n  - lab: {IN_USE}" in done.stderr
    listed = invoke("down", "--all", "--json")
    assert listed.exit_code == 2
    assert {"name": "lab", "state": "left"} in json.loads(listed.stdout)


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize(
    "words",
    [
        "down",
        "failover",
        "failover --old pg1",
        "rejoin pg1",
        "replicas stop",
        "replicas rebuild",
        "replicas rebuild pg2",
        "replicas clean --purge",
    ],
)
def test_what_an_experiment_uses_is_left_alone(words: str) -> None:
    done = invoke(*shlex.split(words))
    assert done.exit_code == 2
    assert IN_USE in done.stderr
    assert done.stderr.endswith("); wait for its end, or end it\n")


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize(
    "drive",
    [
        lambda: labkit.read_scaling(labkit.ReadScaling()),
        lambda: labkit.durability_matrix(labkit.DurabilityMatrix(cluster="lab")),
        lambda: labkit.FailoverDrill(labkit.Failover()),
    ],
)
def test_a_second_experiment_on_a_cluster_is_refused_before_it_has_a_run(drive: Callable[[], object]) -> None:
    with pytest.raises(ClusterError, match="wait for its end, or name another with the parameter `cluster`") as refused:
        drive()
    assert not refused.value.notes
    assert not paths.runs().exists()
