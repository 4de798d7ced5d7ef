"""A recorded failover, written through the store and whole, for tests that damage it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fix_records import a_trial

from labkit.lab.failover import readback, rejoining
from labkit.run import ledger
from labkit.run.store import Run, RunStore

ROWS = 1500


def a_failover(root: Path) -> Run:
    """A recorded failover in which every row was acknowledged and is there; two more on the old primary alone."""
    run = RunStore(root).create("failover", {"mode": "ANY 1", "level": "on"})
    rng = np.random.default_rng(1)
    keys = rng.permutation(ROWS).astype(np.int64) + 10**12
    file = run.path / "ledger" / "block-00000.ledger"
    book = ledger.Ledger(file, ["pg1", "pg2"], epoch_ns=0)
    for at, key in enumerate(keys.tolist()):
        book.intend(key, 1, 0, now=1000 * at)
        book.settle(key, 1, 0, now=1000 * at + int(rng.integers(100, 900)), outcome=ledger.OK)
    book.close()
    ledger.settle_file(file, run, 0)
    readback.record(run, 0, "promoted", "pg2", np.sort(keys), rng.integers(700, 900, ROWS))
    ghosts = np.array([1, 2], np.int64)
    rejoining.record(run, 0, rejoining.Ghosts(ghosts, ghosts, ghosts, ["2026-11-24 15:57:55 UTC"] * 2))
    run.note_block(a_trial(mode="ANY 1", read_ns=10**12, fault_ns=10**6))
    run.mark("complete")
    return run
