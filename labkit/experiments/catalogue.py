"""The experiments by name, as their reader needs them: parameters, notebook, figures, verdicts."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from labkit import paths as project
from labkit.analysis import frames
from labkit.analysis.report import tables
from labkit.analysis.statistics import compare
from labkit.errors import BadInput
from labkit.experiments.cpu_budget import findings as speedup
from labkit.experiments.declared import (
    ConcurrencySweep,
    CpuBudget,
    DurabilityMatrix,
    Failover,
    MaxThroughput,
    MeasuringHonestly,
    Parameters,
    PromotionCrash,
    QuorumCommit,
    ReadScaling,
    StreamingReplication,
)
from labkit.experiments.durability_matrix import findings as durability
from labkit.experiments.failover import findings as recovery
from labkit.experiments.max_throughput import findings as conclusions_load
from labkit.experiments.max_throughput import tables as tables_load
from labkit.experiments.max_throughput import trials
from labkit.experiments.promotion_crash import findings as crash
from labkit.experiments.quorum_commit import findings as quorum
from labkit.experiments.read_scaling import findings as conclusions
from labkit.experiments.streaming_replication import findings as replication
from labkit.run.store import Run


@dataclass(frozen=True)
class Experiment:
    """One kind of run. `key_parameters` are those that a list of runs shows."""

    name: str
    parameters: type[Parameters]
    notebook: str
    key_parameters: tuple[str, ...]
    headline: Callable[[Run], pd.DataFrame]  # to compute with
    table: Callable[[Run], pd.DataFrame]  # to read
    differences: Callable[[Run], pd.DataFrame]
    verdicts: Callable[[Run], conclusions.Sentences]
    lead: Callable[[Run], conclusions.Sentences]  # the few of them that come first
    validity: Callable[[Run], list[str]]

    @property
    def notebook_path(self) -> Path:
        return project.notebooks() / self.notebook


_ALL = (
    Experiment(
        name="read-scaling",
        parameters=ReadScaling,
        notebook="read_scaling.ipynb",
        key_parameters=("users", "vus", "connections", "duration_s", "rounds"),
        headline=frames.headline,
        table=tables.headline,
        differences=compare.arms,
        verdicts=conclusions.verdicts,
        lead=conclusions.lead,
        validity=frames.validity,
    ),
    Experiment(
        name="cpu-budget",
        parameters=CpuBudget,
        notebook="where_replicas_help.ipynb",
        key_parameters=("replicas", "node_cpus", "vus", "connections", "duration_s", "rounds"),
        headline=frames.headline,
        table=speedup.table,
        differences=compare.arms,
        verdicts=speedup.verdicts,
        lead=speedup.lead,
        validity=frames.validity,
    ),
    Experiment(
        name="streaming-replication",
        parameters=StreamingReplication,
        notebook="streaming_replication.ipynb",
        key_parameters=("provider", "replicas", "commits", "levels"),
        headline=replication.headline,
        table=replication.staleness_table,
        differences=replication.staleness,
        verdicts=replication.verdicts,
        lead=replication.verdicts,
        validity=replication.validity,
    ),
    Experiment(
        name="failover",
        parameters=Failover,
        notebook="failover.ipynb",
        key_parameters=("mode", "level", "fault", "writers"),
        headline=recovery.headline,
        table=recovery.classes,
        differences=recovery.no_differences,
        verdicts=recovery.verdicts,
        lead=recovery.lead,
        validity=recovery.validity,
    ),
    Experiment(
        name="durability-matrix",
        parameters=DurabilityMatrix,
        notebook="durability_matrix.ipynb",
        key_parameters=("modes", "levels", "faults", "kills"),
        headline=durability.headline,
        table=durability.table,
        differences=recovery.no_differences,
        verdicts=durability.verdicts,
        lead=durability.lead,
        validity=durability.validity,
    ),
    Experiment(
        name="quorum-commit",
        parameters=QuorumCommit,
        notebook="quorum_commit.ipynb",
        key_parameters=("modes", "levels", "writers", "rounds"),
        headline=quorum.headline,
        table=quorum.table,
        differences=recovery.no_differences,
        verdicts=quorum.verdicts,
        lead=quorum.lead,
        validity=quorum.validity,
    ),
    Experiment(
        name="promotion-crash",
        parameters=PromotionCrash,
        notebook="the_promotion_that_crashed.ipynb",
        key_parameters=("causes",),
        headline=crash.headline,
        table=crash.outcomes,
        differences=recovery.no_differences,
        verdicts=crash.verdicts,
        lead=crash.lead,
        validity=crash.validity,
    ),
    Experiment(
        name="max-throughput",
        parameters=MaxThroughput,
        notebook="max_throughput.ipynb",
        key_parameters=("arm", "p99_limit_ms", "users", "connections"),
        headline=trials.found,
        table=tables_load.search,
        differences=conclusions_load.no_differences,
        verdicts=conclusions_load.search,
        lead=conclusions_load.lead_of_search,
        validity=conclusions_load.search_problems,
    ),
    Experiment(
        name="concurrency-sweep",
        parameters=ConcurrencySweep,
        notebook="concurrency_sweep.ipynb",
        key_parameters=("levels", "users", "connections", "rounds"),
        headline=frames.headline,
        table=tables_load.sweep,
        differences=conclusions_load.no_differences,
        verdicts=conclusions_load.sweep,
        lead=conclusions_load.lead_of_sweep,
        validity=frames.validity,
    ),
    Experiment(
        name="measuring-honestly",
        parameters=MeasuringHonestly,
        notebook="measuring_honestly.ipynb",
        key_parameters=("vus", "rate", "stall_s", "comparisons"),
        headline=frames.headline,
        table=tables_load.honestly,
        differences=conclusions_load.no_differences,
        verdicts=conclusions_load.honesty_sentences,
        lead=conclusions_load.lead_of_honesty,
        validity=frames.validity,
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


def summary(run: Run) -> dict[str, Any]:
    """What a script wants to know of a run: plain values, None for what is unknown."""
    kind = experiment(run.experiment)
    problems = kind.validity(run)
    return {
        "id": run.id,
        "path": str(run.path),
        "status": run.status,
        "valid": not problems,
        "problems": problems,
        "headline": records(kind.headline(run)),
        "differences": records(kind.differences(run)),
        "verdicts": list(kind.verdicts(run)),
    }


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries that JSON can hold."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]
