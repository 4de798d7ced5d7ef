"""The failover drill, verb by verb, as a student takes it in a notebook; and drills that are abandoned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fix_cli import invoke

import labkit
from labkit.errors import ClusterError, RunUnreadable
from labkit.experiments.failover import findings as recovery
from labkit.experiments.failover.drill import FailoverDrill
from labkit.experiments.failover.step_summary import StepSummary
from labkit.lab import procfs, providers
from labkit.lab.cluster import synchronize
from labkit.lab.failover import Refused, faults
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.protocol import ClusterSpec
from labkit.run import ledger
from labkit.run.store import RunStore

NAME = "drill-test"
SMALL = {"cluster": NAME, "by_hand": True, "writers": 4, "before_s": 0.4, "after_s": 0.2, "sample_interval_s": 0.2}
BEGIN_S = 90
END_S = 40


@pytest.fixture
def drill(provider: EmbeddedProvider) -> Iterator[FailoverDrill]:
    """A drill by hand, on a cluster of its own."""
    assert NAME not in provider.names()
    made = FailoverDrill(labkit.Failover.build(SMALL))
    yield made
    made.leave()


def running(name: str = NAME) -> list[str]:
    cluster = providers.provider("embedded").find(name)
    return [node.name for node in cluster.nodes if node.control.running()] if cluster else []


def taken(drill: FailoverDrill, verb: str, deadline_s: float) -> StepSummary:
    """Take a step by hand, within its deadline; it has something to show."""
    began = time.monotonic()
    step = getattr(drill, verb)()
    assert time.monotonic() - began < deadline_s, verb
    assert len(step.lines) > 0, verb
    assert all(line.words in str(step) for line in step)
    assert "<table" in step._repr_html_()
    return step


def test_every_step_by_hand(drill: FailoverDrill) -> None:
    assert drill.run.status == "started"
    with pytest.raises(ClusterError, match=r"promote\(\) cannot be done yet.*write\(\) comes first"):
        drill.promote()
    assert "10 writers" not in str(taken(drill, "write", 20))
    assert "pg1 is lost: kill" in str(taken(drill, "lose_primary", 15))
    with pytest.raises(ClusterError, match=r"survey\(\) comes first"):
        drill.promote()
    with pytest.raises(RunUnreadable, match=r"is not that far yet: decide\(\) comes first"):
        recovery.decision(drill.run)
    assert len(taken(drill, "survey", 10).lines) == 2
    taken(drill, "decide", 5)
    assert list(recovery.decision(drill.run).columns) == ["pg2", "pg3"], "the table is there before the run is over"
    taken(drill, "preflight", 10)
    taken(drill, "fence", 10)
    promoted = taken(drill, "promote", 15)
    assert "is the primary" in promoted.lines[-1].words
    assert str(drill.promote()) == str(promoted), "a verb that was taken is only shown"
    taken(drill, "repair", 10)
    taken(drill, "route", 5)
    assert "first_write" not in set(recovery.steps(drill.run)["step"])
    assert "has acknowledged a row" in str(taken(drill, "repoint", 20))
    assert "ok" in str(taken(drill, "stop_writing", 20))
    assert "audit passed" in str(taken(drill, "read_back", 20))
    assert recovery.table(drill.run).shape[1] == 2, "promoted and other; the dead primary is not read yet"
    assert "pg_rewind" in str(taken(drill, "rejoin", 60))
    assert drill.close().status == "complete"
    assert running() == []
    assert recovery.table(drill.run).shape[1] == 3
    assert drill.run.blocks[0].host_cpu is not None or not procfs.HERE
    assert any("taken by hand" in sentence for sentence in recovery.verdicts(drill.run))

    shown = FailoverDrill(labkit.Failover.build({"run_id": drill.run.id, "by_hand": True}))
    assert str(shown.promote()) == str(promoted)
    assert shown.close().status == "complete"


def test_a_refusal_is_looked_at_overridden_and_gone_on_with(drill: FailoverDrill) -> None:
    """ANY 1 of two, one of them gone: the quorum cannot be proven."""
    assert drill.cluster is not None
    drill.write()
    faults.inject(drill.cluster.node("pg3"), "kill")
    drill.lose_primary()
    drill.survey()
    with pytest.raises(Refused, match="quorum cannot be proven"):
        drill.decide()
    assert recovery.decision(drill.run).loc["answers"].to_dict() == {"pg2": "yes", "pg3": "no"}
    with pytest.raises(ClusterError, match=r"survey\(\) comes first"):
        drill.preflight()
    assert drill.cluster.node("pg2").role() == "replica"
    overridden = drill.decide(accept_data_loss=True)
    assert "pg2 is chosen" in str(overridden)
    assert "overridden" in str(overridden)
    for verb in ("preflight", "fence", "promote", "repair", "route", "repoint", "stop_writing", "read_back"):
        taken(drill, verb, 20)
    assert drill.cluster.node("pg2").role() == "primary"
    assert drill.run.blocks[0].overridden
    assert drill.run.blocks[0].verdict == "true"
    assert drill.close().status == "complete"
    assert running() == []


def test_a_second_drill_of_the_cluster_ends_the_first_and_a_closed_one_says_how_far_it_came(
    drill: FailoverDrill,
) -> None:
    drill.write()
    second = FailoverDrill(labkit.Failover.build(SMALL))
    assert drill.run.status == "failed"
    assert "left after write()" in drill.run.problem
    with pytest.raises(ClusterError, match="closed"):
        drill.lose_primary()
    assert len(running()) == 3
    assert second.close().status == "failed"
    assert running() == []


ABANDONED = f"""
import labkit, signal
drill = labkit.FailoverDrill(labkit.Failover.build({SMALL!r}))
for verb in "write lose_primary survey decide preflight fence promote repair route".split():
    getattr(drill, verb)()
