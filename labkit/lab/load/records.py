"""What the load remembers: one fixed-size record per request, flushed to Parquet as the buffer fills."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from labkit.run.parts import PartWriter
from labkit.run.schema import CANNOT_CONNECT as CANNOT_CONNECT
from labkit.run.schema import DROPPED as DROPPED
from labkit.run.schema import OUTCOMES
from labkit.run.schema import WRONG_ANSWER as WRONG_ANSWER

# Client-side conditions in the form of SQLSTATEs; class LK is in the range left to implementations.
DEADLINE = "LK001"
WARNED = "LK004"
ROUTED_AWAY = "LK005"
CONNECTION_LOST = "08006"
CLIENT_STATES = {
    DEADLINE: "no answer before the deadline",
    DROPPED: "dropped: max_in_flight requests were unanswered",
    WRONG_ANSWER: "the answer was wrong",
    WARNED: "the server warned that the commit is local only",
    ROUTED_AWAY: "given up: the load was sent to another node",
    CANNOT_CONNECT: "no connection to the node could be made",
    CONNECTION_LOST: "the connection was lost before the answer",
}

OK, FAIL, UNKNOWN = range(len(OUTCOMES))

_FORMAT = struct.Struct("<qqqihBB")
DTYPE = np.dtype(
    [
        ("start_ns", "<i8"),
        ("wait_ns", "<i8"),
        ("latency_ns", "<i8"),
        ("rows", "<i4"),
        ("sqlstate", "<i2"),
        ("node", "u1"),
        ("outcome", "u1"),
    ]
)
_CAPACITY = 1 << 16


class Recorder:
    """A buffer of records in front of a `PartWriter`.

    The hot path packs straight into `buffer` at `offset` (see `add` for the fields), and calls `flush` when
    `offset` reaches `limit`; nothing is allocated for a request.
    """

    size = _FORMAT.size
    pack_into = _FORMAT.pack_into

    def __init__(self, writer: PartWriter, block: int, nodes: Sequence[str], *, keep_fresh: bool = False) -> None:
        self.buffer = bytearray(_CAPACITY * self.size)
        self.limit = len(self.buffer)
        self.offset = 0
        self._view = np.frombuffer(self.buffer, dtype=DTYPE)
        self._writer, self._block, self._nodes = writer, block, list(nodes)
        self._codes = {"": 0}
        self._seen = 0  # rows of the buffer that `fresh` has handed out
        self._keep_fresh = keep_fresh
        self._unseen: list[np.ndarray[Any, Any]] = []
        self.rows = 0
        self.window = (0, 0)  # from, to: the measured part, in ns like start_ns
        self.measured = 0  # requests answered in the window
        self.busy_ns = 0  # connection time used within the window, by requests that reach beyond it too

    def code(self, sqlstate: str) -> int:
        """The number that stands for a SQLSTATE in this part."""
        return self._codes.setdefault(sqlstate, len(self._codes))

    def add(
        self, start_ns: int, wait_ns: int, latency_ns: int, rows: int, sqlstate: str, node: int, outcome: int
    ) -> None:
        """Record one request; the slow path, for anything but a right answer."""
        self.pack_into(
            self.buffer, self.offset, start_ns, wait_ns, latency_ns, rows, self.code(sqlstate), node, outcome
        )
        self.offset += self.size
        if self.offset >= self.limit:
            self.flush()

    def fresh(self) -> np.ndarray[Any, Any]:
        """Copies of the records added since the last call: a structured array. Only with `keep_fresh`."""
        end = self.offset // self.size
        parts = [*self._unseen, self._view[self._seen : end].copy()]
        self._unseen, self._seen = [], end
        return np.concatenate(parts)

    def flush(self) -> None:
        """Write the buffer as one row group and empty it."""
        end = self.offset // self.size
        if not end:
            return
        view = self._view[:end]
        if self._keep_fresh:
            self._unseen.append(view[self._seen :].copy())
        self._writer.write(
            {
                "block": np.full(end, self._block, dtype=np.int32),
                "node": (view["node"].astype(np.int32), self._nodes),
                "start_ns": view["start_ns"],
                "wait_ns": view["wait_ns"],
                "latency_ns": view["latency_ns"],
                "outcome": (view["outcome"].astype(np.int32), OUTCOMES),
                "sqlstate": (view["sqlstate"].astype(np.int32), list(self._codes)),
                "rows": view["rows"],
            }
        )
        begin, end_ns = self.window
        done = view["start_ns"] + view["latency_ns"]
        self.measured += int(((done >= begin) & (done < end_ns)).sum())
        held = np.minimum(done, end_ns) - np.maximum(view["start_ns"] + view["wait_ns"], begin)
        self.busy_ns += int(held.clip(min=0).sum())
        self.rows += end
        self.offset = self._seen = 0
