"""The old primary after a failover: what only it has, then back into the cluster as a replica."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from labkit import replication
from labkit.errors import ClusterError
from labkit.lab.cluster import sql, synchronize
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Isolatable, Repairable
from labkit.lab.failover import offline_state, readback
from labkit.lab.failover.readback import Keys
from labkit.lsn import lsn_text, parse_lsn
from labkit.remedies import advice
from labkit.replication import Replication
from labkit.run import steps
from labkit.run.store import Run

_COMMIT = re.compile(r"tx:\s+(\d+), lsn: ([0-9A-F]+/[0-9A-F]+),.* COMMIT (\S+ \S+ UTC)")
Log = Callable[..., None]


@dataclass(frozen=True)
class Ghosts:
    """Rows that only the dead primary has: parallel arrays; commit_lsn is -1 where its WAL holds no such commit."""

    keys: Keys
    xids: Keys
    commit_lsns: Keys
    commit_utc: list[str]


def own_rows(old: Node, deadline_s: float = 60.0) -> tuple[Keys, Keys, int, int]:
    """Start the fenced old primary, following no primary, and read what it has: keys, xids, last LSN, timeline.

    It replays its own WAL to the end and accepts no write. It is stopped again afterwards, cleanly, which is what
    pg_rewind asks for. Raises ClusterError if it is not fenced, WaitTimeout.
    """
    old.control.start()
    if isinstance(old.control, Isolatable):
        old.control.rejoin_network()  # fenced, it may be reached again
    try:
        old.wait_ready(deadline_s)
        with old.session() as connection:
            if sql.role(connection) == "primary":
                raise ClusterError("it came back as a primary: it was not fenced", node=old.name)
            keys, xids = readback.rows(connection)
            last = sql.wal_position(connection).replayed or 0
            return keys, xids, last, sql.timeline(connection)
    finally:
        old.control.stop("fast")


def ghosts(old: Node, own: tuple[Keys, Keys, int, int], surviving: Keys, forked_at: int) -> Ghosts:
    """Rows that `old` has and the survivors have not, each with the commit that pg_waldump finds beyond the fork.

    `own` comes from `own_rows`, `forked_at` is the LSN up to which the new primary had received. Raises ClusterError.
    """
    keys, xids, last, timeline = own
    only_here = ~np.isin(keys, surviving)
    keys, xids = keys[only_here], xids[only_here]
    commits = _commits(old, forked_at, last, timeline) if len(keys) and last > forked_at else {}
    found = [commits.get(xid, (-1, "")) for xid in xids.tolist()]
    return Ghosts(keys, xids, np.array([lsn for lsn, _ in found], np.int64), [utc for _, utc in found])


def _commits(old: Node, start: int, end: int, timeline: int) -> dict[int, tuple[int, str]]:
    assert isinstance(old.control, Repairable)
    text = old.control.program(
        "pg_waldump",
        f"--path={old.control.data}/pg_wal",
        "--rmgr=Transaction",
        f"--timeline={timeline}",
        f"--start={lsn_text(start)}",
        f"--end={lsn_text(end)}",
    )
    return {int(xid): (parse_lsn(lsn), utc) for xid, lsn, utc in _COMMIT.findall(text)}


def record(run: Run, block: int, found: Ghosts) -> None:
    """Keep the ghosts in the run's table of that name."""
    words, codes = np.unique(np.array(found.commit_utc, dtype=str), return_inverse=True)
    with run.writer("ghosts", block) as writer:
        writer.write(
            {
                "block": np.full(len(found.keys), block, np.int32),
                "key": found.keys,
                "xid": found.xids,
                "commit_lsn": found.commit_lsns,
                "commit_utc": (codes.astype(np.int32), [str(word) for word in words]),
            }
        )


