"""Promoting a replica: what is looked at before, and the promotion itself. Over connections that are open already."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

import psycopg

from labkit.errors import ClusterError
from labkit.lab.cluster import sql
from labkit.lab.cluster.waiting import Waited, wait_until
from labkit.lsn import lsn_text

# At the end of recovery the server deletes standby.signal, and dies if it cannot. Renaming a new file over the old one
# needs exactly the right to delete the old one, and at no moment is there none: a crash in between makes no primary.
# A folder that cannot be written to is no problem then: pg_promote says so itself, and the replica stays one.
_CAN_DELETE = """
cat > /dev/null
test -e standby.signal || exit 41
touch standby.signal.new || exit 42
mv -f standby.signal.new standby.signal 2> /dev/null && exit 0
rm -f standby.signal.new
exit 43
"""
_MEANINGS = {
    41: "standby.signal is gone: it was deleted by hand. The promotion would end with a crash; "
    "put an empty file of that name back into the data directory",
    42: "the data directory is not writable for the server: pg_promote would be refused; "
    "give it to the server's user (mode 0700)",
    43: "standby.signal cannot be deleted: the file is mounted on its own, immutable, or of another user in a sticky "
    "directory. The promotion would end with a crash; unmount it, or make it an ordinary file of the server's user",
}
_PAUSED = "its WAL replay is paused; SELECT pg_wal_replay_resume() continues it"


def preflight(connection: sql.Connection, followers: Sequence[tuple[str, int]] = ()) -> list[str]:
    """What would make the promotion of this replica fail, or leave its followers behind; one sentence each.

    `followers` are the other replicas and the LSN from which each must go on. Needs a shell beside the server, which
    every provider of labkit has.
    """
    if sql.role(connection) == "primary":
        return ["it is a primary already, there is nothing to promote"]
    problems = [_PAUSED] if sql.replay_paused(connection) else []
    oldest = sql.oldest_wal(connection)
    problems += [
        f"it has WAL from {lsn_text(oldest)} on, but {name} must go on from {lsn_text(lsn)}: it would have to "
        "be rebuilt. Raise wal_keep_size"
        for name, lsn in followers
        if lsn < oldest
    ]
    return problems + _standby_signal(connection)


def _standby_signal(connection: sql.Connection) -> list[str]:
    try:
        connection.execute(f"COPY (SELECT) TO PROGRAM $shell${_CAN_DELETE}$shell$")
    except psycopg.errors.ExternalRoutineException as error:
        found = re.search(r"exit code (\d+)", error.diag.message_detail or "")
        code = int(found[1]) if found else 0
        return [_MEANINGS.get(code, f"standby.signal could not be looked at: {error.diag.message_detail}")]
    return []


def promote(node: Waited, connection: sql.Connection, deadline_s: float = 30.0) -> None:
    """Promote and wait until the node has left recovery; no error if an earlier request has just been granted.

    pg_promote itself looks every 100 ms; this looks every 2 ms. Raises ClusterError with the log's last lines,
    WaitTimeout: the promotion may still end then.
    """
    try:
        # "Recovery is not in progress": it has ended since this was decided.
        with contextlib.suppress(psycopg.errors.ObjectNotInPrerequisiteState):
            if sql.replay_paused(connection):
                helps = sql.resume_replay("lets it be promoted")
                raise ClusterError("its WAL replay is paused", node=node.name, remedy=helps)
            sql.begin_promotion(connection)
        what = "the end of recovery, which may still come"
        wait_until(lambda: sql.role(connection) == "primary", deadline_s, what, node, interval_s=0.002)
    except psycopg.OperationalError as error:
        raise ClusterError(
            f"the promotion failed: {str(error).strip().splitlines()[0]}; the reason is in the log",
            node=node.name,
            log_tail=node.control.log_tail(),
        ) from error
