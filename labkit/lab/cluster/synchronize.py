"""Replication: which commits wait for which replicas, applied by reload and verified on the servers."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence

from labkit.errors import WaitTimeout
from labkit.lab.cluster import sql
from labkit.lab.cluster.node import Node, role_or_none
from labkit.lab.cluster.waiting import wait_until
from labkit.replication import Replication

_ANNOUNCED = re.compile(r'standby "([^"]+)" is now a (?:synchronous standby with priority \d+|candidate for quorum.*)')


def apply(nodes: Sequence[Node], primary: Node, wanted: Replication, deadline_s: float = 15.0) -> dict[str, str]:
    """Set it on every node, so that it outlives a failover, and wait until the primary acts on it.

    Each node lists the others; on a replica the setting sleeps until it is promoted. Verified on the primary: the
    setting, pg_stat_replication.sync_state of every replica that answers, and in its log that each replica which became
    synchronous was announced. Returns replica -> sync_state, of those that answer. Raises BadInput if fewer than k do,
    ClusterError, and WaitTimeout if the primary does not act on it in time; what was set before is then set again.
    """
    # One that hangs runs, but can neither be set nor answer for a commit.
    running = [node for node in nodes if node is primary or role_or_none(node) is not None]
    names = [node.name for node in running if node is not primary]
    wanted.check(len(names), [node.name for node in nodes if node not in running])
    expected = wanted.sync_states(names)
    give_up = time.monotonic() + deadline_s
    with primary.session() as connection, _undone_on_timeout(running):
        before = {row["application_name"]: row["sync_state"] for row in sql.replication(connection)}
        for node in running:
            node.configure(settings(wanted, [other.name for other in nodes if other is not node]))

        def agreed() -> bool:
            rows = [row for row in sql.replication(connection) if row["application_name"] in expected]
            states = {row["application_name"]: row["sync_state"] for row in rows if row["state"] == "streaming"}
            return states == expected and sql.settings(connection, ["synchronous_commit"]) == {
                "synchronous_commit": wanted.level
            }

        wait_until(agreed, give_up - time.monotonic(), f"replicas to stream with sync_state {expected}", primary)
    fresh = {n for n, state in expected.items() if state in _COUNTING and before.get(n) not in _COUNTING}
    # The announcement comes with the replica's next report, within wal_receiver_status_interval. A replica that was
    # synchronous at its last report, and is again at its next, is not announced again: any earlier line will do.
    wait_until(
        lambda: fresh <= set(announced(primary)),
        max(0.0, give_up - time.monotonic()),
        f"the log's announcement of {', '.join(sorted(fresh))} as synchronous",
        primary,
        interval_s=0.05,
    )
    return expected


@contextlib.contextmanager
def _undone_on_timeout(nodes: Sequence[Node]) -> Iterator[None]:
    """Commits must not go on waiting for replicas that do not come."""
    before = {node.name: node.settings(["synchronous_standby_names", "synchronous_commit"]) for node in nodes}
    try:
        yield
    except WaitTimeout as error:
        for node in nodes:
            node.configure(before[node.name])
        error.reason += "; what was set before is set again"
        raise


_COUNTING = ("sync", "quorum")


def settings(wanted: Replication, others: Sequence[str]) -> Mapping[str, str | None]:
    """The settings of a node whose possible replicas are `others`."""
    return {"synchronous_standby_names": wanted.standby_names(others), "synchronous_commit": wanted.level}


def announced(node: Node) -> list[str]:
    """Replicas that the node's log announces as synchronous, in the order of the lines."""
    return [found[1] for found in _ANNOUNCED.finditer(node.control.log_tail(2000))]


def current(connection: sql.Connection) -> Replication:
    """What a server is set to. Raises BadInput for what PostgreSQL would not take."""
    found = sql.settings(connection, ["synchronous_standby_names", "synchronous_commit"])
    return Replication.from_setting(found["synchronous_standby_names"], found["synchronous_commit"])
