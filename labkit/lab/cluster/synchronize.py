"""Synchronous replication: which commits wait for which replicas, applied by reload and verified on the servers."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from labkit.errors import BadInput, WaitTimeout
from labkit.lab.cluster import sql as postgres

if TYPE_CHECKING:
    from labkit.lab.cluster.cluster import Cluster, Node

Mode = Literal["off", "FIRST", "ANY"]
Level = Literal["off", "local", "remote_write", "on", "remote_apply"]
MODES = ("off", "FIRST", "ANY")
LEVELS = ("off", "local", "remote_write", "on", "remote_apply")
REMOTE_LEVELS = LEVELS[2:]
_ANNOUNCED = re.compile(r'standby "([^"]+)" is now a (?:synchronous standby with priority \d+|candidate for quorum.*)')


@dataclass(frozen=True)
class Synchronous:
    """Who a commit waits for: nobody (`off`), the first `k` replicas that are connected (`FIRST`), or any `k` of them
    (`ANY`); `level` is synchronous_commit, how far they must have come."""

    mode: Mode = "off"
    k: int = 1
    level: Level = "on"

    @classmethod
    def parse(cls, words: str, level: str = "on") -> Synchronous:
        """From `off`, `async`, `FIRST 1` or `ANY 2`. Raises BadInput."""
        found = re.fullmatch(r"\s*(?:(off|async)|(FIRST|ANY)\s+(\d+))\s*", words, re.IGNORECASE)
        if found is None:
            raise BadInput(f"{words!r} is no replication mode; there are: off, FIRST k, ANY k")
        made = cls("off") if found[1] else cls(found[2].upper(), int(found[3]))  # type: ignore[arg-type]
        return cls(made.mode, made.k, level)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return "async" if self.mode == "off" else f"{self.mode} {self.k}"

    @property
    def promises(self) -> int:
        """On how many replicas an acknowledged commit is."""
        return self.k if self.mode != "off" and self.level in REMOTE_LEVELS else 0

    def standby_names(self, replicas: Sequence[str]) -> str:
        """The value of synchronous_standby_names."""
        return "" if self.mode == "off" else f"{self.mode} {self.k} ({', '.join(replicas)})"

    def sync_states(self, replicas: Sequence[str]) -> dict[str, str]:
        """What pg_stat_replication.sync_state must say of connected replicas, given in the order they are listed."""
        if self.mode == "off":
            return dict.fromkeys(replicas, "async")
        if self.mode == "ANY":
            return dict.fromkeys(replicas, "quorum")
        return {name: "sync" if place < self.k else "potential" for place, name in enumerate(replicas)}

    def check(self, replicas: int, down: Sequence[str] = ()) -> None:
        """Raises BadInput naming everything that cannot be with that many replicas; `down` are those not running."""
        problems = []
        if self.mode not in MODES:
            problems.append(f"mode: {self.mode!r} is not among {', '.join(MODES)}")
        if self.level not in LEVELS:
            problems.append(f"level: {self.level!r} is not among {', '.join(LEVELS)}")
        if isinstance(self.k, bool) or not isinstance(self.k, int):
            problems.append(f"k: {self.k!r} is not a whole number")
        elif self.mode != "off" and self.k < 1:
            problems.append(f"k: {self.k} is out of range, it must be at least 1")
        elif self.mode != "off" and self.k > replicas:
            there = f"than the {replicas} replicas there are" if not down else f"than the {replicas} replicas that run"
            more = f"start {', '.join(down)}" if down else "add replicas"
            problems.append(
                f"k: {self.mode} {self.k} asks for more {there}; every commit would wait for ever. Lower k, or {more}"
            )
        if problems:
            raise BadInput(problems, subject="synchronous replication")


def apply(cluster: Cluster, wanted: Synchronous, deadline_s: float = 15.0) -> dict[str, str]:
    """Set it on every node, so that it outlives a failover, and wait until the primary acts on it.

    Each node lists the others; on a replica the setting sleeps until it is promoted. Verified on the primary: the
    setting, pg_stat_replication.sync_state of every replica that answers, and in its log that each replica which became
    synchronous was announced. Returns replica -> sync_state, of those that answer. Raises BadInput if fewer than k do,
    ClusterError, and WaitTimeout if the primary does not act on it in time; what was set before is then set again.
    """
    from labkit.lab.cluster.cluster import wait_until

    primary = cluster.primary()
    roles = cluster.roles()  # one that hangs runs, but can neither be set nor answer for a commit
    running = [node for node in cluster.nodes if node is primary or roles[node.name] is not None]
    names = [node.name for node in running if node is not primary]
    wanted.check(len(names), [node.name for node in cluster.nodes if node not in running])
    expected = wanted.sync_states(names)
    give_up = time.monotonic() + deadline_s
    with primary.session() as connection, _undone_on_timeout(running):
        before = {row["application_name"]: row["sync_state"] for row in postgres.replication(connection)}
        for node in running:
            node.configure(settings(wanted, [other.name for other in cluster.nodes if other is not node]))

        def agreed() -> bool:
            rows = [row for row in postgres.replication(connection) if row["application_name"] in expected]
            states = {row["application_name"]: row["sync_state"] for row in rows if row["state"] == "streaming"}
            return states == expected and postgres.settings(connection, ["synchronous_commit"]) == {
                "synchronous_commit": wanted.level
            }

        wait_until(agreed, give_up - time.monotonic(), f"replicas to stream with sync_state {expected}", primary)
    fresh = {n for n, state in expected.items() if state in _COUNTING and before.get(n) not in _COUNTING}
    # The announcement comes with the replica's next report, within wal_receiver_status_interval. A replica that was
    # synchronous at its last report, and is again at its next, is not announced anew: any earlier line will do.
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
    """Commits must not be left waiting for replicas that do not come."""
    before = {node.name: node.settings(["synchronous_standby_names", "synchronous_commit"]) for node in nodes}
    try:
        yield
    except WaitTimeout as error:
        for node in nodes:
            node.configure(before[node.name])
        error.message += "; what was set before is set again"
        raise


_COUNTING = ("sync", "quorum")


def settings(wanted: Synchronous, others: Sequence[str]) -> Mapping[str, str | None]:
    """The settings of a node whose possible replicas are `others`."""
    return {"synchronous_standby_names": wanted.standby_names(others), "synchronous_commit": wanted.level}


def announced(node: Node) -> list[str]:
    """Replicas that the node's log announces as synchronous, in the order of the lines."""
    return [found[1] for found in _ANNOUNCED.finditer(node.control.log_tail(2000))]


def current(connection: postgres.Connection) -> Synchronous:
    """What a server is set to. Raises BadInput for what PostgreSQL would not take."""
    found = postgres.settings(connection, ["synchronous_standby_names", "synchronous_commit"])
    return parse_names(found["synchronous_standby_names"], found["synchronous_commit"])


def strictest(found: Sequence[Synchronous]) -> Synchronous:
    """The one whose commits are on the most replicas, the first among equals; `off` if there is none."""
    return max(found, key=lambda each: each.promises, default=Synchronous("off"))


def parse_names(names: str, level: str = "on") -> Synchronous:
    """What a value of synchronous_standby_names means, whoever wrote it. Raises BadInput.

    A bare list is FIRST 1, and `2 (…)` is FIRST 2 (PostgreSQL's documentation of the setting).
    """
    if not names.strip():
        return Synchronous.parse("off", level)
    before, listed, _ = names.partition("(")
    method = before.strip() if listed else "FIRST 1"
    return Synchronous.parse(f"FIRST {method}" if method.isdigit() else method, level)
