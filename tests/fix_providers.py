"""The same cluster from every provider, for tests of what all of them guarantee."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labkit.errors import ProviderUnavailable
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.providers import provider
from labkit.lab.providers.docker.provider import DEFAULT_IMAGE, IMAGE
from labkit.lab.providers.protocol import ClusterSpec, Provider

EVERY_PROVIDER = [pytest.param("embedded"), pytest.param("docker", marks=pytest.mark.docker)]


@pytest.fixture(scope="session")
def docker_engine() -> str:
    """The image to run. Skip without a Docker engine and an image to run; in CI that is a failure."""
    from labkit.lab.providers.docker import compose_cli
    from labkit.lab.providers.docker.engine import Engine

    try:
        compose_cli.command()
        image = os.environ.get(IMAGE) or DEFAULT_IMAGE
        Engine().ensure_image(image)
    except ProviderUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"in CI the tests on Docker must run: {error}", pytrace=False)
        pytest.skip(f"not run on Docker: {error}")
    return image


@pytest.fixture(scope="module", params=EVERY_PROVIDER)
def each_provider(request: pytest.FixtureRequest, lab_data: Path) -> Provider:
    """Every provider that owns its servers, one after the other."""
    assert lab_data
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return provider(request.param)


@pytest.fixture(scope="module")
def each_cluster(each_provider: Provider) -> Iterator[Cluster]:
    """A primary and two replicas, shared by the tests of a module; each leaves all of them running and streaming."""
    name = f"contract-{os.getpid()}"
    yield each_provider.up(ClusterSpec(name=name))
    each_provider.down(name, purge=True)


@pytest.fixture
def make_each(each_provider: Provider) -> Iterator[Callable[..., Cluster]]:
    """`make_each(replicas=1, …)`: a cluster of one's own, to do anything to."""
    name = f"own-{os.getpid()}"

    def make(**spec: object) -> Cluster:
        return each_provider.up(ClusterSpec(**({"name": name} | spec)))  # type: ignore[arg-type]

    yield make
    each_provider.down(name, purge=True)
