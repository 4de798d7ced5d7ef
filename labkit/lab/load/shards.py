"""Loads outside of this process, so that drawing, sampling and a notebook's kernel take nothing from them.

A load is divided into shards: picklable specs that run in any `concurrent.futures.Executor`. By default that is a
pool of processes on this machine; an executor of a distributed engine runs them on other machines.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import platform
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from dataclasses import replace
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Self

import numpy as np
from psycopg import pq

from labkit import files
from labkit.errors import LoadError
from labkit.lab.load.clocks import Clock, exchange, host_id
from labkit.lab.load.engine import run_load
from labkit.lab.load.spec import LoadResult, LoadSpec
from labkit.lab.workloads.base import Workload
from labkit.remedies import advice

_STOPPING_S = 10.0
_LEAD_NS = 800_000_000  # for a shard to arrive at its worker
_CONNECT_NS = 4_000_000  # and to open one connection, where several shards do so at once


class LoadInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM under a load. `results` tell what was measured until then."""

    def __init__(self, results: Sequence[LoadResult]) -> None:
        self.results = list(results)
        super().__init__()


class Generators:
    """Workers that run loads, a shard of each load on every one; a context manager.

    `processes` are started on this machine. With an `executor`, that many shards go to its workers instead, their
    records come back as bytes, and their times are translated to this machine's clock; the executor stays open.

    Ctrl-C and SIGTERM are for this process alone, even where every process is sent them: it tells the generators to
    stop through the specs' stop file, and what they had measured is kept. Workers on other machines do not see that
    file: theirs is kept if they end within ten seconds.
    """

    def __init__(self, processes: int = 1, executor: Executor | None = None) -> None:
        if pq.__impl__ == "python":
            warnings.warn(
                "psycopg's pure Python pq is in use: the load generator will be its own bottleneck; "
                "install psycopg[binary]",
                stacklevel=2,
            )
        self.shards = processes
        self.clocks: Mapping[str, Clock] = {}
        self.pids: list[int] = []
        self.own = executor is None
        self._closing = False
        self._begun: list[tuple[Future[LoadResult], LoadSpec]] = []
        self._prepared: list[Workload] = []
        context = multiprocessing.get_context("spawn")
        self._together = context.Barrier(processes, _agree)
        self._executor = executor or concurrent.futures.ProcessPoolExecutor(
            processes, mp_context=context, initializer=_begin, initargs=(self._together, context.Value("q"))
        )
        if self.own:
            waiting = [self._executor.submit(_warm_up) for _ in range(processes)]
            self.pids = sorted({future.result() for future in waiting})
        else:
            self.clocks = exchange(self._executor, processes)

    def load(self, spec: LoadSpec, while_waiting: Callable[[], None] = lambda: None) -> list[LoadResult]:
        """Run one load, divided among all workers, who begin together. Raises as `run` does."""
        if self.shards > 1 or not self.own:
            self._prepare(spec.workload)
        if not self.own:  # workers here meet when all of them have their connections
            lead_ns = _LEAD_NS + _CONNECT_NS * spec.connections
            spec = replace(spec, start_ns=max(spec.start_ns, time.monotonic_ns() + lead_ns))
        return self.run(spec.split(self.shards), while_waiting)

    def _prepare(self, workload: Workload) -> None:
        """Let every worker make what a workload makes on first use, a second's work for a million users."""
        if workload in self._prepared:
            return
        self._prepared.append(workload)
        asked = [self._executor.submit(_first_use, workload, time.monotonic_ns()) for _ in range(self.shards)]
        for future in asked:
            future.result()

    def run(self, specs: Sequence[LoadSpec], while_waiting: Callable[[], None] = lambda: None) -> list[LoadResult]:
        """Run all specs at the same time; `while_waiting` is called about four times a second.

        Raises LoadError if a node cannot be reached or a generator dies, LoadInterrupted on Ctrl-C or
        SIGTERM, after the generators have finished early and written what they have.
        """
        futures: list[Future[Any]]
        if self.own:
            together = _run_together if len(specs) == self.shards > 1 else run_load
            futures = [self._executor.submit(together, spec) for spec in specs]
        else:
            futures = [self._executor.submit(run_elsewhere, _portable(spec), self.clocks) for spec in specs]
        try:
            while concurrent.futures.wait(futures, timeout=0.25).not_done:
                while_waiting()
            _raise_the_reason(futures)
            return [_kept(future.result(), spec) for future, spec in zip(futures, specs, strict=True)]
        except (BrokenExecutor, concurrent.futures.CancelledError) as error:
            self.kill()
            reason = "a load generator process died; its last requests are lost"
            raise LoadError(reason, remedy=advice("see whether there is enough memory")) from error
        except KeyboardInterrupt as interrupt:
            for stop_file in {spec.stop_file for spec in specs}:
                if stop_file is not None:
                    stop_file.touch()
            done = concurrent.futures.wait(futures, timeout=_STOPPING_S).done
            whole = [
                (future, spec)
                for future, spec in zip(futures, specs, strict=True)
                if future in done and not future.cancelled() and future.exception() is None
            ]
            raise LoadInterrupted([_kept(future.result(), spec) for future, spec in whole]) from interrupt
        finally:
            if self._together.broken:
                self._together.reset()

    def begin(self, spec: LoadSpec) -> concurrent.futures.Future[LoadResult]:
        """Run one load in the background; its stop file, or `close`, ends it."""
        future = self._executor.submit(run_load, spec)
        self._begun.append((future, spec))
        return future

    def kill(self) -> None:
        """End the workers of this object in the middle of what they do; their loads then raise LoadError."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End what still runs in the background, and the workers that belong to this object."""
        for future, spec in self._begun:
            if not future.done() and spec.stop_file is not None:
                spec.stop_file.touch()
        if self.own:
            if not self._closing:
                self._closing = True
                try:
                    self._executor.submit(os.getpid)
                except BrokenExecutor:
                    self.kill()  # where one has died, the executor ends the others by SIGTERM, and they ignore it
            self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _NotTogether(LoadError):
    """Another shard of the load could not begin; that one says why."""


