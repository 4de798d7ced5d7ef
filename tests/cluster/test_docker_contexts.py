"""Which engine is used: DOCKER_HOST and docker contexts, by the SDK and by Compose alike."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.errors import ProviderUnavailable
from labkit.lab import doctor
from labkit.lab.providers.docker.engine import Engine
from labkit.lab.providers.docker.provider import ComposeProvider
from labkit.lab.providers.protocol import ClusterSpec

pytestmark = [pytest.mark.docker, pytest.mark.usefixtures("docker_engine", "lab_data")]
ENGINE_SOCKET = "/var/run/docker.sock"
NAME = f"context-{os.getpid()}"


class Relay:
    """A socket of its own in front of the engine: `agents` holds the names of the programs that came through it."""

    def __init__(self, path: Path) -> None:
        self.path, self.agents = path, set[str]()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(ENGINE_SOCKET)
                threading.Thread(target=self._copy, args=(client, engine, True), daemon=True).start()
                threading.Thread(target=self._copy, args=(engine, client, False), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):  # either side may go at any time
            while data := source.recv(65536):
                if asks and (found := re.search(rb"User-Agent: (\S+)", data, re.IGNORECASE)):
                    self.agents.add(found[1].decode())
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def relay() -> Iterator[Relay]:
    # A socket's path may have about a hundred characters: pytest's own folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="lk-"))
    made = Relay(folder / "engine.sock")
    yield made
    made.close()
    shutil.rmtree(folder)


@pytest.fixture
def contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's own settings in a folder of this test's."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)


def context(*words: str) -> None:
    subprocess.run(["docker", "context", *words], check=True, capture_output=True, timeout=30)


@pytest.mark.usefixtures("contexts")
def test_a_context_in_use_is_used_by_the_sdk_and_by_compose(relay: Relay) -> None:
    context("create", "lab-context", "--docker", f"host=unix://{relay.path}")
    context("use", "lab-context")
    try:
        made = ComposeProvider().up(ClusterSpec(name=NAME, replicas=0))
        assert made.roles() == {"pg1": "primary"}
        assert any(agent.startswith("docker-sdk-python/") for agent in relay.agents), relay.agents
        assert any(agent.lower().startswith(("compose/", "docker-client/")) for agent in relay.agents), relay.agents
        told = next(check for check in doctor.examine() if check.name == "docker")
        assert told.status == "ok"
        assert f"at unix://{relay.path} (context lab-context), Compose " in told.found
    finally:
        ComposeProvider().down(NAME, purge=True)


@pytest.mark.usefixtures("contexts")
def test_a_context_named_by_the_environment_is_found_though_none_is_in_use(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    context("create", "lab-context", "--docker", f"host=unix://{relay.path}")
    monkeypatch.setenv("DOCKER_CONTEXT", "lab-context")
    assert Engine().described.endswith(f"at unix://{relay.path} (context lab-context)")
    assert relay.agents
    monkeypatch.setenv("DOCKER_HOST", f"unix://{ENGINE_SOCKET}")
    assert Engine().described.endswith(f"at unix://{ENGINE_SOCKET} (DOCKER_HOST)"), "as for the docker command"


@pytest.mark.usefixtures("contexts")
def test_a_context_that_leads_nowhere_gets_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    context("create", "empty", "--docker", f"host=unix://{tmp_path}/absent.sock")
    context("create", "far", "--docker", "host=ssh://somebody@elsewhere.invalid")
    for name, said in (
        (
            "empty",
            r"no Docker engine answers \(context empty, unix://.*absent.sock: .*CONTEXT as Docker's context takes",
        ),
        ("never-made", r"no Docker engine answers \(there is no context never-made.*Docker's list of contexts shows"),
        ("far", r"ssh://somebody@elsewhere.invalid \(context far\) is on another machine.*provider attach"),
    ):
        monkeypatch.setenv("DOCKER_CONTEXT", name)
        with pytest.raises(ProviderUnavailable, match=said):
            ComposeProvider().up(ClusterSpec(name=NAME, replicas=0))
        told = next(check for check in doctor.examine() if check.name == "docker")
        assert told.status == "warn"
        assert told.remedies
