"""The writers' ledger: what was about to be written, before it was sent, and how the server answered.

A file outside the database, appended to by the load generator: one fixed-size record before each transaction and one
after it. Each record is handed to the operating system at once, so that killing the lab loses none that it had made;
the file is forced to the disk once a second, so that a crash of the whole machine loses at most the last second.
A transaction without a second record ended with the lab: its outcome is not known, and it is read as `unknown`.
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from labkit.errors import RunUnreadable
from labkit.run import layout
from labkit.run.schema import LAB_KILLED, WRITE_OUTCOMES
from labkit.run.store import Run

Keys = np.ndarray[Any, np.dtype[np.int64]]
OK, WARNED, FAIL, UNKNOWN = range(len(WRITE_OUTCOMES))
SYNC_EVERY_S = 1.0

_RECORD = struct.Struct("<qqi5sBB")
_DTYPE = np.dtype(
    [("key", "<i8"), ("t_ns", "<i8"), ("rows", "<i4"), ("sqlstate", "S5"), ("node", "u1"), ("kind", "u1")]
)
_INTENT = 255
_MAGIC = b"labkit ledger 1\n"


class Ledger:
    """Appends to a ledger file; times are ns since the run's epoch. Closing it forces it to the disk."""

    def __init__(self, path: Path, nodes: Sequence[str], epoch_ns: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        os.write(self._file, _MAGIC + json.dumps(list(nodes)).encode() + b"\n")
        self._epoch_ns = epoch_ns
        self._closing = threading.Event()
        # In a thread: while fsync waits for the disk, the load goes on.
        self._syncing = threading.Thread(target=self._sync, name="labkit-ledger", daemon=True)
        self._syncing.start()

    def intend(self, key: int, rows: int, node: int, now: int) -> None:
        """Note that `rows` rows from `key` on are about to be sent to a node, in one transaction."""
        os.write(self._file, _RECORD.pack(key, now - self._epoch_ns, rows, b"", node, _INTENT))

    def settle(self, key: int, rows: int, node: int, now: int, outcome: int, sqlstate: str = "") -> None:
        """Note how that transaction ended."""
        os.write(self._file, _RECORD.pack(key, now - self._epoch_ns, rows, sqlstate.encode(), node, outcome))

    def close(self) -> None:
        if not self._closing.is_set():
            self._closing.set()
            self._syncing.join()
            os.close(self._file)

    def _sync(self) -> None:
        ending = False
        while not ending:
            ending = self._closing.wait(SYNC_EVERY_S)
            os.fsync(self._file)


def read(path: Path) -> tuple[dict[str, Any], int]:
    """A ledger as the columns of `writes` without `block`, and how many transactions have no outcome.

    An ending belongs to the first intent of its key that has none yet. One that has no intent is a row all the same,
    as a defect for the audit to find. A record that was cut off in the middle is left out. Raises RunUnreadable.
    """
    records, nodes = _records(path)
    endings = records[records["kind"] != _INTENT]
    by_key = np.argsort(endings["key"], kind="stable")
    endings = endings[by_key]
    intents = records[records["kind"] == _INTENT]
    surplus = endings[_occurrence(endings["key"]) >= _times(intents["key"], endings["key"])]
    intents = np.concatenate([intents, surplus])
    place = np.searchsorted(endings["key"], intents["key"]) + _occurrence(intents["key"])
    known = np.zeros(len(intents), dtype=bool)
    inside = place < len(endings)
    known[inside] = endings["key"][place[inside]] == intents["key"][inside]
    done = np.full(len(intents), -1, dtype=np.int64)
    done[known] = endings["t_ns"][place[known]]
    outcome = np.full(len(intents), UNKNOWN, dtype=np.int32)
    outcome[known] = endings["kind"][place[known]]
    sqlstate = np.full(len(intents), LAB_KILLED.encode(), dtype="S5")
    sqlstate[known] = endings["sqlstate"][place[known]]
    words, codes = np.unique(sqlstate, return_inverse=True)
    columns = {
        "key": intents["key"],
        "rows": intents["rows"],
        "node": (intents["node"].astype(np.int32), nodes),
        "intent_ns": intents["t_ns"],
        "done_ns": done,
        "outcome": (outcome, WRITE_OUTCOMES),
        "sqlstate": (codes.astype(np.int32), [word.decode() for word in words]),
    }
    return columns, int((~known).sum())


def _occurrence(keys: Keys) -> Keys:
    """Of each key how many equal ones come before it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    before = np.empty(len(keys), dtype=np.int64)
    before[order] = np.arange(len(keys)) - np.searchsorted(ordered, ordered)
    return before


def _times(keys: Keys, wanted: Keys) -> Keys:
    """How often each wanted key is among some keys."""
    ordered = np.sort(keys)
    times: Keys = np.searchsorted(ordered, wanted, side="right") - np.searchsorted(ordered, wanted)
    return times


def noted(path: Path) -> int:
    """How many records, intents and outcomes, the file holds so far; 0 if there is none yet."""
    try:
        return len(_records(path)[0])
    except (FileNotFoundError, RunUnreadable):  # its header comes a moment after the file
        return 0


def acknowledged(path: Path, node: str, since: int = 0) -> int:
    """How many transactions a node has acknowledged behind the first `since` records of the file; 0 without a file."""
    try:
        records, nodes = _records(path)
    except (FileNotFoundError, RunUnreadable):
        return 0
    new = records[since:]
    return int(((new["kind"] == OK) & (new["node"] == nodes.index(node))).sum())


def _records(path: Path) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The whole records of a file, and the names of its nodes. Raises RunUnreadable, FileNotFoundError."""
    content = path.read_bytes()
    if not content.startswith(_MAGIC) or b"\n" not in content[len(_MAGIC) :]:
        raise RunUnreadable(f"{path} is no ledger, or was cut off before its first record")
    start = content.index(b"\n", len(_MAGIC)) + 1
    whole = (len(content) - start) // _DTYPE.itemsize
    return np.frombuffer(content, dtype=_DTYPE, count=whole, offset=start), json.loads(content[len(_MAGIC) : start])


def settle_file(path: Path, run: Run, block: int) -> int:
    """Move a finished ledger into the run's table `writes`; returns how many transactions have no outcome."""
    columns, open_ended = read(path)
    with run.writer("writes", block) as writer:
        writer.write({"block": np.full(len(columns["key"]), block, np.int32), **columns})
    path.unlink()
    return open_ended


def is_kept(run: Run) -> bool:
    """Whether the run has a record of what was written, moved into its table or left behind."""
    return run.has("writes") or bool(layout.ledgers(run.path))


def written(run: Run, block: int | None = None) -> pd.DataFrame:
    """The table `writes`, or one block's part of it; where the lab was killed before it was made, what ledger is left.

    Raises RunUnreadable if there is neither.
    """
    frames = [run.table("writes", block=block)] if run.has("writes", block) else []
    for path in layout.ledgers(run.path, layout.beginning(block)):
        columns, _ = read(path)
        plain = {
            name: pd.Categorical.from_codes(value[0], value[1]) if isinstance(value, tuple) else value
            for name, value in columns.items()
        }
        frames.append(pd.DataFrame({"block": layout.block_of(path), **plain}))
    if not frames:
        what = "ledger of writes" if block is None else f"ledger of trial {block}"
        raise RunUnreadable(f"{run.id} holds no {what}, so there is nothing to audit")
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
