"""What providers say of their nodes before they are loaded, held against the controls that they really have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast
from unittest.mock import MagicMock

import pytest

from labkit.experiments.catalogue import EXPERIMENTS
from labkit.lab import providers
from labkit.lab.cluster import powers
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.failover import faults, note
from labkit.lab.failover.fault import NEEDS, Injection
from labkit.lab.providers.attach.provider import AttachedNode, AttachProvider
from labkit.lab.providers.declared import DECLARED, Owned, ProviderName, lacking
from labkit.lab.providers.docker.container import ContainerServer
from labkit.lab.providers.docker.provider import ComposeProvider
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.embedded.server import EmbeddedServer

NODE_POWERS = (
    powers.Killable,
    powers.Isolatable,
    powers.Limitable,
    powers.Measurable,
    powers.Repairable,
    powers.Damageable,
)
ALL = {"embedded": EmbeddedProvider, "docker": ComposeProvider, "attach": AttachProvider}


def control(name: str) -> Any:
    if name == "embedded":
        return EmbeddedServer(MagicMock(), Path("bin"), MagicMock(), {})
    if name == "docker":
        return ContainerServer(MagicMock(), "lab", "pg1")
    return AttachedNode("pg1", "host=127.0.0.1").control


@pytest.mark.parametrize("name", ALL)
def test_a_declaration_is_what_the_control_of_a_node_can_do(name: ProviderName) -> None:
    declared = DECLARED[name]
    assert {power for power in NODE_POWERS if isinstance(control(name), power)} == declared.powers & set(NODE_POWERS)
    assert issubclass(ALL[name], powers.ReplicaKeeper) == (powers.ReplicaKeeper in declared.powers)
    assert isinstance(control(name), powers.NodeControl)
    assert declared.powers <= {*NODE_POWERS, powers.ReplicaKeeper, Owned}


@pytest.mark.parametrize("name", ALL)
def test_a_provider_is_found_by_the_name_that_it_declares(name: str) -> None:
    assert list(providers.PROVIDERS) == list(DECLARED) == list(ALL)
    assert ALL[name].declared is DECLARED[ALL[name].name]


def test_clusters_of_one_name_are_apart_by_their_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their folders, and so the notes of their failovers; a new provider has only to declare where."""
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert len({declared.root() for declared in DECLARED.values()}) == len(DECLARED)
    for name, declared in DECLARED.items():
        cluster = Cluster("own", name, [], binaries="", version="")
        assert note.read(cluster) is None
        note.write(cluster, note.Note("pg1", "survey"))
        assert note.read(cluster) == note.Note("pg1", "survey")
        assert (declared.root() / "own" / "failover.json").is_relative_to(tmp_path)


@pytest.mark.parametrize(
    ("fault", "done"),
    [
        ("kill", ["kill('tree')"]),
        ("postmaster", ["kill('postmaster')"]),
        ("pause", ["pause()"]),
        ("isolate", ["isolate()"]),
        ("switchover", ["stop('fast')"]),
    ],
)
def test_a_fault_does_to_the_node_what_it_says(fault: Injection, done: list[str]) -> None:
    node = MagicMock()
    faults.inject(node, fault)
    assert [str(each).removeprefix("call.") for each in node.control.method_calls] == done


def test_a_fault_without_a_branch_of_its_own_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a bug, which raises; it once killed the whole tree."""
    monkeypatch.setattr(faults, "Injection", Literal["unplug"])
    node = MagicMock()
    with pytest.raises(AssertionError):
        faults.inject(node, cast(Injection, "unplug"))
    assert node.control.method_calls == []


def test_what_is_lacking_is_said_with_who_has_it_and_why_this_one_has_not() -> None:
    assert lacking("docker", dict.fromkeys([*NODE_POWERS, Owned], "all")) == []
    (said,) = lacking("embedded", {powers.Limitable: "budgets: limited", Owned: "fault: switchover"})
    assert said.startswith("budgets: limited needs provider docker; embedded cannot: its servers have neither")
    (said,) = lacking("attach", {powers.Killable: "fault: kill"})
    assert said.startswith("fault: kill needs provider embedded or docker; attach cannot: attached servers are neither")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_an_experiment_needs_some_provider_has(name: str) -> None:
    parameters = EXPERIMENTS[name].parameters()
    assert {power for each in DECLARED.values() for power in each.powers} >= {*parameters.needs(), *NEEDS.values()}
    assert not parameters.conflicts(), "the defaults can be driven"