print("routed", flush=True)
"""


@pytest.mark.parametrize("how", ["end", "sigterm"])
def test_a_drill_that_is_left_with_its_process_leaves_no_writer_and_no_server(
    how: str, lab_data: Path, provider: EmbeddedProvider
) -> None:
    """Between route and repoint: writers wait on a primary that acknowledges nothing yet."""
    script = ABANDONED + ("signal.pause()\n" if how == "sigterm" else "")
    environment = os.environ | {"LABKIT_DATA": str(lab_data)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "routed\n"
        if how == "sigterm":
            process.send_signal(signal.SIGTERM)
        process.wait(END_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (-signal.SIGTERM if how == "sigterm" else 0)
    run = RunStore(lab_data / "runs").latest("failover")
    assert run.status == "failed"
    why = "; SIGTERM ended its process" if how == "sigterm" else ""
    assert run.problem.startswith(f"the drill was left after route(), before its end{why}. Its cluster is not whole")
    assert running() == []
    assert (ledger.written(run)["outcome"] == "ok").sum() > 100, "the ledger of the writers is kept"
    with pytest.raises(ClusterError, match=r"is not whole.*labkit\.down\(.*purge=True\)"):
        FailoverDrill(labkit.Failover.build(SMALL))
    provider.down(NAME, purge=True)


def test_killed_with_its_lab_no_writer_is_left_and_the_run_says_what_became_of_it(
    lab_data: Path, provider: EmbeddedProvider
) -> None:
    environment = os.environ | {"LABKIT_DATA": str(lab_data)}
    command = [sys.executable, "-c", ABANDONED + "signal.pause()\n"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "routed\n"
        started = psutil.Process(process.pid).children(recursive=True)
        workers = [child for child in started if "spawn_main" in " ".join(child.cmdline())]
        run = RunStore(lab_data / "runs").latest("failover")
        assert run.state == "running"
        process.kill()
    assert workers
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert run.state == "cut off"
    assert "the process that drove it was killed" in invoke("runs", "-n", "1").output
    assert (ledger.written(run)["outcome"] == "ok").sum() > 100, "the ledger of the writers is kept"
    provider.down(NAME, purge=True)
    assert running() == []


def test_a_cluster_that_was_there_waits_for_the_same_replicas_afterwards(provider: EmbeddedProvider) -> None:
    cluster = provider.up(ClusterSpec(NAME))
    try:
        cluster.synchronous("FIRST", 2, "remote_write", deadline_s=20)
        with FailoverDrill(labkit.Failover.build(SMALL | {"by_hand": False, "mode": "ANY 1"})) as drill:
            drill.take_all()
        with cluster.primary().session() as connection:
            found = synchronize.current(connection)
        assert (str(found), found.level) == ("FIRST 2", "remote_write")
        assert cluster.primary().name != "pg1"
    finally:
        provider.down(NAME, purge=True)
