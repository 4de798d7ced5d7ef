"""Figures of a load while it runs: the engine writes a line about every second, a notebook's kernel reads them.

Latencies travel as counts in classes 2 % wide, so that shards can be pooled and no percentile is ever averaged.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from labkit.lab.load.records import OK, Recorder

_SECOND_NS = 1_000_000_000
_CLASS = np.log(1.02)


class LiveWriter:
    """Writes {"second", "ok", "errors", "classes"} for each second in which something was answered."""

    def __init__(self, path: Path | None, recorder: Recorder) -> None:
        self._path, self._recorder = path, recorder
        self._next_ns = 0

    def tick(self, now: int) -> None:
        """Write a line if it is time; `now` is this machine's monotonic clock."""
        if self._path is None or now < self._next_ns:
            return
        fresh = self._recorder.fresh()
        if self._next_ns:
            right = fresh["latency_ns"][fresh["outcome"] == OK]
            number = (np.log(np.maximum(right, 1)) / _CLASS).astype(np.int64)
            classes, counts = np.unique(number, return_counts=True)
            line = {
                "second": now // _SECOND_NS,
                "ok": len(right),
                "errors": len(fresh) - len(right),
                "classes": dict(zip(map(str, classes.tolist()), counts.tolist(), strict=True)),
            }
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self._next_ns = (now // _SECOND_NS + 1) * _SECOND_NS


@dataclass
class Second:
    """One second of a load, all shards together."""

    ok: int = 0
    errors: int = 0
    classes: Counter[int] = field(default_factory=Counter)

    def percentile_ms(self, q: float) -> float:
        """The latency that the share q of the right answers did not exceed; NaN if there was none."""
        wanted, seen = q * self.ok, 0
        for number, count in sorted(self.classes.items()):
            seen += count
            if seen >= wanted:
                return float(np.exp(_CLASS * (number + 0.5)) / 1e6)
        return float("nan")


class LiveReader:
    """Reads what the writers of one load have added."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._at = dict.fromkeys(paths, 0)
        self._seconds: defaultdict[int, Second] = defaultdict(Second)

    def seconds(self) -> dict[int, Second]:
        """All whole seconds so far, in order: second of the monotonic clock -> what was answered in it."""
        for path, at in self._at.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(at)
                added = file.read()
            whole = added[: added.rfind(b"\n") + 1]
            self._at[path] = at + len(whole)
            for line in whole.splitlines():
                figures = json.loads(line)
                second = self._seconds[figures["second"]]
                second.ok += figures["ok"]
                second.errors += figures["errors"]
                second.classes.update({int(number): count for number, count in figures["classes"].items()})
        return dict(sorted(self._seconds.items()))
