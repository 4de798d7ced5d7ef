"""One load of 20 users on the shared cluster's primary, for tests to change and to drive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from labkit.lab import dataset
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.load.arrivals import Closed
from labkit.lab.load.engine import run_load
from labkit.lab.load.spec import LoadResult, LoadSpec, Target
from labkit.lab.workloads.get_user import GetUser
from labkit.run.parts import Tables

DATA = dataset.DatasetSpec(5_000, "ru_RU")


@pytest.fixture
def seeded(cluster: Cluster) -> Cluster:
    """The shared cluster with the users of `DATA`, on every node."""
    dataset.seed(cluster, DATA)
    cluster.wait_for_catchup(20)
    return cluster


@pytest.fixture
def load(seeded: Cluster, tmp_path: Path) -> LoadSpec:
    return LoadSpec(
        workload=GetUser(DATA),
        targets=targets([seeded.primary()]),
        arrivals=Closed(20),
        duration_s=1.0,
        warmup_s=0.2,
        timeout_s=5.0,
        seed=1,
        part=tmp_path / "run" / "ops" / "part.parquet",
        epoch_ns=time.monotonic_ns(),
    )


def targets(nodes: Iterable[Node], connections: int = 4) -> tuple[Target, ...]:
    """So many connections to each node."""
    return tuple(Target(node.name, node.conninfo("app"), connections) for node in nodes)


def with_connections(spec: LoadSpec, connections: int) -> tuple[Target, ...]:
    """The targets of a load with so many connections to each."""
    return tuple(replace(target, connections=connections) for target in spec.targets)


def drive(spec: LoadSpec) -> tuple[LoadResult, pd.DataFrame]:
    """Run it here and read its records."""
    result = run_load(spec)
    return result, Tables(spec.part.parent.parent).table("ops")


def in_background(spec: LoadSpec) -> Callable[[], tuple[LoadResult, pd.DataFrame]]:
    """Begin it in a thread; the function that waits for its end, and fails after a minute, because the load hangs."""
    done: list[tuple[LoadResult, pd.DataFrame]] = []
    thread = threading.Thread(target=lambda: done.append(drive(spec)))
    thread.start()

    def ended() -> tuple[LoadResult, pd.DataFrame]:
        thread.join(timeout=60)
        assert done, "the load hangs, or ended with an error"
        return done[0]

    return ended
