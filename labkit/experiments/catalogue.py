"""The experiments by name, one entry each: parameters, findings, notebook; and the report that these make of a run."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from labkit import paths
from labkit.analysis.report import findings as in_short
from labkit.analysis.report.findings import Findings
from labkit.checkers import evidence
from labkit.errors import BadInput, LabkitError, RunDamaged
from labkit.experiments.concurrency_sweep import findings as concurrency_sweep
from labkit.experiments.concurrency_sweep.parameters import ConcurrencySweep
from labkit.experiments.cpu_budget import findings as cpu_budget
from labkit.experiments.cpu_budget.parameters import CpuBudget
from labkit.experiments.durability_matrix import findings as durability_matrix
from labkit.experiments.durability_matrix.parameters import DurabilityMatrix
from labkit.experiments.failover import findings as failover
from labkit.experiments.failover.parameters import Failover
from labkit.experiments.max_throughput import findings as max_throughput
from labkit.experiments.max_throughput.parameters import MaxThroughput
from labkit.experiments.measuring_honestly import findings as measuring_honestly
from labkit.experiments.measuring_honestly.parameters import MeasuringHonestly
from labkit.experiments.promotion_crash import findings as promotion_crash
from labkit.experiments.promotion_crash.parameters import PromotionCrash
from labkit.experiments.quorum_commit import findings as quorum_commit
from labkit.experiments.quorum_commit.parameters import QuorumCommit
from labkit.experiments.read_scaling import findings as read_scaling
from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.experiments.shared import OnServers
from labkit.experiments.streaming_replication import findings as streaming_replication
from labkit.experiments.streaming_replication.parameters import StreamingReplication
from labkit.run.store import Run


@dataclass(frozen=True)
class Experiment:
    """One kind of run. `key_parameters` are those that a list of runs shows."""

    parameters: type[OnServers]
    findings: Findings
    notebook: str
    key_parameters: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.parameters.experiment

    @property
    def notebook_path(self) -> Path:
        return paths.notebooks() / self.notebook


_READ_KEYS = ("users", "vus", "connections", "duration_s", "rounds")
_BUDGET_KEYS = ("replicas", "node_cpus", "vus", "connections", "duration_s", "rounds")
_ALL = (
    Experiment(ReadScaling, read_scaling, "read_scaling.ipynb", _READ_KEYS),
    Experiment(CpuBudget, cpu_budget, "where_replicas_help.ipynb", _BUDGET_KEYS),
    Experiment(
        StreamingReplication,
        streaming_replication,
        "streaming_replication.ipynb",
        ("provider", "replicas", "commits", "levels"),
    ),
    Experiment(Failover, failover, "failover.ipynb", ("mode", "level", "fault", "writers")),
    Experiment(
        DurabilityMatrix,
        durability_matrix,
        "durability_matrix.ipynb",
        ("modes", "levels", "faults", "kills"),
    ),
    Experiment(QuorumCommit, quorum_commit, "quorum_commit.ipynb", ("modes", "levels", "writers", "rounds")),
    Experiment(PromotionCrash, promotion_crash, "the_promotion_that_crashed.ipynb", ("causes",)),
    Experiment(
        MaxThroughput,
        max_throughput,
        "max_throughput.ipynb",
        ("arm", "p99_limit_ms", "users", "connections"),
    ),
    Experiment(
        ConcurrencySweep,
        concurrency_sweep,
        "concurrency_sweep.ipynb",
        ("levels", "users", "connections", "rounds"),
    ),
    Experiment(
        MeasuringHonestly,
        measuring_honestly,
        "measuring_honestly.ipynb",
        ("vus", "rate", "stall_s", "comparisons"),
    ),
)
EXPERIMENTS = {experiment.name: experiment for experiment in _ALL}


def experiment(name: str) -> Experiment:
    """The experiment of that name. Raises BadInput listing those that exist."""
    if name in EXPERIMENTS:
        return EXPERIMENTS[name]
    near = difflib.get_close_matches(name, EXPERIMENTS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(EXPERIMENTS)}"
    raise BadInput(f"unknown experiment {name!r}; {hint}")


def report(run: Run) -> Path:
    """Draw a recorded run with the original notebook of its experiment, as one HTML page; returns the page's path.

    The page lies in the run's `derived/`, beside the executed notebook. Raises LabkitError, as the notebook does, and
    RunUnreadable if no block was finished; where that is because a part is damaged, or missing of a run that was cut
    off, the error says what is missing, the run's summary says that all is unknown, and an older page is removed.
    """
    # papermill and nbconvert take seconds to load: the lists of experiments do without.
    from labkit.analysis.report import report as pages

    kind = experiment(run.experiment)
    try:
        if nothing := evidence.nothing_finished(run):
            raise nothing
        executed = pages.execute(kind.notebook_path, {"run_id": str(run.path)})
        return pages.publish(executed, run, kind.findings)
    except LabkitError as error:
        if missing := evidence.problems(run):
            error.exit_code = RunDamaged.exit_code
            for problem in missing:
                if problem != error.reason:
                    error.add_note(f"Not valid: {problem}.")
            run.keep_summary(in_short.unknown(run, error.reason))
            run.page.unlink(missing_ok=True)  # one from before would still claim what it showed
        raise
