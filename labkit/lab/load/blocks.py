"""Blocks: one load of one arm for some seconds, driven and noted in run.json with what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol

import numpy as np
import numpy.typing as npt

from labkit.lab.load import live_view as live
from labkit.lab.load.arrivals import Arrivals, Open
from labkit.lab.load.shards import Generators, LoadInterrupted
from labkit.lab.load.spec import LoadResult, LoadSpec, Target, merge
from labkit.lab.routing import Serving
from labkit.lab.workloads.base import Workload
from labkit.progress import Progress
from labkit.run import layout
from labkit.run.schema import Asked, Cell, LoadBlock, LoadFigures
from labkit.run.store import Run


class LoadTerms(Protocol):
    """The parameters that every load has."""

    @property
    def warmup_s(self) -> float: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def seed(self) -> int: ...


def latencies_ms(run: Run, block: LoadBlock) -> npt.NDArray[np.float64]:
    """The latencies of the right answers in a block's measured part, read back from its records."""
    found = [np.empty(0)]
    for batch in run.batches("ops", ["start_ns", "latency_ns", "outcome"], block.block):
        done = (batch["start_ns"] + batch["latency_ns"]).to_numpy()
        inside = (done >= block.warm_until_ns) & (done < block.to_ns) & (batch["outcome"] == "ok").to_numpy()
        found.append(batch["latency_ns"].to_numpy()[inside] / 1e6)
    return np.concatenate(found)


class Blocks:
    """The blocks of a run, one after the other, each driven on the same terms."""

    def __init__(self, run: Run, generators: Generators, bar: Progress, terms: LoadTerms) -> None:
        self._run, self._generators, self._bar, self._terms = run, generators, bar, terms
        self._live = live.view(run.path)

    def on_terms(self, terms: LoadTerms, generators: Generators | None = None) -> Blocks:
        """The same blocks, going on, with other terms, or with other load generators."""
        other = Blocks(self._run, generators or self._generators, self._bar, terms)
        other._live = self._live
        return other

    def drive(
        self,
        load: Workload,
        serving: Serving,
        when: Arrivals,
        duration_s: float,
        cell: Cell,
    ) -> LoadBlock:
        """Run one block, the one that `cell` names, and note it, also when it was interrupted.

        Raises LoadError, LoadInterrupted.
        """
        run, p, number = self._run, self._terms, len(self._run.blocks)
        spec = LoadSpec(
            workload=load,
            targets=tuple(
                Target(node.name, node.conninfo("app"), connections) for node, connections in serving.by_node
            ),
            arrivals=when,
            duration_s=duration_s,
            warmup_s=p.warmup_s,
            timeout_s=p.timeout_s,
            seed=p.seed + cell.round,  # the arms of a round are asked the same at the same times
            part=run.tables.new("ops", number),
            block=number,
            epoch_ns=run.epoch_ns,
            stop_file=layout.stop(run.path),
            live_file=self._live.file(number) if self._live else None,
        )
        files = [shard.live_file for shard in spec.split(self._generators.shards) if shard.live_file]
        if self._live:
            self._live.begin(cell, when, files)
        length_s, began, behind_s = spec.warmup_s + spec.duration_s, time.monotonic(), self._bar.done

        def show() -> None:
            self._bar.update(behind_s + min(time.monotonic() - began, length_s))
            if self._live:
                self._live.update()

        try:
            shards = self._generators.load(spec, show)
        except LoadInterrupted as interrupt:
            if interrupt.results:
                _note(run, spec, cell, interrupt.results)
            raise
        finally:
            if spec.stop_file is not None:
                spec.stop_file.unlink(missing_ok=True)
            if self._live:
                self._live.end(files)
        self._bar.update(behind_s + length_s)
        return _note(run, spec, cell, shards)


def _note(run: Run, spec: LoadSpec, cell: Cell, shards: Sequence[LoadResult]) -> LoadBlock:
    merged = merge(shards)
    block = LoadBlock(
        block=spec.block,
        nodes=[target.name for target in spec.targets],
        connections={target.name: target.connections for target in spec.targets},
        **cell.as_json(),
        **_asked(spec, merged).as_json(),
        **_figures(merged).as_json(),
    )
    if len(shards) > 1 or merged.clock_bound_ns:
        block = block.changed(shards=[_figures(shard) for shard in shards])
    run.note_block(block)
    return block


def _asked(spec: LoadSpec, result: LoadResult) -> Asked:
    begin_s = (result.warm_until_ns - result.from_ns) / 1e9
    end_s = (result.to_ns - result.from_ns) / 1e9
    if end_s <= begin_s:  # interrupted in the warm-up
        begin_s, end_s = 0.0, max(end_s, 1e-9)
    mean = spec.arrivals.schedule().mean(begin_s, end_s)
    if isinstance(spec.arrivals, Open):
        return Asked(vus=None, offered_per_s=mean, arrival=spec.arrivals.kind)
    return Asked(vus=mean, think_s=spec.arrivals.think_s, offered_per_s=None)


def _figures(result: LoadResult) -> LoadFigures:
    figures = asdict(result)
    return LoadFigures(generator_cpu_percent=figures.pop("cpu_percent"), **figures)
