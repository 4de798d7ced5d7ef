"""Whether this machine can run the lab: what is there, what is missing, and what helps."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import psutil
import psycopg

from labkit import paths
from labkit.errors import LabkitError, ProviderUnavailable
from labkit.lab.providers import checks
from labkit.lab.providers.embedded import account, binaries
from labkit.remedies import Remedy, advice, setting
from labkit.units import GIB, count, gib

OPEN_FILES = 4096
"""A few hundred connections to each of several nodes, with room for the rest."""
DISK_BYTES = 8 * GIB
"""A million users on three nodes with their WAL (3 GB), and as much again for runs and for slots that hold WAL."""
MEMORY_BYTES = 2 * GIB
"""Three times 256 MB of shared buffers, some hundred backends, and the lab itself."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `fail`: the lab cannot run; `warn`: it can, with a limit. `remedies` are what
    helps."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    remedies: Sequence[Remedy] = ()


def examine() -> list[Check]:
    """Look at everything; nothing is changed, and no cluster is needed."""
    looks: list[Callable[[], Check]] = [
        _python,
        _packages,
        _psycopg,
        _kernel,
        _binaries,
        _account,
        _ports,
        _disk,
        _memory,
        _open_files,
        _cores,
        _docker,
    ]
    return [_answer(look) for look in looks]


def _docker() -> Check:
    # Slow to import, and only looked at here.
    from labkit.lab.providers.docker import compose_cli
    from labkit.lab.providers.docker.engine import Engine

    try:
        engine = Engine()
        capacity = engine.capacity()
        compose = compose_cli.version(compose_cli.command())
    except ProviderUnavailable as error:
        return Check("docker", "warn", f"provider docker is unavailable: {error.reason}", error.remedies)
    room = f"{count(capacity.cpus, 'CPU')}, {gib(capacity.memory_bytes)}"
    return Check("docker", "ok", f"{engine.described}, Compose {compose}, {room}")


def _answer(look: Callable[[], Check]) -> Check:
    try:
        return look()
    except LabkitError as error:
        return Check(look.__name__.strip("_").replace("_", " "), "fail", error.reason, error.remedies)


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} ({sys.executable})")


def _packages() -> Check:
    missing = []
    for requirement in importlib.metadata.requires("labkit") or []:
        wanted, _, marker = requirement.partition(";")
        name = re.split(r"[\s\[<>=!~]", wanted.strip(), maxsplit=1)[0]
        if "extra ==" in marker:
            continue
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(wanted.strip())
    if missing:
        helps = Remedy("install", packages=" ".join(name.replace(" ", "") for name in missing))
        return Check("packages", "fail", f"missing: {', '.join(missing)}", [helps])
    return Check("packages", "ok", "all that labkit needs are installed")


def _psycopg() -> Check:
    found = f"{psycopg.__version__}, implementation {psycopg.pq.__impl__}, libpq {psycopg.pq.version()}"
    if psycopg.pq.__impl__ in ("c", "binary"):
        return Check("psycopg", "ok", found)
    return Check("psycopg", "warn", f"{found}: the load generator would be its own bottleneck", [BINARY_PSYCOPG])


BINARY_PSYCOPG = Remedy("install", packages="psycopg[binary]")


def _kernel() -> Check:
    # Slow to import, and only looked at here.
    from jupyter_client.kernelspec import KernelSpecManager

    kernels = KernelSpecManager().find_kernel_specs()
    if "python3" in kernels:
        return Check("jupyter kernel", "ok", kernels["python3"])
    return Check("jupyter kernel", "fail", "there is no kernel named python3", [Remedy("install", kernel="python3")])


def _binaries() -> Check:
    found = binaries.find()
    return Check("binaries", "ok", f"PostgreSQL {found.version} in {found.folder} ({found.source})")


def _account() -> Check:
    user = account.choose()
    if not user.switch:
        return Check("account", "ok", f"servers run as {user.name}, as the lab does")
    found = f"the lab is root, servers run as {user.name}"
    nearest = paths.clusters()
    while not nearest.exists():
        nearest = nearest.parent
    if not user.reaches(nearest):
        found += f", who cannot reach {nearest}: their files go below {account.ASIDE}"
    return Check("account", "ok", found)


def _ports() -> Check:
    free = checks.free_ports(3, 0, ["pg1", "pg2", "pg3"])
    return Check("ports", "ok", f"free on {checks.HOST}, {free} for example")


def _disk() -> Check:
    folder = paths.data()
    while not folder.exists():
        folder = folder.parent
    free = psutil.disk_usage(str(folder)).free
    found = f"{gib(free)} free at {folder}"
    if not os.access(folder, os.W_OK):
        return Check("disk", "fail", f"{folder} is not writable", [setting("LABKIT_DATA", "a folder that is")])
    if free < 3 * checks.NODE_BYTES:
        return Check("disk", "fail", found, checks.FREE_DISK)
    if free < DISK_BYTES:
        found += f"; a million users on three nodes take {DISK_BYTES // GIB} GiB"
        return Check("disk", "warn", found, checks.FREE_DISK)
    return Check("disk", "ok", found)


def _memory() -> Check:
    free = psutil.virtual_memory().available
    found = f"{gib(free)} available"
    if free < MEMORY_BYTES:
        found += f"; with {MEMORY_BYTES // GIB} GiB three servers cache their data"
        return Check("memory", "warn", found, [advice("end other programs")])
    return Check("memory", "ok", found)


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    shown = f"{'unlimited' if soft == unlimited else soft} (hard: {'unlimited' if hard == unlimited else hard})"
    if soft != unlimited and soft < OPEN_FILES:
        return Check("open files", "warn", shown, [Remedy("open_files", number=OPEN_FILES)])
    return Check("open files", "ok", shown)


def _cores() -> Check:
    count = psutil.cpu_count() or 1
    with contextlib.suppress(AttributeError):  # not on macOS
        count = len(os.sched_getaffinity(0))
    if count < 2:
        found = "1, shared by the load generator and the servers"
        return Check("cores", "warn", found, [advice("take a machine with 2 or more: the figures say more there")])
    return Check("cores", "ok", f"{count}, shared by the load generator and the servers")
