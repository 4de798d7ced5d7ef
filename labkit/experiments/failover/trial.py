"""One trial: writers, a fault, a failover, the rows read back and judged. Its facts are one block of a run."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import random
import time
from typing import Any, Self

from labkit.checkers import audit, outage
from labkit.errors import ClusterError, LoadError
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.failover import faults, readback, rejoining
from labkit.lab.failover.fault import Fault
from labkit.lab.failover.policy import Policy
from labkit.lab.failover.steps import FailoverSteps
from labkit.lab.failover.watching import Watch
from labkit.lab.load import writing
from labkit.lab.load.shards import Generators
from labkit.lab.load.writing import WriteLoad
from labkit.lab.sampling.sampler import Sampler
from labkit.lab.workloads.append_rows import AppendRows
from labkit.replication import Replication
from labkit.run import steps
from labkit.run.kinds import event
from labkit.run.layout import View
from labkit.run.schema import Outage, RowCounts, TrialBlock
from labkit.run.steps import Moment, Step
from labkit.run.store import Run

_PATIENCE_S = 1.0  # with writers whose trial has ended early; a notebook server waits for little more


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is done in one trial; times in seconds."""

    replication: Replication
    fault: Fault
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


def run_trial(trial: Trial, cluster: Cluster, run: Run, generators: Generators, sampler: Sampler) -> TrialBlock:
    """Drive it on a healthy cluster; its facts. Everything read is in the run's tables.

    Raises Refused, ClusterError, LoadError, WaitTimeout.
    """
    with TrialSteps(trial, cluster, run, generators, sampler) as taking:
        for step in steps.TRIAL:
            taking.take(step)
    assert taking.facts is not None
    return taking.facts


