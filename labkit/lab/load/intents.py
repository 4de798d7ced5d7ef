"""What the load tells the ledger: each connection carries at most one transaction, whose key is its first parameter."""

from __future__ import annotations

from labkit.errors import BadInput
from labkit.lab.load import records
from labkit.lab.load.connections import Slot
from labkit.lab.load.spec import LoadSpec
from labkit.lab.workloads.append_rows import AppendRows
from labkit.run.ledger import FAIL, OK, UNKNOWN, WARNED, Ledger

_OUTCOMES = {records.OK: OK, records.FAIL: FAIL, records.UNKNOWN: UNKNOWN}


class Intents:
    """The ledger of one load."""

    def __init__(self, ledger: Ledger, rows: int) -> None:
        self._ledger, self._rows = ledger, rows

    def intend(self, slot: Slot, now: int) -> None:
        """Call just before the slot's parameters are sent."""
        slot.warning = ""
        self._ledger.intend(_key(slot), self._rows, slot.pool.index, now)

    def acknowledged(self, slot: Slot, now: int) -> None:
        self._ledger.settle(_key(slot), self._rows, slot.pool.index, now, OK)

    def ended(self, slot: Slot, now: int, outcome: int, sqlstate: str) -> None:
        """It did not end well: `outcome` as in records, WARNED if it was acknowledged with a warning."""
        said = WARNED if sqlstate == records.WARNED else _OUTCOMES[outcome]
        self._ledger.settle(_key(slot), self._rows, slot.pool.index, now, said, sqlstate)

    def close(self) -> None:
        self._ledger.close()


def intents(spec: LoadSpec) -> Intents | None:
    """The ledger that a load asks for; None if it asks for none. Raises BadInput."""
    if spec.ledger is None:
        return None
    if not isinstance(spec.workload, AppendRows):
        raise BadInput(f"a ledger needs rows whose keys the client makes; workload {spec.workload.name} has none")
    return Intents(Ledger(spec.ledger, [t.name for t in spec.targets], spec.epoch_ns), spec.workload.rows_per_tx)


def _key(slot: Slot) -> int:
    return int.from_bytes(slot.parameters[0], "big")
