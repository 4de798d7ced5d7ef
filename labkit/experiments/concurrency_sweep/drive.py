"""Throughput and latency from one user to a thousand, on each arm."""

from __future__ import annotations

from concurrent.futures import Executor

from labkit.experiments.concurrency_sweep.parameters import ConcurrencySweep
from labkit.experiments.parameters import as_list
from labkit.experiments.stage import _stage, recorded
from labkit.lab import routing
from labkit.lab.load.arrivals import Closed
from labkit.run.store import Run


def concurrency_sweep(parameters: ConcurrencySweep, executor: Executor | None = None) -> Run:
    """Measure a closed load at every number of users on every arm, in rounds that go up and down.

    Raises LabkitError; the run is then marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p.run_id, "concurrency-sweep")
    arms = as_list(p.arms)
    seconds = len(arms) * len(p.user_levels) * p.rounds * (p.warmup_s + p.step_s)
    with _stage("concurrency-sweep", p, arms, seconds, p.processes, executor) as stage:
        nodes = {arm: routing.nodes_for(arm, stage.cluster) for arm in arms}
        for r in range(p.rounds):
            back = r % 2 == 1  # so that neither an arm nor a level always comes first
            for users in p.user_levels[::-1] if back else p.user_levels:
                for arm in arms[::-1] if back else arms:
                    facts = {"workload": p.workload, "arm": arm, "round": r}
                    stage.blocks.drive(stage.load, nodes[arm], Closed(users), p.step_s, facts)
    return stage.run
