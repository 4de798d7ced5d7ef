"""Loads in processes of their own, so that drawing, sampling and a notebook's kernel take nothing from them."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Self

from labkit.errors import LoadError
from labkit.load.engine import run_load
from labkit.load.spec import LoadResult, LoadSpec

_STOPPING_S = 10.0


class LoadInterrupted(KeyboardInterrupt):
    """Ctrl-C under a load. `results` tell what was measured until then."""

    def __init__(self, results: Sequence[LoadResult]) -> None:
        self.results = list(results)
        super().__init__()


class Generators:
    """Processes that run loads; a context manager.

    A load is a picklable `LoadSpec`. Ctrl-C reaches this process alone: it tells the generators to stop through the
    specs' stop file, and what they had measured is kept.
    """

    def __init__(self, processes: int = 1) -> None:
        self._executor = concurrent.futures.ProcessPoolExecutor(
            processes, mp_context=multiprocessing.get_context("spawn"), initializer=_leave_interrupts_to_the_parent
        )
        waiting = [self._executor.submit(_warm_up) for _ in range(processes)]
        self.pids = sorted({future.result() for future in waiting})

    def run(self, specs: Sequence[LoadSpec], while_waiting: Callable[[], None] = lambda: None) -> list[LoadResult]:
        """Run all specs at the same time; `while_waiting` is called about four times a second.

        Raises LoadError if a node cannot be reached or a generator dies, LoadInterrupted on Ctrl-C, after the
        generators have finished early and written what they have.
        """
        futures = [self._executor.submit(run_load, spec) for spec in specs]
        try:
            while concurrent.futures.wait(futures, timeout=0.25).not_done:
                while_waiting()
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise LoadError("a load generator process died; its last requests are lost. Is memory short?") from error
        except KeyboardInterrupt:
            for stop_file in {spec.stop_file for spec in specs}:
                if stop_file is not None:
                    stop_file.touch()
            done = concurrent.futures.wait(futures, timeout=_STOPPING_S).done
            raise LoadInterrupted([f.result() for f in futures if f in done and f.exception() is None]) from None

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stop_file(folder: Path) -> Path:
    """A path in `folder` that does not exist: a generator that watches it stops when it appears."""
    path = folder / f".stop-{time.monotonic_ns():x}"
    path.unlink(missing_ok=True)
    return path


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _warm_up() -> int:
    """Importing this module in the new process is the warm-up."""
    time.sleep(0.05)  # long enough that each process takes one of these
    return os.getpid()
