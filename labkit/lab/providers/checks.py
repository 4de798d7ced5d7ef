"""What is looked at before anything starts: the specification, who else is at work, the ports, the disk."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from labkit import files
from labkit.errors import BadInput, ClusterError, WaitTimeout
from labkit.lab.providers import names
from labkit.lab.providers.protocol import ClusterSpec
from labkit.remedies import Remedy, advice, setting
from labkit.units import MIB

if TYPE_CHECKING:
    from labkit.lab.cluster.cluster import Cluster

HOST = "127.0.0.1"
# Below the ports that systems lend to outgoing connections (32768 on Linux, 49152 on macOS): a port from there may
# be lent out while its server is stopped.
PORTS = range(20_000, 32_000)
NODE_BYTES = 200 * MIB
"""A new node: 40 MB of system tables, and up to ten WAL segments before the first checkpoint recycles them."""
NODE_FACTS = (
    "port",
    "listen_addresses",
    "unix_socket_directories",
    "cluster_name",
    "config_file",
    "hba_file",
    "data_directory",
)
"""Settings that stand on each node's command line; an experiment cannot name them."""


FREE_DISK = (advice("free some"), setting("LABKIT_DATA", "a folder on a larger disk"))


def check_spec(spec: ClusterSpec) -> None:
    """Raises BadInput naming everything in a specification that cannot be."""
    problems = [f"name: {problem}" for problem in names.problems(spec.name)]
    if not 0 <= spec.replicas <= 8:
        problems.append(f"replicas: {spec.replicas} is out of range, it must be between 0 and 8")
    if spec.base_port and not 1024 <= spec.base_port <= 65535 - 8:
        problems.append(f"base_port: {spec.base_port} is out of range, it must be 0 (any) or between 1024 and 65527")
    if found := problems + check_settings(spec.settings):
        raise BadInput(found, subject="cluster specification")


def check_settings(settings: Mapping[str, str]) -> list[str]:
    """What is wrong with an experiment's settings by their form alone, one sentence each."""
    problems = []
    for name, value in settings.items():
        if not name.replace("_", "").replace(".", "").isalnum() or not name.isascii():
            problems.append(f"settings: {name!r} is no name of a PostgreSQL setting")
        elif name.lower() in NODE_FACTS:
            problems.append(f"settings: {name} is given by labkit to each node and cannot be set")
        if any(character in str(value) for character in "\n\r\0"):
            problems.append(f"settings: the value of {name} must be one line")
    return problems


# An experiment that changes these needs a new cluster: replicas stop replaying if they get less than the primary had.
FIXED_SETTINGS = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)


def check_one_primary(cluster: Cluster, primaries: Sequence[str]) -> None:
    """Raises ClusterError if more than one node would be primary; `primaries` are those that would, by their data."""
    if len(primaries) < 2:
        return
    running = [name for name in primaries if cluster.node(name).control.running()]
    outdated = [name for name in primaries if name not in running] if len(running) == 1 else ["NODE"]
    effect = "makes it a replica" if running else "makes NODE, the outdated one, a replica while the other runs"
    raise ClusterError(
        f"{' and '.join(primaries)} are each a primary by their data: one was promoted while the other was down. "
        "Running both would split the cluster",
        remedy=[cluster.remedy("rejoin", effect, node=name) for name in outdated],
    )


def check_fixed(cluster: Cluster, differing: Collection[str]) -> None:
    """Raises ClusterError if a setting that a cluster cannot change is to change."""
    if fixed := sorted(set(differing) & set(FIXED_SETTINGS)):
        raise ClusterError(
            f"{', '.join(fixed)} cannot change in cluster {cluster.name}, whose replicas depend on it",
            remedy=cluster.remedy("recreate", "with the new value"),
        )


def alone_on(folder: Path, cluster: str, deadline_s: float) -> contextlib.AbstractContextManager[None]:
    """One `up` or `down` of a cluster at a time; the lock lies in `folder`, beside the cluster's own.

    Raises WaitTimeout naming the process that still works on the cluster at the deadline.
    """
    return files.locked(
        folder / f".{cluster}.lock",
        lambda holder: WaitTimeout(
            f"timed out after {deadline_s:g} s waiting for another labkit (process {holder}) that is working on "
            f"cluster {cluster}",
            remedy=advice("try again when it has ended"),
        ),
        deadline_s,
    )


def check_port(node: str, port: int) -> None:
    """Raises ClusterError if something already listens on the port, naming it where the system tells."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As PostgreSQL does: connections of an earlier server that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ClusterError(
                f"port {port} is taken{_holder(port)} ({error.strerror})",
                node=node,
                remedy=[advice("end that process"), Remedy("recreate", "on other ports", name="NAME", base_port=0)],
            ) from error


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):  # macOS tells root only
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                process = psutil.Process(connection.pid) if connection.pid else None
                return f" by process {process.pid} ({process.name()})" if process else ""
    return ""


def ports() -> range:
    """Where free ports are looked for: PORTS, or what $LABKIT_PORTS names as FIRST-LAST. Raises BadInput.

    A free port is found before its server listens there, so two labs that start at the same time may find the same one.
    Where many share a machine, a range for each keeps them apart.
    """
    asked = os.environ.get("LABKIT_PORTS")
    if not asked:
        return PORTS
    match = re.fullmatch(r"(\d+)-(\d+)", asked)
    first, last = (int(text) for text in match.groups()) if match else (0, 0)
    if not 1024 <= first <= last <= 65535:
        raise BadInput([f"LABKIT_PORTS: {asked!r} is no range of ports; write FIRST-LAST, such as 20000-20999"])
    return range(first, last + 1)


def free_ports(count: int, base_port: int, nodes: Sequence[str], taken: Sequence[int] = ()) -> list[int]:
    """Ports on 127.0.0.1 that nothing listens on now: from `base_port` on, or any of `ports` if it is 0.

    Raises ClusterError, BadInput.
    """
    if base_port:
        wanted = list(range(base_port, base_port + count))
        for node, port in zip(nodes, wanted, strict=True):
            check_port(node, port)
        return wanted
    found: list[int] = []
    among = ports()
    for port in random.sample(among, len(among)):
        if len(found) == count:
            break
        if port not in taken and _is_free(port):
            found.append(port)
    if len(found) < count:
        helps = advice("choose a base port outside of them")
        raise ClusterError(f"no {count} free ports between {among[0]} and {among[-1]}", remedy=helps)
    return found


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def check_disk(folder: Path, needed_bytes: int, what: str) -> None:
    """Raises ClusterError if the file system of `folder` has less than `needed_bytes` free."""
    while not folder.exists():
        folder = folder.parent
    free = psutil.disk_usage(str(folder)).free
    if free < needed_bytes:
        raise ClusterError(
            f"not enough disk for {what}: about {needed_bytes / MIB:,.0f} MB needed, {free / MIB:,.0f} MB free at "
            f"{folder}",
            remedy=FREE_DISK,
        )
