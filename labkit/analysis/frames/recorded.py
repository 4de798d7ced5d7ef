"""The measured requests of a run, block by block, in little memory however long the run is.

`measured` reads a run once: it keeps counts, sums and how many latencies lie in each class. The rows themselves are
kept only of a run that has few; those of a longer one are read again, piece by piece, by whoever needs them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit.analysis.frames.per_run_cache import read_once
from labkit.analysis.frames.selection import Counts, Selection
from labkit.errors import RunUnreadable
from labkit.percentiles import between, neighbours
from labkit.run.parts import Place, Tables
from labkit.run.schema import LoadBlock
from labkit.run.store import Run

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
Column = Literal["latency", "wait", "service"]
_KINDS: tuple[Column, ...] = get_args(Column)

KEPT_ROWS = 1_000_000
"""Of a run with so many requests at most, the rows stay in memory: 13 bytes each."""
MOST_SPANS = 600
"""So many points over time are drawn of a workload and arm: one per second up to ten minutes."""
ROWS_AT_ONCE = 500_000
"""Of a longer run, so many rows are held together."""
_TIMES = ("block", "start_ns", "wait_ns", "latency_ns", "outcome")
_COLUMNS = (*_TIMES, "sqlstate")


@dataclass(frozen=True)
class Rows:
    """Some of the measured requests of one block, in columns of equal length."""

    done_s: Floats  # when the answer came, since the end of the warm-up
    latency_ms: Floats
    wait_ms: Floats
    ok: Flags

    def right(self, column: Column) -> Floats:
        """Of the right answers, ms: latency, waiting for a connection, or latency without that wait."""
        if column == "latency":
            return self.latency_ms[self.ok]
        if column == "wait":
            return self.wait_ms[self.ok]
        return self.latency_ms[self.ok] - self.wait_ms[self.ok]

    @property
    def asked_s(self) -> Floats:
        """When each was asked for, since the end of the warm-up."""
        return self.done_s - self.latency_ms / np.float32(1e3)

    def at(self, chosen: npt.NDArray[Any]) -> Rows:
        """Those that an index chooses."""
        return Rows(self.done_s[chosen], self.latency_ms[chosen], self.wait_ms[chosen], self.ok[chosen])

    @classmethod
    def joined(cls, rows: Iterable[Rows]) -> Rows:
        """All in one."""
        columns = ((each.done_s, each.latency_ms, each.wait_ms, each.ok) for each in rows)
        empty = (*(np.empty(0, np.float32) for _ in range(3)), np.empty(0, np.bool_))
        return cls(*map(np.concatenate, zip(empty, *columns, strict=True)))


@dataclass
class _Piece:
    """Rows of one block that were written together: how many, when, and where they are found again."""

    place: Place
    count: int
    asked_s: float  # when the first of them was asked for, since the end of the warm-up
    first_s: float  # when the first answer came
    last_s: float  # and the last one
    rows: Rows | None

    def begins_s(self, *, asked: bool) -> float:
        return self.asked_s if asked else self.first_s


@dataclass
class Block:
    """One block: what its measured requests add up to, and the way to their rows."""

    facts: LoadBlock
    begins_s: float  # where its measured part begins on its arm's time axis
    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # SQLSTATE -> requests that were not answered rightly
    latency_ms: float = 0.0  # the sum over all requests
    right_latency_ms: float = 0.0  # the sum over right answers
    right_wait_ms: float = 0.0
    fastest_ms: float = np.inf  # of the right answers
    slowest_ms: float = -np.inf
    counts: dict[Column, Counts] = field(default_factory=dict)  # of the right answers, for `order_statistics`
    _pieces: list[_Piece] = field(default_factory=list)

    @property
    def measured_s(self) -> float:
        return self.facts.measured_s

    @property
    def right(self) -> int:
        """Requests that were answered rightly."""
        return self.requests - self.errors.total()

    def rows(self) -> Iterator[Rows]:
        """Its requests, some at a time, in the order in which they were written. Raises RunUnreadable."""
        return (self._read(piece) for piece in self._pieces)

    def spans(self, width_s: float, count: int | None = None, *, asked: bool = False) -> Iterator[tuple[int, Rows]]:
        """Its requests by spans of `width_s`, from the end of the warm-up on: number and rows, in order of time.

        A request belongs to the span in which its answer came, or, with `asked`, to the one in which it was asked for;
        what was asked for in the warm-up has none. Spans without requests are left out. `count`: there are so many, and
        the last one takes what comes later. Raises RunUnreadable.
        """
        last_span = np.inf if count is None else count - 1
        edges, held = [0.0], 0
        for piece in sorted(self._pieces, key=lambda piece: piece.begins_s(asked=asked)):
            span = min(piece.begins_s(asked=asked) // width_s, last_span)
            if held + piece.count > ROWS_AT_ONCE and span > edges[-1]:
                edges, held = [*edges, span], 0
            held += piece.count
        for first, end in itertools.pairwise([*edges, np.inf]):
            # Where a piece begins and ends is known to 32 bits: a span more on both sides, the rows decide.
            near = [
                piece
                for piece in self._pieces
                if piece.last_s >= (first - 1) * width_s and piece.begins_s(asked=asked) <= (end + 1) * width_s
            ]
            parts = []
            for rows in map(self._read, near):
                when = rows.asked_s if asked else rows.done_s
                number = np.minimum(np.floor(when / np.float32(width_s)), last_span)
                inside = (number >= first) & (number < end)
                parts.append((number[inside], rows.at(inside)))
            if not parts:
                continue
            number, rows = np.concatenate([part[0] for part in parts]), Rows.joined(part[1] for part in parts)
            order = np.argsort(number, kind="stable")
            spans, begins = np.unique(number[order], return_index=True)
            for span, begin, stop in zip(spans, begins, [*begins[1:], len(order)], strict=True):
                yield int(span), rows.at(order[begin:stop])

    def _read(self, piece: _Piece) -> Rows:
        if piece.rows is not None:
            return piece.rows
        table = Tables(piece.place.part.parents[1]).piece(piece.place, _TIMES)
        return _rows(table, self.facts)[0]

    def _take(self, batch: pd.DataFrame, place: Place, *, keep: bool) -> None:
        """Count the rows of this block in a piece of the table, and keep them if they are few."""
        rows, states = _rows(batch, self.facts)
        if not len(rows.ok):
            return
        asked_s, first_s, last_s = float(rows.asked_s.min()), float(rows.done_s.min()), float(rows.done_s.max())
        self._pieces.append(_Piece(place, len(rows.ok), asked_s, first_s, last_s, rows if keep else None))
        self.requests += len(rows.ok)
        self.errors.update(states[~rows.ok].tolist())
        latency = rows.right("latency")
        self.latency_ms += float(rows.latency_ms.sum(dtype=np.float64))
        self.right_latency_ms += float(latency.sum(dtype=np.float64))
        self.right_wait_ms += float(rows.right("wait").sum(dtype=np.float64))
        if len(latency):
            self.fastest_ms = min(self.fastest_ms, float(latency.min()))
            self.slowest_ms = max(self.slowest_ms, float(latency.max()))
        for column in _KINDS:
            fresh = Counts.of(rows.right(column))
            self.counts[column] = Counts.together([self.counts[column], fresh]) if column in self.counts else fresh

    def _forget(self) -> None:
        """Let go of the rows: they are read again when they are asked for."""
        for piece in self._pieces:
            piece.rows = None


def _rows(batch: pd.DataFrame, facts: LoadBlock) -> tuple[Rows, npt.NDArray[Any]]:
    """The measured requests of a block among those of a batch, and their SQLSTATEs if they were read."""
    latency_ns = batch["latency_ns"].to_numpy()
    done_ns = batch["start_ns"].to_numpy() + latency_ns
    mine = (batch["block"].to_numpy() == facts.block) & (done_ns >= facts.warm_until_ns) & (done_ns < facts.to_ns)
    rows = Rows(
        ((done_ns[mine] - facts.warm_until_ns) / 1e9).astype(np.float32),
        (latency_ns[mine] / 1e6).astype(np.float32),
        (batch["wait_ns"].to_numpy()[mine] / 1e6).astype(np.float32),
        (batch["outcome"] == "ok").to_numpy()[mine],
    )
    states = batch["sqlstate"].to_numpy()[mine] if "sqlstate" in batch else np.empty(0, object)
    return rows, states


def timeline(blocks: Sequence[LoadBlock]) -> list[float]:
    """Where each block's measured part begins, in seconds, when the rounds of its workload and arm are joined."""
    ends: dict[tuple[str, str], float] = {}
    begins = []
    for facts in blocks:
        group = (facts.workload, facts.arm)
        begins.append(ends.get(group, 0.0))
        ends[group] = begins[-1] + facts.measured_s
    return begins


