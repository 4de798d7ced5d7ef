"""Ways to lose a primary, and to hold a replica back; the caller notes each with its time."""

from __future__ import annotations

import time
from typing import assert_never, get_args

from labkit.errors import BadInput
from labkit.lab.cluster import sql
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Isolatable, Killable
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.failover.fault import NEEDS, Injection


def check(node: Node, fault: Injection) -> None:
    """Raises BadInput if there is no such fault, or the node's provider cannot do it."""
    if fault not in get_args(Injection):
        raise BadInput(f"fault: {fault!r} is not among {', '.join(get_args(Injection))}")
    if fault in NEEDS and not isinstance(node.control, NEEDS[fault]):
        raise BadInput(f"fault: {fault} needs a provider that can do it; {type(node.control).__name__} cannot")


def inject(node: Node, fault: Injection) -> int:
    """Do it to the node; when it was about to be done, on the monotonic clock in ns. Raises BadInput, ClusterError.

    kill: SIGKILL to the whole process tree or container. postmaster: to the postmaster alone, the backends live on for
    a moment. pause: every process frozen, connections stay open. isolate: cut off from the network, running.
    switchover: a clean stop, which sends everything that is committed to the replicas first.
    """
    check(node, fault)
    control = node.control
    began = time.monotonic_ns()
    match fault:
        case "switchover":
            control.stop("fast")
        case "isolate":
            assert isinstance(control, Isolatable)
            control.isolate()
        case "pause":
            assert isinstance(control, Killable)
            control.pause()
        case "kill" | "postmaster":
            assert isinstance(control, Killable)
            control.kill("tree" if fault == "kill" else "postmaster")
        case _:
            assert_never(fault)
    return began


def stop_receiving(node: Node, deadline_s: float = 10.0) -> None:
    """End a replica's WAL receiver for good: nothing more arrives. Raises ClusterError, WaitTimeout."""
    with node.session() as connection:
        if sql.settings(connection, ["primary_conninfo"])["primary_conninfo"]:
            sql.configure(connection, {"primary_conninfo": ""})
        wait_until(lambda: not sql.receives(connection), deadline_s, "the WAL receiver to stop", node)