class TrialSteps:
    """A trial step by step, on a healthy cluster: `take` takes each of labkit.run.steps.TRIAL, in that order.

    A context manager: at its end no writer is left. `facts` are there after `read_back`.
    """

    def __init__(self, trial: Trial, cluster: Cluster, run: Run, generators: Generators, sampler: Sampler) -> None:
        self.trial, self.cluster, self.run, self.generators = trial, cluster, run, generators
        self._sampler = sampler
        self.old = cluster.primary()
        self.facts: TrialBlock | None = None
        self._load: WriteLoad | None = None
        self._failover: FailoverSteps | None = None
        self._fault_ns: int | None = None
        self._views: dict[View, tuple[str, readback.Keys, readback.Keys]] = {}

    def take(self, step: Step, **how: Any) -> None:
        """Take a step, by the method of its name here, or else of the failover.

        Every step raises ClusterError and WaitTimeout, those with writers LoadError; `decide`, `preflight` and `fence`
        raise Refused.
        """
        own = getattr(self, step.name, None)
        (own or getattr(self.failover, step.name))(**how)

    def write(self) -> None:
        """Writers begin, and `before_s` pass."""
        trial = self.trial
        if self._load is None:
            replication = trial.replication
            states = self.cluster.synchronous(replication.mode, replication.k, replication.level, trial.deadline_s)
            writing.prepare(self.cluster, trial.workload, trial.deadline_s)
            self._log(steps.SYNCHRONOUS, mode=str(replication), level=replication.level, states=states)
            self._load = writing.begin(
                self.cluster,
                self.run,
                self.generators,
                trial.workload,
                writers=trial.writers,
                timeout_s=trial.timeout_s,
                seed=trial.seed,
                block=trial.block,
            )
        self._load.wait_acknowledged(deadline_s=trial.deadline_s)
        self._log(steps.WRITING, node=self.old.name, writers=trial.writers)
        _pass(trial.before_s)

    def lose_primary(self) -> None:
        """Hold replicas back where the fault says so, inject it, and notice that the primary is gone."""
        known: dict[str, Any] = {"replication": self.trial.replication}
        if self._fault_ns is None:  # an attempt that was cut off later may have lost it already
            with Watch(self.old, self.cluster.replicas()) as watch:
                self._hold_back()
                self._sampler.sample_now()  # what a killed server has used cannot be read afterwards
                watch.probe()
                self._fault_ns = faults.inject(self.old, self.trial.fault.does)
                at_ns = self._fault_ns - self.run.epoch_ns
                self._log(steps.FAULT, fault=str(self.trial.fault), node=self.old.name, at_ns=at_ns)
                reason = watch.wait_for_failure(self.trial.deadline_s)
                self._log(steps.DETECTED, node=self.old.name, reason=reason)
                known = {"primary_lsn": watch.primary_lsn, "replication": watch.replication}
                known["sessions"] = watch.take_sessions()
        self._failover = FailoverSteps(self.cluster, self.old, self.trial.policy, log=self._event, **known)

    def decide(self, *, accept_data_loss: bool = False) -> None:
        if accept_data_loss:
            self.failover.policy = dataclasses.replace(self.failover.policy, accept_data_loss=True)
        self.failover.decide()

    def route(self) -> None:
        self.failover.route(self.load.follow)

    def repoint(self) -> None:
        """The others follow, and the new primary acknowledges a row. What one of them had before is read."""
        others = self._others()
        snapshot = readback.Snapshot(*others[0], self.trial.deadline_s) if others else None
        self.failover.repoint()
        self.load.wait_acknowledged(deadline_s=self.trial.deadline_s)
        self._log(steps.WRITING_AGAIN, node=self.new.name)
        if snapshot is not None:
            self._views["other"] = (snapshot.node.name, *snapshot.read())
        self.failover.close()

    def stop_writing(self) -> None:
        """`after_s` pass, and the writers end."""
        if self.load.result is None:
            _pass(self.trial.after_s)
        self.load.stop()
        self._log(steps.WRITTEN, outcomes={str(k): int(v) for k, v in self._writes()["outcome"].value_counts().items()})

    def read_back(self) -> None:
        """Read the rows of the new primary, and judge every row of the ledger."""
        read_ns = self.run.now_ns()
        keys, xids = readback.promoted(self.new)
        self._log(steps.ROWS_READ, node=self.new.name, rows=len(keys))
        before = self._views
        self._views = {"promoted": (self.new.name, keys, xids)}
        self._views |= before
        for view in self._views:
            self._record(view)
        writes = self._writes()
        judged = audit.judge(writes, keys, read_ns)
        self._log(steps.AUDIT, verdict=judged.verdict, reason=judged.reason, **judged.counts)
        self.facts = self._told(judged, outage.figures(writes, self._since(self._fault_ns)), read_ns)
        if "other" in self._views:
            here = writes[writes["node"].astype(str) == self.old.name]
            self.facts = self.facts.changed(other_lost=len(audit.judge(here, self._views["other"][1]).lost))

    def rejoin(self) -> None:
        """Ghost forensics, then the old primary as a replica; nothing if the trial does not ask for it."""
        if not self.trial.rejoin:
            return
        decision = self.failover.decision
        assert self.facts is not None
        assert decision is not None
        assert decision.chosen is not None
        if "old" not in self._views:  # an attempt that was cut off later has read them already
            own = rejoining.own_rows(self.old, self.trial.deadline_s)
            ghosts = rejoining.ghosts(self.old, own, self._views["promoted"][1], decision.chosen.has)
            rows = len(ghosts.keys)
            self._log(steps.GHOSTS, node=self.old.name, rows=rows, transactions=len(set(ghosts.xids.tolist())))
            rejoining.record(self.run, self.trial.block, ghosts)
            self._views["old"] = (self.old.name, own[0], own[1])
            self._record("old")
            self.facts = self.facts.changed(views=list(self._views), ghosts=rows)
        replication, deadline_s = self.trial.replication, self.trial.deadline_s
        how = rejoining.rejoin(self.cluster, self.old, self.new, replication, deadline_s, self._event)
        self.cluster.wait_for_catchup(deadline_s)
        self.facts = self.facts.changed(rejoined=how, back_ns=self.run.now_ns())

    def close(self) -> None:
        """End the writers, and let go of the servers. Commits that wait for a replica then end without an outcome."""
        if self._load is not None and self._load.result is None:
            assert self._load.spec.stop_file is not None
            self._load.spec.stop_file.touch()
            if not concurrent.futures.wait([self._load.future], _PATIENCE_S).done:
                self.generators.kill()
            # What went wrong before must not be hidden by the load's own trouble, nor by what came of it.
            with contextlib.suppress(LoadError, ClusterError):
                self._load.stop()
        if self._failover is not None:
            self._failover.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- parts ----------------------------------------------------------------------------------------------------

    @property
    def failover(self) -> FailoverSteps:
        """The failover, after `lose_primary`."""
        assert self._failover is not None
        return self._failover

    @property
    def load(self) -> WriteLoad:
        """The writers, after `write`."""
        assert self._load is not None
        return self._load

    @property
    def new(self) -> Node:
        """The new primary, after `decide`."""
        assert self.failover.new is not None
        return self.failover.new

    def _log(self, moment: Moment, **details: object) -> None:
        self._event(moment.kind, **details)

    def _event(self, kind: str, **details: object) -> None:
        self.run.note(event(kind, block=self.trial.block, **details))

    def _since(self, monotonic_ns: int | None) -> int:
        assert monotonic_ns is not None
        return monotonic_ns - self.run.epoch_ns

    def _hold_back(self) -> None:
        """Hold one replica, drawn by the seed, or all of them back for `behind_s` before the fault; never undone."""
        if not self.trial.fault.behind:
            return
        replicas = self.cluster.replicas()
        everyone = self.trial.fault.behind == "all"
        held = replicas if everyone else [random.Random(self.trial.seed).choice(replicas)]
        for node in held:
            faults.stop_receiving(node, self.trial.deadline_s)
        self._log(steps.HELD_BACK, nodes=[node.name for node in held])
        _pass(self.trial.behind_s)

    def _others(self) -> list[tuple[Node, int | None]]:
        """The survivors that were not promoted, with what each has received."""
        assert self.failover.decision is not None
        survivors = self.failover.decision.survivors
        return [(self.cluster.node(s.name), s.received) for s in survivors if s.answers and s.name != self.new.name]

    def _record(self, view: View) -> None:
        readback.record(self.run, self.trial.block, view, *self._views[view])

    def _writes(self) -> Any:
        # Its own part: a matrix has one for every trial before this one.
        return self.run.table("writes", block=self.trial.block)

    def _told(self, judged: audit.Audit, found: Outage, read_ns: int) -> TrialBlock:
        """What was done, when, and what came of it."""
        decision, result, trial = self.failover.decision, self.load.result, self.trial
        assert decision is not None
        assert result is not None
        times_ns = {steps.FAULT.kind: self._fault_ns} | self.failover.times_ns
        times = {f"{step}_ns": self._since(t) for step, t in times_ns.items()}
        return TrialBlock(
            block=trial.block,
            mode=str(trial.replication),
            level=trial.replication.level,
            fault=str(trial.fault),
            seed=trial.seed,
            old=self.old.name,
            new=self.new.name,
            decision=decision.table(),
            choices=decision.choices,
            overridden=list(decision.refusals),
            times=times,
            fault_ns=times["fault_ns"],
            promoted_ns=times[f"{steps.PROMOTE}_ns"],
            from_ns=result.from_ns,
            to_ns=result.to_ns,
            cut_off=self.load.cut_off,
            sqlstates=result.sqlstates,
            problems=result.problems,
            read_ns=read_ns,
            views=list(self._views),
            verdict=judged.verdict,
            reason=judged.reason,
            counts=RowCounts.model_validate(judged.counts),
            **found.as_json(),
        )


def _pass(duration_s: float) -> None:
    """Let time go by under load: how long is a parameter, not a guess about when something will be ready."""
    time.sleep(duration_s)
