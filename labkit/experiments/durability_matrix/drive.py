"""Many failovers, each of a fresh cluster: every mode, level and fault, in rounds."""

from __future__ import annotations

import random
import time
from collections import Counter

from labkit.errors import BadInput
from labkit.experiments.durability_matrix.parameters import DurabilityMatrix
from labkit.experiments.failover.trial import Trial, run_trial
from labkit.experiments.stage import accounted, fresh_clusters, recorded
from labkit.lab.failover import Policy
from labkit.lab.failover.fault import Fault
from labkit.lab.load.shards import Generators
from labkit.lab.workloads.append_rows import AppendRows
from labkit.progress import Progress
from labkit.replication import Replication
from labkit.run.store import Run, open_run


def durability_matrix(parameters: DurabilityMatrix) -> Run:
    """Every mode, level and fault, `kills` times, each on a cluster made for it; in rounds over all cells.

    Interrupted, it keeps every finished trial, and `resume` goes on behind the last. Raises LabkitError.
    """
    p = parameters
    if p.run_id:
        return recorded(p)
    cut_off = _cut_off(p.resume) if p.resume else None
    if cut_off is not None:
        p = DurabilityMatrix.build(cut_off.parameters)
    plan = [(number, *cell) for number, cell in enumerate(p.cells * p.kills)]
    with (
        fresh_clusters(p, cut_off) as (run, recreate),
        Generators() as generators,
        Progress("trials", len(plan), "trials") as bar,
    ):
        run.drop_unfinished()
        run.update(planned=Counter(f"{replication}/{replication.level} {fault}" for _, replication, fault in plan))
        done = {block.block for block in run.blocks}
        for number, replication, fault in plan:
            if number not in done:
                trial = _trial(p, number, replication, fault)
                began = time.monotonic()
                cluster = recreate(p.replicas)
                with accounted(run, cluster, generators.pids) as sampler:
                    block = run_trial(trial, cluster, run, generators, sampler)
                    run.note_block(block.changed(took_s=time.monotonic() - began))
            bar.update(number + 1)
    return run


def _trial(p: DurabilityMatrix, number: int, replication: Replication, fault: Fault) -> Trial:
    rng = random.Random(f"{p.seed}:{number}")
    return Trial(
        replication=replication,
        fault=fault,
        workload=AppendRows(p.rows_per_tx, p.payload_bytes),
        # What is lost is what is measured here; a refusal would only hide it.
        policy=Policy(accept_data_loss=True, hold_writes=p.hold_writes),
        writers=p.writers,
        before_s=p.before_s * (1 + rng.random() / 2),
        behind_s=p.behind_s,
        after_s=p.after_s,
        timeout_s=p.timeout_s,
        seed=rng.randrange(2**31),
        block=number,
    )


def _cut_off(name: str) -> Run:
    """Raises BadInput, RunNotFound, RunUnreadable."""
    run = open_run(name, "durability-matrix")
    if run.experiment != "durability-matrix":
        raise BadInput(f"resume: {run.id} is a run of {run.experiment}, not of durability-matrix")
    if run.status == "complete":
        raise BadInput(f"resume: {run.id} is complete, there is nothing to go on with")
    return run
