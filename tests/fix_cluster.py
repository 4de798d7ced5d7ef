"""Real servers for tests: one cluster that all of them share, and clusters that a test may damage."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from labkit import paths
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Killable
from labkit.lab.providers import checks
from labkit.lab.providers.checks import HOST
from labkit.lab.providers.embedded import account, state
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.embedded.state import NodeState
from labkit.lab.providers.protocol import ClusterSpec

MakeCluster = Callable[..., Cluster]
MEMORY_BYTES = 8 * 2**30


@pytest.fixture(scope="session", autouse=True)
def own_ports() -> Iterator[None]:
    """Ports of its own for every process that runs tests: a free port may be another's before its server listens."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    each = len(checks.PORTS) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    first = checks.PORTS.start + number * each
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_PORTS", f"{first}-{first + each - 1}")
        yield


def in_memory() -> Path | None:
    """A file system in memory, where there is one with room for the servers of a test session."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > MEMORY_BYTES
    return memory if has_room else None


@contextlib.contextmanager
def folder_for_servers(place: Path | None) -> Iterator[Path]:
    """A folder below `place`, or among temporary files, that is deleted at the end.

    A cluster is three thousand files that are made, synced and soon deleted. In memory that costs next to nothing, and
    what a server does is the same: fsync is on, and a server that is killed loses nothing that its files have.
    """
    # Not pytest's own temporary folder: only its owner may enter that, and servers may run as another user.
    folder = Path(tempfile.mkdtemp(prefix="labkit-test-", dir=place)).resolve()
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def data_in(folder: Path) -> Iterator[Path]:
    """Have $LABKIT_DATA name a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_DATA", str(folder))
        yield folder


@pytest.fixture(scope="session")
def lab_data() -> Iterator[Path]:
    """A data folder for the whole session, which $LABKIT_DATA names."""
    with folder_for_servers(in_memory()) as folder, data_in(folder):
        yield folder


@pytest.fixture(scope="module")
def disk_data() -> Iterator[Path]:
    """One for a module, on a disk: only there is counted what a server writes."""
    with folder_for_servers(None) as folder, data_in(folder):
        yield folder


@contextlib.contextmanager
def shared_cluster() -> Iterator[Cluster]:
    yield EmbeddedProvider().up(ClusterSpec(name="shared"))
    EmbeddedProvider().down("shared", purge=True)


@pytest.fixture(scope="session")
def cluster(lab_data: Path) -> Iterator[Cluster]:
    """A primary and two replicas, for tests that leave them as they were."""
    assert paths.clusters().is_relative_to(lab_data)
    with shared_cluster() as made:
        yield made


class Prepared:
    """A primary and two replicas that were made once and stopped; a test that needs a fresh cluster gets a copy.

    A copy is what `labkit down` leaves of a new cluster: `up` starts it, which takes a third of making one. Copies have
    one system identifier and the same passwords, as no two clusters of a user have.
    """

    replicas = 2

    def __init__(self) -> None:
        EmbeddedProvider().up(ClusterSpec("prepared", self.replicas))
        EmbeddedProvider().down("prepared")
        found = state.read(paths.clusters(), "prepared")
        assert found is not None
        self._recorded, self._home = found, state.folder(paths.clusters(), "prepared")

    def copy(self, clusters: Path, name: str, replicas: int = replicas) -> None:
        """Put a copy with at most two replicas into a folder of clusters, under its own name and on its own ports."""
        kept, left_out = self._recorded.nodes[: replicas + 1], self._recorded.nodes[replicas + 1 :]
        home = state.folder(clusters, name)
        servers = account.server_folder(home / "servers", account.choose())
        servers.mkdir(parents=True)
        servers.chmod(0o711)
        # cp keeps owners and modes, and is quicker than Python.
        subprocess.run(["cp", "-Rp", *(str(node.folder) for node in kept), str(servers)], check=True)
        ports = checks.free_ports(len(kept), 0, [])
        nodes = [NodeState(n.name, port, servers / n.name, ready=True) for n, port in zip(kept, ports, strict=True)]
        for node in nodes:
            node.log.unlink()
        for replica in nodes[1:]:
            settings = replica.data / "postgresql.auto.conf"
            text = settings.read_text(encoding="utf-8")
            assert f"port={kept[0].port}" in text
            text = text.replace(f"port={kept[0].port}", f"port={nodes[0].port}")
            settings.write_text(text.replace(str(self._recorded.servers), str(servers)), encoding="utf-8")
        for gone in left_out:
            shutil.rmtree(nodes[0].data / "pg_replslot" / gone.name)
        shutil.copy2(self._home / "passwords.json", home / "passwords.json")
        state.write(clusters, replace(self._recorded, name=name, servers=servers, nodes=nodes))


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    with folder_for_servers(in_memory()) as folder:
        with data_in(folder):
            made = Prepared()
        yield made


@pytest.fixture
def provider(lab_data: Path) -> Iterator[EmbeddedProvider]:
    """The embedded provider; every cluster that a test makes with it is removed afterwards, but not the shared one."""
    assert paths.clusters().is_relative_to(lab_data)
    made = EmbeddedProvider()
    yield made
    for name in made.names():
        if name != "shared":
            made.down(name, purge=True)


@pytest.fixture
def initdb_cluster(provider: EmbeddedProvider) -> MakeCluster:
    """`initdb_cluster(replicas=0, …)`: a cluster named `own`, made as `labkit up` makes it."""

    def make(**spec: object) -> Cluster:
        return provider.up(ClusterSpec(**({"name": "own"} | spec)))  # type: ignore[arg-type]

    return make


@pytest.fixture
def make_cluster(prepared: Prepared, initdb_cluster: MakeCluster) -> MakeCluster:
    """`make_cluster(replicas=0, …)`: a cluster named `own`, to do anything to; where it can be, a prepared one."""

    def make(**spec: object) -> Cluster:
        name, replicas = str(spec.get("name", "own")), int(str(spec.get("replicas", Prepared.replicas)))
        is_plain = not spec.keys() - {"name", "replicas"} and replicas <= Prepared.replicas
        if is_plain and not state.folder(paths.clusters(), name).exists():
            prepared.copy(paths.clusters(), name, replicas)
        return initdb_cluster(**spec)

    return make


@pytest.fixture
def own_cluster(make_cluster: MakeCluster) -> Cluster:
    """A primary and two replicas, to do anything to."""
    return make_cluster()


@contextlib.contextmanager
def paused(node: Node) -> Iterator[None]:
    """The server hangs: its processes are there, and none of them does anything."""
    assert isinstance(node.control, Killable)
    node.control.pause()
    try:
        yield
    finally:
        node.control.resume()


@contextlib.contextmanager
def taken_port(port: int = 0) -> Iterator[int]:
    """A port that this process listens on: this one, or any that is free."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of its server may linger there
        holder.bind((HOST, port))
        holder.listen()
        yield holder.getsockname()[1]


def write_wal(node: Node, records: int, *, record_bytes: int = 1000) -> None:
    """So many records of WAL, on the node's disk when this returns, whichever replicas have received them."""
    with node.session() as connection:
        connection.execute("SET synchronous_commit = local")
        message = f"pg_logical_emit_message(true, 'filler', repeat('x', {record_bytes}))"
        connection.execute(f"SELECT count({message}) FROM generate_series(1, {records})")
