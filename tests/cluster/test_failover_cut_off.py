"""Failovers that are interrupted, between two steps and inside every step: status names them, the next continues."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import failover_cut_off
import pytest
from fix_cli import on_own

from labkit import paths
from labkit.lab.cluster import sql
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.powers import Killable
from labkit.lab.failover import FailoverSteps, Policy, faults, note
from labkit.lab.providers.embedded import processes
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.embedded.server import EmbeddedServer
from labkit.lab.providers.protocol import ClusterSpec
from labkit.replication import Replication
from labkit.run import steps
from labkit.run.kinds import event

STEPS = ("survey", "decide", "preflight", "fence", "promote_called", "promote", "repair", "route", "repoint")
PAUSED = "survey, one receiver stopped"  # only while the primary hangs
EndInside = Callable[[str, signal.Signals], None]
SCRIPT = Path(failover_cut_off.__file__)


def problem() -> str:
    """The problem that `labkit status` reports."""
    done = on_own("status", "--json")
    assert done.exit_code == 0, done.output
    return str(json.loads(done.stdout)[0]["problem"])


@pytest.fixture(scope="module")
def end_inside(lab_data: Path) -> Iterator[EndInside]:
    """`labkit failover` in a process of its own, ended inside a step."""
    assert paths.data() == lab_data
    with subprocess.Popen([sys.executable, str(SCRIPT)], text=True, stdin=PIPE, stdout=PIPE, bufsize=1) as forking:
        assert forking.stdin is not None
        assert forking.stdout is not None

        def end(place: str, by: signal.Signals) -> None:
            assert forking.stdin is not None
            assert forking.stdout is not None
            forking.stdin.write(f"{place}\t{by.name}\n")
            ended = int(forking.stdout.readline())
            assert ended == (-signal.SIGKILL if by is signal.SIGKILL else 128 + by), place

        yield end
        forking.stdin.close()


LEFT_TO_DO = (
    "pg1: it is stopped, and would follow no primary, as a failover leaves an old primary; "
    "`labkit rejoin pg1 --name own` makes it a replica"
)
"""What status says after a failover that has ended, as the failover itself did."""


def primaries(cluster: Cluster) -> list[str]:
    """Nodes that are primaries, or would be if they were started."""
    return [
        node.name
        for node in cluster.nodes
        if isinstance(node.control, EmbeddedServer)
        and (node.role() == "primary" if node.control.running() else node.control.is_primary_by_data)
    ]


def is_free(cluster: Cluster) -> bool:
    """Whether the next failover is let in; raises if not."""
    with note.alone_on(cluster):
        return True


def test_interrupted_between_any_two_steps_the_next_one_goes_on(own_cluster: Cluster) -> None:
    """One failover, cut off once after each of its steps; each attempt but the last ends at the step it is told to."""
    cluster, old = own_cluster, own_cluster.node("pg1")
    cluster.synchronous("ANY", 1, "on", deadline_s=20)
    faults.inject(old, "kill")
    for last in STEPS:

        def interrupt(kind: str, _last: str = last, **details: object) -> None:
            del details
            if kind == _last:
                raise KeyboardInterrupt

        with (
            contextlib.suppress(KeyboardInterrupt),
            contextlib.closing(FailoverSteps(cluster, old, log=interrupt)) as failover,
        ):
            failover.run(on_promoted=lambda _: None)
            pytest.fail(f"it was not interrupted at {last}")
        assert "a failover from pg1" in problem()
        assert len([role for role in cluster.roles().values() if role == "primary"]) <= 1
    told: dict[str, str] = {}

    def tell(kind: str, **details: object) -> None:
        told[kind] = steps.said(event(kind, **details))

    with contextlib.closing(FailoverSteps(cluster, old, log=tell)) as failover:
        new = failover.run()
    assert cluster.primary() is new
    assert problem() == LEFT_TO_DO
    with new.session() as connection:
        names = sql.settings(connection, ["synchronous_standby_names"])["synchronous_standby_names"]
    assert names == "ANY 1 (pg3, pg1)"
    assert told["decide"] == "pg2, promoted before, is chosen"
    assert told["preflight"] == "nothing to look for: pg2 is a primary already"
    assert told["repair"] == f"nothing to repair: commits wait for {names}, synchronous_commit = on"


def test_ended_inside_every_step_it_is_described_and_the_next_one_goes_on(
    own_cluster: Cluster, end_inside: EndInside
) -> None:
    """One failover, ended at each place by Ctrl-C or SIGTERM, in turn, and by kill -9; the last attempt ends it."""
    cluster, old = own_cluster, own_cluster.node("pg1")
    cluster.synchronous("ANY", 1, "on", deadline_s=20)
    faults.inject(old, "kill")
    interrupts = itertools.cycle((signal.SIGINT, signal.SIGTERM))
    for place in failover_cut_off.PLACES:
        if place == PAUSED:
            continue
        for by in (signal.SIGKILL,) if place == "promote, asked" else (next(interrupts), signal.SIGKILL):
            end_inside(place, by)
            said = problem()
            assert (
                f"a failover from pg1{', to pg2' if 'to pg2' in said else ''} is at, or was cut off in, step " in said
            )
            assert place.split(",")[0] in said.split("step ")[1], place
            assert "`labkit failover --name own` goes on" in said
            assert ("pg1 is fenced" in said) == (list(failover_cut_off.PLACES).index(place) >= 4), place
            assert len(primaries(cluster)) <= 1, place
            assert is_free(cluster)
    done = on_own("failover")
    assert done.exit_code == 0, done.output
    assert "pg2 is the primary" in done.stdout
    assert problem() == LEFT_TO_DO
    assert primaries(cluster) == ["pg2"]
    cluster.wait_for_catchup(20)
    assert on_own("rejoin", "pg1").exit_code == 0
    cluster.wait_streaming(20)
    with cluster.primary().session() as connection:
        connection.execute("CREATE TABLE after ()")


@pytest.mark.parametrize("place", ["fence, not marked", "promote, asked"])
def test_given_up_nothing_is_left_of_it(own_cluster: Cluster, end_inside: EndInside, place: str) -> None:
    """down --purge after kill -9: no process, no file, no note that a new cluster of that name would take for its."""
    faults.inject(own_cluster.node("pg1"), "kill")
    end_inside(place, signal.SIGKILL)
    done = on_own("down", "--purge")
    assert "removed" in done.output
    assert not (paths.clusters() / "own").exists()
    assert processes.within(paths.clusters() / "own") == []
    assert note.read(own_cluster) is None
    assert is_free(own_cluster)
    EmbeddedProvider().up(ClusterSpec("own", replicas=0))
    assert problem() == "None"


def test_cut_off_while_the_primary_hung_its_replicas_follow_it_once_it_goes_on(
    own_cluster: Cluster, end_inside: EndInside
) -> None:
    """A hanging primary's replicas are told to receive nothing; neither a refusal nor a kill -9 may leave it so."""
    cluster, old = own_cluster, own_cluster.node("pg1")
    control = old.control
    assert isinstance(control, Killable)
    faults.inject(old, "pause")
    end_inside(PAUSED, signal.SIGKILL)
    assert cluster.node("pg2").settings(["primary_conninfo"]) == {"primary_conninfo": ""}
    control.resume()
    done = on_own("failover")
    assert done.exit_code == 0, done.output
    assert "the failover is given up" in done.stdout
    assert problem() == "None"
    cluster.wait_streaming(20)
    assert cluster.primary() is old

    faults.inject(old, "pause")
    end_inside(PAUSED, signal.SIGKILL)
    for node in (cluster.node("pg2"), cluster.node("pg3")):
        with node.session() as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
    done = on_own("failover")
    assert done.exit_code == 2
    assert "its WAL replay is paused" in done.stderr
    for node in (cluster.node("pg2"), cluster.node("pg3")):
        with node.session() as connection:
            connection.execute("SELECT pg_wal_replay_resume()")
    control.resume()
    cluster.wait_streaming(20)


def test_what_commits_waited_for_is_not_forgotten_when_cut_off(own_cluster: Cluster) -> None:
    """Without hold_writes the new primary waits for no replica for a while, although commits waited for one before."""
    cluster, old = own_cluster, own_cluster.node("pg1")
    cluster.synchronous("ANY", 1, "on", deadline_s=20)
    faults.inject(old, "kill")

    def interrupt(kind: str, **details: object) -> None:
        del details
        if kind == "repair":
            raise KeyboardInterrupt

    with (
        contextlib.suppress(KeyboardInterrupt),
        contextlib.closing(FailoverSteps(cluster, old, Policy(hold_writes=False), log=interrupt)) as failover,
    ):
        failover.run()
    with contextlib.closing(FailoverSteps(cluster, old)) as failover:
        failover.run()
    assert failover.replication == Replication("ANY", 1, "on")
