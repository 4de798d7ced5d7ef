"""A failover as a drill: one verb per step, taken by hand, or all at once and looked at afterwards."""

from __future__ import annotations

import atexit
import contextlib
import functools
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from labkit import interrupts
from labkit.errors import ClusterError, LabkitError, RunError
from labkit.experiments.failover.parameters import Failover
from labkit.experiments.failover.step_summary import StepSummary, step_summary
from labkit.experiments.failover.trial import Trial, TrialSteps
from labkit.experiments.stage import held, recorded, replication_restored, sampled
from labkit.lab import providers
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.failover import Policy, note
from labkit.lab.load.shards import Generators
from labkit.lab.workloads.append_rows import AppendRows
from labkit.remedies import advice
from labkit.run import steps
from labkit.run.schema.events import ClosingFailed
from labkit.run.steps import Step
from labkit.run.store import Run


def _with_verbs(drill: type[FailoverDrill]) -> type[FailoverDrill]:
    """A method for each step of a trial that has none yet, and all of them in the class's text."""

    def made(step: Step) -> Callable[[FailoverDrill], StepSummary]:
        def verb(self: FailoverDrill) -> StepSummary:
            return self._verb(step)

        verb.__name__, verb.__qualname__, verb.__doc__ = step.name, f"{drill.__name__}.{step.name}", step.does
        return verb

    for step in steps.TRIAL:
        if step.name not in vars(drill):
            setattr(drill, step.name, made(step))
    listed = "".join(f"\n        {f'{step}()':<16}{step.does}" for step in steps.TRIAL)
    drill.__doc__ = f"{drill.__doc__}\n    The verbs, in their order:\n{listed}\n"
    return drill