def widths(blocks: Sequence[LoadBlock]) -> list[float]:
    """How long the spans are into which each block is cut, in seconds: one second, or so long that the time axis of its
    workload and arm has `MOST_SPANS` of them."""
    seconds: dict[tuple[str, str], float] = {}
    for facts in blocks:
        group = (facts.workload, facts.arm)
        seconds[group] = seconds.get(group, 0.0) + facts.measured_s
    return [max(1.0, seconds[facts.workload, facts.arm] / MOST_SPANS) for facts in blocks]


@read_once
def measured(run: Run) -> list[Block]:
    """The blocks that count, with their measured requests, in the order they ran. Raises RunUnreadable if there are
    none."""
    facts = counted(run)
    if not facts:
        raise RunUnreadable(f"{run.id} has no finished block: it was cut off before anything was measured")
    return _with_requests(facts, run.tables.pieces("ops", _COLUMNS))


def counted(run: Run) -> list[LoadBlock]:
    """The blocks that figures are made of: no short rounds, none that another one stands for, or that was interrupted
    before its warm-up was over."""
    return [block for block in run.blocks_of(LoadBlock) if block.has_figures]


def short(run: Run) -> list[LoadBlock]:
    """The blocks after the measured ones, in each of which one thing was changed, or nothing."""
    return [block for block in run.blocks_of(LoadBlock) if block.intervention and block.measured_s > 0]


