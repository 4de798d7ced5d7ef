"""Real servers for tests: one cluster that all of them share, and clusters that a test may damage."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import paths
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Killable
from labkit.lab.providers.checks import HOST
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.protocol import ClusterSpec

MakeCluster = Callable[..., Cluster]


@pytest.fixture(scope="session")
def lab_data() -> Iterator[Path]:
    """A data folder for the whole session, which $LABKIT_DATA names."""
    # Not pytest's own temporary folder: only its owner may enter that, and servers may run as another user.
    folder = Path(tempfile.mkdtemp(prefix="labkit-test-")).resolve()
    folder.chmod(0o711)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_DATA", str(folder))
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def cluster(lab_data: Path) -> Iterator[Cluster]:
    """A primary and two replicas, for tests that leave them as they were."""
    assert paths.clusters().is_relative_to(lab_data)
    yield EmbeddedProvider().up(ClusterSpec(name="shared"))
    EmbeddedProvider().down("shared", purge=True)


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
def make_cluster(provider: EmbeddedProvider) -> MakeCluster:
    """`make_cluster(replicas=0, …)`: a cluster named `own`, to do anything to."""

    def make(**spec: object) -> Cluster:
        return provider.up(ClusterSpec(**({"name": "own"} | spec)))  # type: ignore[arg-type]

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