@_with_verbs
class FailoverDrill:
    """One failover experiment, a verb for each of its steps.

        drill = labkit.FailoverDrill(labkit.Failover.build({"by_hand": True}))
        drill.write()
        ...                     # the other verbs, in their order
        drill.close()

    A verb takes its step, unless it has been taken, and returns what the step did, to be shown. With `by_hand` false
    all steps are taken at once when the drill is made; with `run_id` none are, and the recorded ones are shown.

    `run` is the run directory, `cluster` its servers (None for a recorded run). Out of order, a verb raises
    ClusterError and does nothing. After a step of the failover that failed or was refused, nothing is torn down: look
    at it, repair it, and go on with `survey`, or with `decide(accept_data_loss=True)`. A drill that is left before
    `close`, by the end of Python (SIGTERM is one too) or by another drill of the same cluster, closes as failed.
    Raises LabkitError.
    """

    @interrupts.sigterm()
    def __init__(self, parameters: Failover) -> None:
        self.parameters = parameters
        self.cluster: Cluster | None = None
        self._steps: TrialSteps | None = None
        self._taken: list[Step] = []
        self._trouble = ""
        self._stack = contextlib.ExitStack()
        if parameters.run_id:
            self.run = recorded(parameters)
            return
        if parameters.cluster in _left_open:
            _left_open[parameters.cluster].leave()
        there = providers.provider(parameters.provider).find(parameters.cluster)
        if there is not None and (cut_off := note.unfinished(there)):
            reason = f"cluster {parameters.cluster} is not whole: {cut_off.reason}"
            raise ClusterError(reason, remedy=cut_off.remedies)
        with contextlib.ExitStack() as stack:
            self.run, self.cluster = stack.enter_context(held(parameters))
            generators = stack.enter_context(Generators())
            stack.enter_context(replication_restored(self.cluster))
            replication = parameters.replication
            self.cluster.synchronous(replication.mode, replication.k, replication.level)
            sampling = sampled(self.run, self.cluster, parameters.sample_interval_s, generators.pids)
            sampler = stack.enter_context(sampling)
            taking = TrialSteps(_trial(parameters), self.cluster, self.run, generators, sampler)
            self._steps = stack.enter_context(taking)
            self._stack = stack.pop_all()
        _left_open[parameters.cluster] = self
        _see_to_the_end()
        if not parameters.by_hand:
            with self:
                self.take_all()

    # --- the verbs: those that are not here are made of the table --------------------------------------------------

    def decide(self, *, accept_data_loss: bool = False) -> StepSummary:
        """Choose the candidate. Raises Refused; `accept_data_loss` overrides that, and asks the survivors again."""
        if accept_data_loss and self._trouble:
            self._verb(steps.SURVEY)
        return self._verb(steps.DECIDE, accept_data_loss=accept_data_loss)

    def close(self) -> Run:
        """End the run, and take the servers down unless `keep_cluster`. Before `read_back` it ends as failed."""
        if self._steps is not None and steps.READ_BACK in self._taken and not self._trouble:
            self._end()
        else:
            self.leave()
        return self.run

    # --- all of them ----------------------------------------------------------------------------------------------

    def take_all(self) -> None:
        """Take every step that is left, with nothing shown in between."""
        for step in steps.TRIAL:
            if self._steps is not None and step not in self._taken:
                self._take(step)

    def leave(self, why: str = "") -> None:
        """Close a drill before its end: the run is marked failed and says how far it came, and `why`, if no step did.

        Nothing if it is closed.
        """
        if self._steps is None:
            return
        last = f"after {self._taken[-1]}()" if self._taken else "before its first step"
        because = self._trouble or why
        left = RunError(f"the drill was left {last}, before its end" + (f"; {because}" if because else ""))
        if steps.LOSE_PRIMARY in self._taken and steps.REJOIN not in self._taken:
            assert self.cluster is not None
            helps = self.cluster.remedy("down", "clears it away", purge=True)
            left = RunError(f"{left.reason}. Its cluster is not whole", remedy=helps)
        # At once: what ends this process may not wait for the servers to stop.
        self.run.mark("failed", str(left))
        try:
            self._end(left)
        except LabkitError as error:
            self.run.note(ClosingFailed(reason=str(error)))
        self.run.mark("failed", str(left))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._end(error)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _verb(self, step: Step, **how: Any) -> StepSummary:
        if self._steps is not None and step not in self._taken:
            self._take(step, **how)
        elif step not in self._taken and not self.parameters.run_id:
            reason = f"{step}() cannot be done any more: the drill is closed"
            raise ClusterError(reason, remedy=advice("begin another"))
        return step_summary(self.run, step)

    @interrupts.sigterm()
    def _take(self, step: Step, **how: Any) -> None:
        assert self._steps is not None
        missing = [earlier for earlier in steps.TRIAL[: steps.TRIAL.index(step)] if earlier not in self._taken]
        if missing:
            raise ClusterError(f"{step}() cannot be done yet, and nothing was changed: {missing[0]}() comes first")
        try:
            self._steps.take(step, **how)
        except BaseException as error:
            by_hand = isinstance(error, KeyboardInterrupt)
            how_so = f"ended with {type(error).__name__}{f': {error}' if str(error) else ''}"
            self._trouble = f"{step}() was {interrupts.reason(error)}" if by_hand else f"{step}() {how_so}"
            if step in steps.FAILOVER:
                # What was read of the survivors need not hold any more.
                self._taken = [taken for taken in self._taken if taken not in steps.FAILOVER]
            raise
        self._trouble = ""
        self._taken.append(step)
        if self._steps.facts is not None:
            self.run.note_block(self._steps.facts)

    def _end(self, error: BaseException | None = None) -> None:
        """Unwind what the drill holds, once."""
        self._steps = None
        stack, self._stack = self._stack, contextlib.ExitStack()
        if _left_open.get(self.parameters.cluster) is self:
            del _left_open[self.parameters.cluster]
        with interrupts.shielded():
            if error is None:
                stack.close()
            else:
                stack.__exit__(type(error), error, error.__traceback__)


def _trial(p: Failover) -> Trial:
    return Trial(
        replication=p.replication,
        fault=p.fault,
        workload=AppendRows(p.rows_per_tx, p.payload_bytes),
        policy=Policy(p.max_lag_bytes, p.accept_data_loss, hold_writes=p.hold_writes),
        writers=p.writers,
        before_s=p.before_s,
        behind_s=p.behind_s,
        after_s=p.after_s,
        timeout_s=p.timeout_s,
        seed=p.seed,
        rejoin=p.rejoin,
    )


_left_open: dict[str, FailoverDrill] = {}
"""Cluster -> the drill that is under way there."""


def _leave_all(why: str = "") -> None:
    for drill in list(_left_open.values()):
        drill.leave(why)


@functools.cache
def _see_to_the_end() -> None:
    """Have open drills closed when this process ends, however it ends, if it has the time."""
    # Functions of atexit are called after the load generators were waited for, who would go on writing. Those that are
    # registered here are called in reverse order, so this one must come after the generators' own.
    getattr(threading, "_register_atexit", atexit.register)(_leave_all)
    # A notebook server sends SIGTERM to a kernel that does not end at once.
    interrupts.before_the_end(_leave_all)