def _run_together(spec: LoadSpec) -> LoadResult:
    """Run one of several shards on this machine, which begin when the last of them has its connections."""
    assert _together is not None
    try:
        return run_load(spec, _meet)
    except threading.BrokenBarrierError:
        raise _NotTogether("another shard of the load could not begin") from None
    except BaseException:
        _together.abort()  # else the others would wait for this one
        raise


def _raise_the_reason(futures: Sequence[Future[Any]]) -> None:
    """Raise what kept a shard from running, if something did, and not that another waited for it."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, _NotTogether)):
        raise error


def run_elsewhere(spec: LoadSpec, clocks: Mapping[str, Clock]) -> tuple[LoadResult, bytes]:
    """Run one shard on a machine that shares no files with the driving one; gives its records as a Parquet part.

    Raises LoadError, also if this machine's clock was not compared.
    """
    host = host_id()
    if host not in clocks:
        reason = f"a shard came to a worker whose clock was not compared ({platform.node()})"
        raise LoadError(reason, remedy=advice("run it again"))
    clock = clocks[host]
    with tempfile.TemporaryDirectory(prefix="labkit-shard-") as folder:
        part = Path(folder) / spec.part.name
        here = replace(
            spec, part=part, epoch_ns=spec.epoch_ns + clock.offset_ns, start_ns=spec.start_ns + clock.offset_ns
        )
        result = run_load(here)
        result.host, result.clock_offset_ns, result.clock_bound_ns = platform.node(), clock.offset_ns, clock.bound_ns
        return result, part.read_bytes()


def _portable(spec: LoadSpec) -> LoadSpec:
    return replace(spec, stop_file=None, live_file=None, part=Path(spec.part.name))


def _kept(outcome: LoadResult | tuple[LoadResult, bytes], spec: LoadSpec) -> LoadResult:
    """The result of a shard; records that came as bytes are written where they belong."""
    if isinstance(outcome, LoadResult):
        return outcome
    result, part = outcome
    spec.part.parent.mkdir(parents=True, exist_ok=True)
    files.replace(spec.part, part, durable=False)
    return result


# Of the processes of one pool on this machine: where they meet, and when what they then do together is to begin.
_together: Barrier | None = None
_start: Synchronized[int] | None = None
_TOGETHER_S = 60.0
_SOON_NS = 20_000_000  # for all of them to wake up


def _begin(barrier: Barrier, start: Synchronized[int]) -> None:
    """Interrupts are the parent's, and its end is the end of this process."""
    global _together, _start
    _together, _start = barrier, start
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="labkit-parent", daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot say so, and a worker that waits for it would wait without end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _agree() -> None:
    """What the last one to come does for all."""
    assert _start is not None
    _start.value = time.monotonic_ns() + _SOON_NS


def _meet() -> int:
    """Return when every worker has come here, so that each has taken one of as many tasks: when to begin together."""
    if _together is None or _start is None:
        time.sleep(0.05)  # workers elsewhere have nothing to meet at
        return 0
    _together.wait(_TOGETHER_S)
    return _start.value


def _first_use(workload: Workload, nonce: int) -> None:
    del nonce  # it keeps an executor from answering out of a cache
    next(workload.requests(np.random.default_rng(0)))
    workload.checker()
    _meet()


def _warm_up() -> int:
    """Importing this module in the new process is the warm-up."""
    _meet()
    return os.getpid()
