"""The promotion that crashes: set up in each way that makes it crash, tried, explained and repaired.

pg_promote ends with "terminating connection because of crash of another server process" whenever the server cannot
delete standby.signal at the end of recovery; the replica then shuts down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from labkit.errors import BadInput, ClusterError
from labkit.experiments.promotion_crash.attempt import attempt
from labkit.experiments.promotion_crash.parameters import CAUSES, PromotionCrash
from labkit.experiments.stage import fresh_clusters, recorded
from labkit.lab.cluster import promotion
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Damageable, Repairable
from labkit.remedies import advice
from labkit.run.schema import AttemptBlock, Cause
from labkit.run.store import Run

_DAMAGES: dict[Cause, tuple[str, str]] = {
    # cause: what sets it up, and what sets it right again, whether or not the server has crashed meanwhile
    "deleted": ("rm standby.signal", ""),
    "mounted": (
        "touch ../mounted.signal; chown {owner} ../mounted.signal; mount --bind ../mounted.signal standby.signal",
        'if grep -qF "$PWD/standby.signal" /proc/self/mountinfo; then umount --lazy standby.signal; fi\n'
        "rm -f ../mounted.signal",
    ),
    "immutable": ("chattr +i standby.signal", "chattr -i standby.signal"),
    # Not the server's own directory: its owner may delete whatever is in it. The server refuses to start in such a
    # directory, but one that runs already goes on: if the group may use it before the owner changes. In between, the
    # startup process would end with "PANIC: could not open file pg_wal/…: Permission denied".
    "sticky": ("chmod 1770 .; chown 0 standby.signal .", "chown {owner} .; chmod 700 .; rm -f standby.signal"),
    "unwritable": ("chmod 500 .", "chmod 700 ."),
    "foreign": ("chown 0 standby.signal", ""),
}


def promotion_crash(parameters: PromotionCrash) -> Run:
    """Try each set-up on a cluster of its own; one that this machine does not allow is noted with the reason.

    With `run_id` nothing is driven: the recorded run is returned. Raises LabkitError.
    """
    p = parameters
    if p.run_id:
        return recorded(p)
    with fresh_clusters(p) as (run, recreate):
        run.update(planned=dict.fromkeys(p.causes, 1))
        for number, cause in enumerate(p.causes):
            run.note_block(_try(number, cause, recreate(1)))
    return run


def _try(number: int, cause: Cause, cluster: Cluster) -> AttemptBlock:
    replica = cluster.replicas()[0]
    try:
        with damaged(replica, cause):
            with replica.session() as connection:
                warned = [f"{replica.name}: {problem}" for problem in promotion.preflight(connection)]
            if not warned:  # it has put an ordinary file in the place of the damaged one
                _damage(replica, cause)
            found = attempt(replica)
            alive = replica.control.running()
    except NotAllowed as reason:
        return AttemptBlock(block=number, cause=cause, tried=False, reason=str(reason))
    made = AttemptBlock(
        block=number,
        cause=cause,
        tried=True,
        preflight=warned,
        promoted=found.promoted,
        survived=alive,
        client=found.client,
        log=list(found.log),
    )
    return made if found.promoted else made.changed(repaired=_repair(replica))


def _repair(replica: Node) -> str:
    """Put an ordinary standby.signal back, start again, promote; the role it ends in."""
    assert isinstance(replica.control, Repairable)
    replica.control.put("standby.signal", "")
    replica.control.start()
    replica.wait_ready(60)
    replica.promote()
    return replica.role()


class NotAllowed(Exception):
    """This machine or this user may not set the damage up: the reason."""


@contextlib.contextmanager
def damaged(replica: Node, cause: Cause) -> Iterator[None]:
    """A replica whose standby.signal is in one of the states that CAUSES names, set right afterwards.

    Raises NotAllowed, BadInput, ClusterError if it cannot be set right.
    """
    if cause not in CAUSES:
        raise BadInput(f"cause: {cause!r} is not among {', '.join(CAUSES)}")
    if not isinstance(replica.control, Damageable):
        helps = advice("take provider embedded or docker")
        raise BadInput(f"{replica.name}: its data is out of this lab's reach", remedy=helps)
    try:
        _damage(replica, cause)
    except ClusterError as error:
        with contextlib.suppress(ClusterError):  # a part of it may have been done
            _set_right(replica, cause)
        raise NotAllowed(error.reason) from error
    try:
        yield
    finally:
        _set_right(replica, cause)


def _damage(replica: Node, cause: Cause) -> None:
    assert isinstance(replica.control, Damageable)
    replica.control.as_root(_DAMAGES[cause][0].format(owner=replica.control.owner))


def _set_right(replica: Node, cause: Cause) -> None:
    assert isinstance(replica.control, Damageable)
    replica.control.as_root(_DAMAGES[cause][1].format(owner=replica.control.owner))
