"""The promotion that crashes: set up in each way that makes it crash, tried, explained and repaired.

pg_promote ends with "terminating connection because of crash of another server process" whenever the server cannot
delete standby.signal at the end of recovery; the replica then shuts down.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labkit import providers
from labkit.cluster import Cluster, Node
from labkit.config import as_list
from labkit.config.failover import CAUSES, PromotionCrash
from labkit.errors import BadInput, ClusterError
from labkit.experiments.running import new_run, recorded
from labkit.failover import promotion
from labkit.providers.base import ClusterSpec
from labkit.providers.server import EmbeddedServer
from labkit.store import Run


def promotion_crash(parameters: PromotionCrash) -> Run:
    """Try each set-up on a cluster of its own; one that this machine does not allow is noted with the reason.

    With `run_id` nothing is driven: the recorded run is returned. Raises LabkitError.
    """
    p = parameters
    if p.run_id:
        return recorded(p.run_id, "promotion-crash")
    provider = providers.provider(p.provider)
    with new_run("promotion-crash", p.as_dict()) as run, contextlib.ExitStack() as stack:
        stack.callback(provider.down, p.cluster, purge=True)
        for number, cause in enumerate(as_list(p.causes)):
            provider.down(p.cluster, purge=True)
            cluster = provider.up(ClusterSpec(p.cluster, replicas=1))
            facts = {"block": number, "cause": cause, **_try(cause, cluster)}
            run.update(blocks=[*run.blocks, facts], provider=p.provider, postgresql={"version": cluster.version})
            run.update(nodes=[{"name": node.name, "role": "", "settings": {}} for node in cluster.nodes])
    return run


def _try(cause: str, cluster: Cluster) -> dict[str, Any]:
    replica = cluster.replicas()[0]
    try:
        with damaged(replica, cause):
            warned = promotion.preflight(replica)
            found = promotion.attempt(replica)
            alive = replica.control.running()
    except NotAllowed as reason:
        return {"tried": False, "reason": str(reason)}
    facts: dict[str, Any] = {
        "tried": True,
        "preflight": warned,
        "promoted": found.promoted,
        "survived": alive,
        "client": found.client,
        "log": list(found.log),
    }
    return facts | ({} if found.promoted else {"repaired": _repair(replica)})


def _repair(replica: Node) -> str:
    """Put an ordinary standby.signal back, start again, promote; the role it ends in."""
    server = _server(replica)
    server.put("standby.signal", "")
    server.start()
    replica.wait_ready(60)
    if problems := promotion.preflight(replica):
        raise ClusterError(f"it is still not fit for promotion: {'; '.join(problems)}", node=replica.name)
    promotion.promote(replica)
    return replica.role()


class NotAllowed(Exception):
    """This machine or this user may not set the damage up: the reason."""


@contextlib.contextmanager
def damaged(replica: Node, cause: str) -> Iterator[None]:
    """A replica whose standby.signal is in one of the states that CAUSES names, set right afterwards.

    Raises NotAllowed, BadInput.
    """
    if cause not in CAUSES:
        raise BadInput(f"cause: {cause!r} is not among {', '.join(CAUSES)}")
    server = _server(replica)
    signal = server.data_directory / "standby.signal"
    with _DAMAGES[cause](signal, server):
        yield


@contextlib.contextmanager
def _deleted(signal: Path, server: EmbeddedServer) -> Iterator[None]:
    del server
    signal.unlink()
    yield


@contextlib.contextmanager
def _mounted(signal: Path, server: EmbeddedServer) -> Iterator[None]:
    source = signal.parent.parent / "mounted.signal"
    source.touch()
    server.account.give(source)
    _system("mount", "--bind", str(source), str(signal))
    try:
        yield
    finally:
        _system("umount", "--lazy", str(signal))


@contextlib.contextmanager
def _immutable(signal: Path, server: EmbeddedServer) -> Iterator[None]:
    del server
    _system("chattr", "+i", str(signal))
    try:
        yield
    finally:
        _system("chattr", "-i", str(signal))


@contextlib.contextmanager
def _sticky(signal: Path, server: EmbeddedServer) -> Iterator[None]:
    """The directory must not be the server's own: its owner may delete whatever is in it."""
    _needs_root(server)
    folder = signal.parent
    before, mode = folder.stat(), folder.stat().st_mode
    # The server refuses to start in such a directory, but one that runs already goes on.
    _own(signal, 0, 0)
    _own(folder, 0, before.st_gid)
    folder.chmod(0o1770)
    try:
        yield
    finally:
        _own(folder, before.st_uid, before.st_gid)
        folder.chmod(mode & 0o7777)
        signal.unlink(missing_ok=True)


@contextlib.contextmanager
def _foreign(signal: Path, server: EmbeddedServer) -> Iterator[None]:
    _needs_root(server)
    _own(signal, 0, 0)
    yield


@contextlib.contextmanager
def _unwritable(signal: Path, server: EmbeddedServer) -> Iterator[None]:
    del server
    mode = signal.parent.stat().st_mode
    signal.parent.chmod(0o500)
    try:
        yield
    finally:
        signal.parent.chmod(mode & 0o7777)


_DAMAGES: dict[str, Callable[[Path, EmbeddedServer], contextlib.AbstractContextManager[None]]] = {
    "deleted": _deleted,
    "mounted": _mounted,
    "immutable": _immutable,
    "sticky": _sticky,
    "unwritable": _unwritable,
    "foreign": _foreign,
}


def _needs_root(server: EmbeddedServer) -> None:
    if not server.account.switch:
        raise NotAllowed("a file of another user takes root to make, and a server of another user than the lab's")


def _own(path: Path, uid: int, gid: int) -> None:
    os.chown(path, uid, gid)


def _system(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except FileNotFoundError:
        raise NotAllowed(f"there is no {command[0]} here") from None
    except subprocess.CalledProcessError as error:
        raise NotAllowed(f"{command[0]} is not allowed here: {error.stderr.strip()}") from None


def _server(node: Node) -> EmbeddedServer:
    if not isinstance(node.control, EmbeddedServer):
        raise BadInput(f"{node.name}: its data is out of this lab's reach; take provider embedded")
    return node.control