def short_rounds(run: Run) -> list[Block]:
    """Those of `short`, with their measured requests."""
    facts = short(run)
    return _with_requests(
        facts, (piece for block in facts for piece in run.tables.pieces("ops", _COLUMNS, block.block))
    )


def _with_requests(facts: Sequence[LoadBlock], pieces: Iterable[tuple[Place, pd.DataFrame]]) -> list[Block]:
    blocks = {each.block: Block(each, begins_s) for each, begins_s in zip(facts, timeline(facts), strict=True)}
    keep = True
    for place, batch in pieces:
        # Requests of a block that was cut off have no measured part to belong to.
        for number in blocks.keys() & set(np.unique(batch["block"].to_numpy()).tolist()):
            blocks[number]._take(batch, place, keep=keep)
        if keep and sum(block.requests for block in blocks.values()) > KEPT_ROWS:
            keep = False
            for block in blocks.values():
                block._forget()
    return list(blocks.values())


def groups(run: Run) -> Iterator[tuple[str, str, list[Block]]]:
    """Workload, arm and their blocks, workloads first, in the order in which they first ran."""
    blocks = measured(run)
    workloads = list(dict.fromkeys(block.facts.workload for block in blocks))
    arms = list(dict.fromkeys(block.facts.arm for block in blocks))
    for workload in workloads:
        for arm in arms:
            chosen = [b for b in blocks if b.facts.workload == workload and b.facts.arm == arm]
            if chosen:
                yield workload, arm, chosen


def order_statistics(blocks: Sequence[Block], wanted: dict[Column, npt.NDArray[np.int64]]) -> dict[Column, Floats]:
    """Of the right answers of some blocks together, in ascending order, those in the wanted places, counted from 0."""
    if sum(block.requests for block in blocks) <= ROWS_AT_ONCE:
        together = Rows.joined(rows for block in blocks for rows in block.rows())
        return {name: np.partition(together.right(name), places)[places] for name, places in wanted.items()}
    chosen = {
        name: Selection(Counts.together(block.counts[name] for block in blocks if block.requests), places)
        for name, places in wanted.items()
    }
    for rows in (rows for block in blocks for rows in block.rows()):
        for name, each in chosen.items():
            each.take(rows.right(name))
    return {name: each.values() for name, each in chosen.items()}


def percentiles(blocks: Sequence[Block], wanted: dict[Column, Sequence[float]]) -> dict[Column, list[float]]:
    """Percentiles of the right answers of some blocks pooled, as `labkit.percentiles` defines them; NaN if there is
    none."""
    count = sum(block.right for block in blocks)
    if not count:
        return {name: [float("nan")] * len(percents) for name, percents in wanted.items()}
    at = {name: neighbours(count, percents) for name, percents in wanted.items()}
    found = order_statistics(blocks, {name: places for name, (places, _) in at.items()})
    return {name: between(found[name], share).tolist() for name, (_, share) in at.items()}
