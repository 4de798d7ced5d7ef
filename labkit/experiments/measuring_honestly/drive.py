"""What a closed loop does not see, and how much a comparison can be trusted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from labkit.checkers.comparisons import CLOSED, OPEN, SELF
from labkit.errors import BadInput
from labkit.experiments.measuring_honestly.parameters import MeasuringHonestly
from labkit.experiments.stage import on_cluster, reading, recorded
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Killable
from labkit.lab.load.arrivals import Closed, Open
from labkit.lab.routing.arms import PRIMARY_ONLY
from labkit.lab.workloads import workload
from labkit.run.schema import Cell
from labkit.run.schema.events import Stall
from labkit.run.store import Run
from labkit.units import count

_READY_S = 60.0


def measuring_honestly(parameters: MeasuringHonestly) -> Run:
    """Record what goes wrong in measuring: a cold start, a stall under both kinds of load, Little's law, noise.

    The primary alone serves. It is restarted once, and stopped with SIGSTOP for `stall_s` in the middle of two
    blocks. Raises LabkitError; the run is then marked failed and keeps what was measured.
    """
    p = parameters
    if p.run_id:
        return recorded(p)
    seconds = (3 + len(p.little_levels) / 2) * p.block_s + p.comparisons * p.pairs * 2 * (p.pair_block_s + 0.1)
    with on_cluster(p) as (run, cluster), reading(p, run, cluster, [PRIMARY_ONLY], seconds) as reads:
        once = ("cold start", CLOSED, OPEN, *(count(users, "user") for users in p.little_levels))
        blocks_of = dict.fromkeys(once, 1) | dict.fromkeys(SELF, p.comparisons * p.pairs)
        run.update(planned={_cell(p, arm, 0).name: blocks for arm, blocks in blocks_of.items()})
        load, primary = workload(p.workload, reads.data), cluster.primary()
        alone = reads.serving[PRIMARY_ONLY]
        paced = Open(p.rate, "constant")
        primary.control.stop()
        primary.control.start()
        primary.wait_ready(_READY_S)
        cold = reads.blocks.on_terms(p.replace(warmup_s=0))
        cold.drive(load, alone, paced, p.block_s, _cell(p, "cold start", 0))
        warm = cold.on_terms(p)
        # As many requests as the open workload asks for, so that nothing differs but who waits for an answer.
        loop = Closed(p.vus, think_s=p.vus / p.rate)
        for arm, when in ((CLOSED, loop), (OPEN, paced)):
            with _stall(primary, p.warmup_s + p.block_s / 2, p.stall_s, run):
                warm.drive(load, alone, when, p.block_s, _cell(p, arm, 0))
        for users in p.little_levels:
            warm.drive(load, alone, Closed(users, think_s=0.01), p.block_s / 2, _cell(p, count(users, "user"), 0))
        short = warm.on_terms(p.replace(warmup_s=min(p.warmup_s, 0.1)))
        for r in range(p.comparisons * p.pairs):
            for arm in SELF if r % 2 == 0 else SELF[::-1]:
                short.drive(load, alone, Closed(p.vus), p.pair_block_s, _cell(p, arm, r))
    return run


def _cell(p: MeasuringHonestly, arm: str, r: int) -> Cell:
    return Cell(workload=p.workload, arm=arm, round=r)


@contextlib.contextmanager
def _stall(node: Node, after_s: float, for_s: float, run: Run) -> Iterator[None]:
    """Stop a node `after_s` seconds from now, for so long, while the with-block runs. Raises BadInput."""
    control = node.control
    if not isinstance(control, Killable):
        raise BadInput(f"{node.name}: its provider cannot pause a server, so there is no stall to measure")
    ended = threading.Event()

    def stall() -> None:
        if ended.wait(after_s):
            return
        control.pause()
        began_ns = run.now_ns()
        try:
            time.sleep(for_s)  # the length of the stall is what is measured
        finally:
            control.resume()
        run.note(Stall(node=node.name, from_ns=began_ns, to_ns=run.now_ns()))

    thread = threading.Thread(target=stall, name="labkit-stall")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
