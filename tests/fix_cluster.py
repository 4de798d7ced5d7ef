"""Real servers for tests: one cluster that all of them share, and clusters that a test may damage."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit import paths
from labkit.lab.cluster.cluster import Cluster
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
