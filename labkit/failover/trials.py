"""One trial: writers, a fault, a failover, the rows read back and judged. Its facts are one block of a run."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from labkit import audit, faults, outage
from labkit.cluster import Cluster, Node
from labkit.failover import readback, rejoining
from labkit.failover.steps import FailoverSteps, Policy
from labkit.failover.watching import Watch
from labkit.load import writing
from labkit.load.shards import Generators
from labkit.load.writing import WriteLoad
from labkit.store import Run
from labkit.synchronous import Synchronous
from labkit.workloads import AppendRows

BEHIND = "-behind"


@dataclass(frozen=True)
class Trial:
    """What is done in one trial; times in seconds."""

    replication: Synchronous
    fault: str
    workload: AppendRows
    policy: Policy
    writers: int = 10
    before_s: float = 1.0
    behind_s: float = 0.2
    after_s: float = 0.5
    timeout_s: float = 20.0
    seed: int = 0
    block: int = 0
    rejoin: bool = False
    deadline_s: float = 60.0


def run_trial(trial: Trial, cluster: Cluster, run: Run, generators: Generators) -> dict[str, Any]:
    """Drive it on a healthy cluster; its facts, which are JSON. Everything read is in the run's tables.

    Raises Refused, ClusterError, LoadError, WaitTimeout.
    """
    rng = random.Random(trial.seed)
    old = cluster.primary()
    sync_states = cluster.synchronous(
        trial.replication.mode, trial.replication.k, trial.replication.level, trial.deadline_s
    )
    writing.prepare(cluster, trial.workload, trial.deadline_s)

    def log(kind: str, **details: object) -> None:
        run.event(kind, block=trial.block, **details)

    log("synchronous", states=sync_states)
    load = writing.begin(
        cluster,
        run,
        generators,
        trial.workload,
        writers=trial.writers,
        timeout_s=trial.timeout_s,
        seed=trial.seed,
        block=trial.block,
    )
    snapshots: list[readback.Snapshot] = []
    with writing.writing(load):
        load.wait_begun(trial.deadline_s)
        _pass(trial.before_s)
        failover = _lose_and_fail_over(trial, cluster, old, load, snapshots, rng, run, log)
        new = failover.new
        assert new is not None
        load.wait_more(1, trial.deadline_s)
        _pass(trial.after_s)
    read_ns = run.now_ns()
    keys, xids = readback.promoted(new)
    views = {"promoted": (new.name, keys, xids)}
    if snapshots:
        other_keys, other_xids = snapshots[0].read()
        views["other"] = (snapshots[0].node.name, other_keys, other_xids)
    facts = _facts(trial, run, failover, load, old, read_ns)
    log("read_back", node=new.name, rows=len(keys))
    if trial.rejoin:
        facts |= _bring_back(trial, cluster, run, failover, old, new, views, log)
    for view, (node, view_keys, view_xids) in views.items():
        readback.record(run, trial.block, view, node, view_keys, view_xids)
    writes = run.table("writes")
    writes = writes[writes["block"] == trial.block]
    judged = audit.judge(writes, keys, read_ns)
    log("audit", verdict=judged.verdict, reason=judged.reason, **judged.counts)
    facts |= outage.figures(writes, facts["fault_ns"])
    facts |= {"views": list(views), "verdict": judged.verdict, "reason": judged.reason, "counts": judged.counts}
    if "other" in views:
        facts["other_lost"] = len(audit.judge(writes[writes["node"].astype(str) == old.name], views["other"][1]).lost)
    return facts


def _lose_and_fail_over(
    trial: Trial,
    cluster: Cluster,
    old: Node,
    load: WriteLoad,
    snapshots: list[readback.Snapshot],
    rng: random.Random,
    run: Run,
    log: Any,
) -> FailoverSteps:
    with Watch(old, cluster.replicas()) as watch:
        with _behind(trial, cluster, rng, log):
            watch.probe()
            fault = "kill" if trial.fault.endswith(BEHIND) else trial.fault
            began = faults.inject(old, fault)
        log("fault", fault=trial.fault, node=old.name, at_ns=began - run.epoch_ns)
        reason = watch.wait_for_failure(trial.deadline_s)
        log("detected", node=old.name, reason=reason)
        failover = FailoverSteps(
            cluster,
            old,
            trial.policy,
            primary_lsn=watch.primary_lsn,
            replication=watch.replication,
            sessions=watch.take_sessions(),
            log=log,
        )
    failover.times_ns["fault"] = began

    def remember_the_other() -> None:
        assert failover.decision is not None
        for survivor in failover.decision.survivors:
            if survivor.answers and failover.new is not None and survivor.name != failover.new.name and not snapshots:
                node = cluster.node(survivor.name)
                snapshots.append(readback.Snapshot(node, survivor.received, trial.deadline_s))

    with contextlib.closing(failover):
        failover.run(on_promoted=load.follow, before_repoint=remember_the_other)
    return failover


@contextlib.contextmanager
def _behind(trial: Trial, cluster: Cluster, rng: random.Random, log: Any) -> Iterator[None]:
    """Hold one replica, drawn by the seed, or all of them back for `behind_s` before the fault, and do not undo it."""
    if trial.fault.endswith(BEHIND):
        replicas = cluster.replicas()
        held = replicas if trial.fault == "kill-all-behind" else [rng.choice(replicas)]
        for node in held:
            faults.stop_receiving(node, trial.deadline_s)
        log("held_back", nodes=[node.name for node in held])
        _pass(trial.behind_s)
    yield


def _facts(trial: Trial, run: Run, failover: FailoverSteps, load: WriteLoad, old: Node, read_ns: int) -> dict[str, Any]:
    decision, result = failover.decision, load.result
    assert decision is not None
    assert result is not None
    epoch = run.epoch_ns
    times = {f"{step}_ns": t - epoch for step, t in failover.times_ns.items()}
    return {
        "block": trial.block,
        "mode": str(trial.replication),
        "level": trial.replication.level,
        "fault": trial.fault,
        "seed": trial.seed,
        "old": old.name,
        "new": failover.new.name if failover.new else None,
        "decision": decision.table(),
        "choices": decision.choices,
        "overridden": list(decision.refusals),
        "times": times,
        "fault_ns": times["fault_ns"],
        "promoted_ns": times["promote_ns"],
        "read_ns": read_ns,
        "from_ns": result.from_ns,
        "to_ns": result.to_ns,
        "cut_off": load.cut_off,
        "sqlstates": result.sqlstates,
        "problems": result.problems,
    }


def _bring_back(
    trial: Trial,
    cluster: Cluster,
    run: Run,
    failover: FailoverSteps,
    old: Node,
    new: Node,
    views: dict[str, Any],
    log: Any,
) -> dict[str, Any]:
    """Ghost forensics, then the old primary as a replica."""
    assert failover.decision is not None
    assert failover.decision.chosen is not None
    own = rejoining.own_rows(old, trial.deadline_s)
    views["old"] = (old.name, own[0], own[1])
    ghosts = rejoining.ghosts(old, own, views["promoted"][1], failover.decision.chosen.has)
    log("ghosts", node=old.name, rows=len(ghosts.keys), transactions=len(set(ghosts.xids.tolist())))
    rejoining.record(run, trial.block, ghosts)
    how = rejoining.rejoin(cluster, old, new, trial.replication, trial.deadline_s, log)
    cluster.wait_for_catchup(trial.deadline_s)
    return {"ghosts": len(ghosts.keys), "rejoined": how, "back_ns": run.now_ns()}


def _pass(duration_s: float) -> None:
    """Let time go by under load: how long is a parameter, not a guess about when something will be ready."""
    time.sleep(duration_s)