def rejoin(
    cluster: Cluster,
    old: Node,
    new: Node,
    replication: Replication | None = None,
    deadline_s: float = 120.0,
    log: Log | None = None,
) -> str:
    """Make the old primary a replica of the new one, and restore what commits wait for; how it was done.

    pg_rewind takes back what the old primary alone had; where it cannot, a base backup replaces everything. Raises
    ClusterError, WaitTimeout.
    """
    control = old.control
    if not isinstance(control, Repairable):
        helps = advice("rebuild it by hand")
        raise ClusterError("its provider cannot work on its files", node=old.name, remedy=helps)
    if isinstance(control, Isolatable) and control.running():
        control.rejoin_network()
    control.stop("fast")
    with new.session() as connection:
        sql.create_slot(connection, old.name)
        # pg_rewind reads the timeline from the control file, which a promotion alone does not write at once.
        connection.execute("CHECKPOINT")
    try:
        how = _rewind(old, new, control, deadline_s)
    except ClusterError as error:
        if log is not None:
            log(steps.REWIND_FAILED.kind, reason=str(error))
        how = _copy(new, old, control)
    control.put("standby.signal", "")
    lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in old.following(new).items()]
    control.put("postgresql.auto.conf", "".join(lines), append=True)
    control.start()
    old.wait_ready(deadline_s)
    with old.session() as connection:
        old.wait_following(new, connection, deadline_s)
        # The slots of its former replicas would hold WAL without end.
        for (slot,) in connection.execute("SELECT slot_name FROM pg_replication_slots WHERE NOT active").fetchall():
            sql.drop_slot(connection, slot)
    if replication is not None:
        roles = cluster.roles()
        for node in cluster.nodes:
            if roles[node.name] is not None:  # one that hangs can be told nothing
                others = [other.name for other in cluster.nodes if other is not node]
                node.configure(synchronize.settings(replication, others))
    if log is not None:
        log(steps.REJOINED.kind, node=old.name, how=how)
    return how


def promised(cluster: Cluster, old: Node, new: Node) -> Replication:
    """What commits are to wait for when `old` is back: as much as before the failover, which lowered it to the replicas
    that were left, but for no more replicas than stream from `new` then.

    The strictest of what the nodes that answer are set to, and of what the files of `old` say. Raises ClusterError,
    BadInput.
    """
    replicas = [node for node in cluster.replicas() if node is not old]
    with new.session() as connection:
        streaming = {row["application_name"] for row in sql.replication(connection) if row["state"] == "streaming"}
    found = []
    for node in (new, *replicas):
        with node.session() as connection:
            found.append(synchronize.current(connection))
    if (before := offline_state.promised(old)) is not None:
        found.append(before)
    strictest = replication.strictest(found)  # the new primary's among equals
    return replace(strictest, k=min(strictest.k, len(streaming - {old.name}) + 1))


def _rewind(old: Node, new: Node, control: Repairable, deadline_s: float) -> str:
    """Raises ClusterError if the data cannot be rewound; it may be unusable then."""
    control.put("standby.signal", "")
    # Only a server that was stopped cleanly can be rewound, and as a fenced replica it stops cleanly.
    old.control.start()
    old.wait_ready(deadline_s)
    old.control.stop("fast")
    source = conninfo_to_dict(new.conninfo("admin")) | {"host": new.peer[0], "port": new.peer[1]}
    password = str(source.pop("password"))
    control.program(
        "pg_rewind",
        f"--target-pgdata={control.data}",
        f"--source-server={make_conninfo('', **source)}",
        password=password,
    )
    return "pg_rewind"


def _copy(new: Node, old: Node, control: Repairable) -> str:
    old.control.stop("immediate")
    control.clear()
    source = conninfo_to_dict(old.source(new))
    without = {name: value for name, value in source.items() if name not in ("password", "passfile", "dbname")}
    control.program(
        "pg_basebackup",
        f"--pgdata={control.data}",
        f"--dbname={make_conninfo('', **without)}",
        f"--slot={old.name}",
        "--wal-method=stream",
        "--checkpoint=fast",
        "--no-password",
        password=str(conninfo_to_dict(new.conninfo("replication"))["password"]),
    )
    return "pg_basebackup"
