"""One thread that reads every probe at fixed times and writes what it read to the run.

The thread runs an event loop: a server that does not answer keeps only its own probe waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from array import array
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import psutil
import psycopg

from labkit.checkers.host_cpu import COUNTERS, Account
from labkit.errors import ClusterError
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Measurable
from labkit.lab.sampling.host import (
    RELAY,
    HostProbe,
    KernelProbe,
    LabProbe,
    ProcessProbe,
    docker_proxies,
    on_this_machine,
)
from labkit.lab.sampling.node import DiskProbe, UsageProbe, not_measurable
from labkit.lab.sampling.probe import Dated, Probe, Reading
from labkit.lab.sampling.server import ServerProbe
from labkit.run.schema import Event, Sampling
from labkit.run.schema.events import ProbeFailed, ProbeRecovered, SamplerFailed
from labkit.run.store import Run

DISK_INTERVAL_S = 10.0  # walking a data directory of 1300 files costs 5 ms, more than all other probes of a tick
PATIENCE_S = 2.0  # a probe that has not answered by then has failed
FLUSH_S = 60.0
_ABSENT = (ClusterError, psycopg.Error, psutil.Error, OSError)

_Answer = tuple[int, "list[Reading] | Exception"]
"""When it came, on the run's clock, and what it was."""


class Sampler:
    """Sample `nodes`, this host and named processes into a run's `samples` while the with-block runs.

    `pids` gives process ids by the name under which they appear as a node, `generator` for the load generator; such a
    list may grow meanwhile. What else this process and its children use appears as the node `lab`.
    Samples are due every `interval_s` from the start; one that could not be taken in time is left out and counted.
    A probe that cannot read leaves its values absent, logs one event `probe_failed` (node, probe, reason), is
    tried again at every tick, and logs `probe_recovered` when it reads again.

    With `cpu_only` nothing is asked of the servers and nothing is written: the counters of the account stay in memory.

    `account()` says who used the machine's CPU so far. On exit: `summary()` has the sampler's own cost. An error
    inside the sampler itself is raised on exit.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        run: Run,
        interval_s: float = 1.0,
        pids: Mapping[str, Sequence[int]] | None = None,
        *,
        cpu_only: bool = False,
    ) -> None:
        self.interval_s, self._run, self._cpu_only = interval_s, run, cpu_only
        self.ticks = self.missed = self.rows = 0
        self.not_measured: dict[str, dict[str, str]] = {}
        """Node -> metric -> why it is absent from the samples of this run."""
        host, groups = HostProbe(), dict(pids or {})
        self._every_tick: list[Probe] = [host]
        self._every_tick += [ProcessProbe(name, members) for name, members in groups.items()]
        if host.accounts:
            self._every_tick.append(LabProbe(list(groups.values())))
            self._every_tick += [KernelProbe()] if KernelProbe.can_see() else []
        if relays := docker_proxies({node.port for node in nodes}):
            self._every_tick.append(ProcessProbe(RELAY, relays))
        # Servers here whose CPU cannot be read would pass for other programs.
        self._blind = any(not isinstance(n.control, Measurable) and on_this_machine(n.host) for n in nodes)
        self._disk: list[Probe] = []
        for node in nodes:
            if not cpu_only:
                self._every_tick.append(ServerProbe(node, [other for other in nodes if other is not node]))
            if isinstance(node.control, Measurable):
                self._every_tick.append(UsageProbe(node.name, node.control))
                self._disk += [] if cpu_only else [DiskProbe(node.name, node.control)]
            else:
                self.not_measured[node.name] = not_measurable(node)
        for probe in self._every_tick:
            if probe.not_measured:
                self.not_measured.setdefault(probe.node, {}).update(probe.not_measured)
        self._reading: dict[Probe, tuple[float, asyncio.Task[_Answer]]] = {}
        self._failing: set[Probe] = set()
        self._buffer: list[tuple[int, Reading]] = []
        self._counters: dict[tuple[str, str], tuple[array[int], array[float]]] = {}
        self._counting = threading.Lock()
        self._late: set[str] = set()
        self._flushed_at = self._ticked_at = time.monotonic()
        self._cpu_s = self._duration_s = 0.0
        self._error: BaseException | None = None
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake: asyncio.Event | None = None
        self._ending = False
        self._asked: list[threading.Event] = []
        self._thread = threading.Thread(target=self._work, name="labkit-sampler", daemon=True)

    def __enter__(self) -> Self:
        """Return when the first samples are taken, or have failed."""
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._wake()
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def sample_now(self) -> None:
        """Take one more sample, not waiting for when it is due; returns when it is there, or could not be taken."""
        taken = threading.Event()
        self._asked.append(taken)
        self._wake()
        if self._thread.is_alive():
            taken.wait(2 * PATIENCE_S)

    def sample_between(self) -> None:
        """Take one more sample between two loads, unless one was taken just now: the end of one and the beginning of
        the next are then not mixed."""
        if time.monotonic() - self._ticked_at > self.interval_s / 4:
            self.sample_now()

    def account(self) -> Account:
        """Who used this machine's CPU, as far as it has been sampled."""
        with self._counting:
            counters = {key: (list(times), list(values)) for key, (times, values) in self._counters.items()}
            late = set(self._late)
        return Account(counters, psutil.cpu_count() or 1, blind=self._blind, late=late)

    @property
    def cost_fraction(self) -> float:
        """CPU time of the sampler's thread, as a fraction of one core over the time it has run."""
        return self._cpu_s / self._duration_s if self._duration_s else 0.0

    def summary(self) -> Sampling:
        """What sampling has cost so far."""
        return Sampling(
            interval_s=self.interval_s,
            ticks=self.ticks,
            missed=self.missed,
            rows=self.rows,
            cpu_s=self._cpu_s,
            cost_fraction=self.cost_fraction,
        )

    def _wake(self) -> None:
        if self._loop is not None and self._awake is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._awake.set)

    def _work(self) -> None:
        try:
            asyncio.run(self._sample())
        except BaseException as error:
            self._error = error
            self._run.note(SamplerFailed(reason=f"{type(error).__name__}: {error}"))
        finally:
            for taken in (self._started, *self._asked):
                taken.set()

    async def _sample(self) -> None:
        self._loop, self._awake = asyncio.get_running_loop(), asyncio.Event()
        start, start_cpu = time.monotonic(), time.thread_time()
        due = next_disk = 0
        early = False
        try:
            while True:
                self._awake.clear()
                ending, asked = self._ending, len(self._asked)
                at_edge = ending or due == 0
                with_disk = at_edge or due >= next_disk
                if with_disk:
                    next_disk = due + max(1, round(DISK_INTERVAL_S / self.interval_s))
                await self._tick(with_disk, PATIENCE_S if at_edge else min(PATIENCE_S, 0.8 * self.interval_s))
                now = time.monotonic()
                self._cpu_s, self._duration_s = time.thread_time() - start_cpu, now - start
                if ending:
                    return
                self._started.set()
                for taken in self._asked[:asked]:
                    taken.set()
                del self._asked[:asked]
                following = math.floor((now - start) / self.interval_s) + 1
                self.missed += following - due - (0 if early else 1)
                due, early = following, True
                try:
                    await asyncio.wait_for(self._awake.wait(), start + due * self.interval_s - time.monotonic())
                except TimeoutError:
                    early = False
        finally:
            # Connections first: cancelling a read makes psycopg wait for the server, which may never answer.
            for probe in (*self._every_tick, *self._disk):
                probe.close()
            self._flush()
            self._cpu_s, self._duration_s = time.thread_time() - start_cpu, time.monotonic() - start

    async def _tick(self, with_disk: bool, wait_s: float) -> None:
        self.ticks += 1
        self._ticked_at = now = time.monotonic()
        for probe in (*self._every_tick, *(self._disk if with_disk else ())):
            if probe not in self._reading:
                self._reading[probe] = (now, asyncio.create_task(self._answer(probe)))
        await asyncio.wait([task for _, task in self._reading.values()], timeout=wait_s)
        for probe, (asked_at, task) in list(self._reading.items()):
            if task.done():
                del self._reading[probe]
                self._take(probe, *task.result())
            elif time.monotonic() - asked_at >= PATIENCE_S:
                self._failed(probe, f"no answer within {PATIENCE_S:g} s")
        if time.monotonic() - self._flushed_at >= FLUSH_S:
            self._flush()

    async def _answer(self, probe: Probe) -> _Answer:
        try:
            readings = await probe.read()
        except _ABSENT as error:
            return self._run.now_ns(), error
        if not isinstance(readings, Dated):
            return self._run.now_ns(), readings
        with self._counting:
            self._late.add(probe.node)
        return readings.at_ns - self._run.epoch_ns, readings

    def _take(self, probe: Probe, t_ns: int, answer: list[Reading] | Exception) -> None:
        if isinstance(answer, Exception):
            # Without the tail of the server's log that a ClusterError shows: that file is kept anyway.
            reason = answer.reason if isinstance(answer, ClusterError) else str(answer).strip()
            self._failed(probe, reason or type(answer).__name__)
            return
        if probe in self._failing:
            self._failing.remove(probe)
            self._note(ProbeRecovered(node=probe.node, probe=probe.name))
        if not self._cpu_only:
            self._buffer += [(t_ns, reading) for reading in answer]
        with self._counting:
            for node, metric, value in answer:
                if metric in COUNTERS:
                    times, values = self._counters.setdefault((node, metric), (array("q"), array("d")))
                    times.append(t_ns)
                    values.append(value)

    def _failed(self, probe: Probe, reason: str) -> None:
        if probe not in self._failing:
            self._failing.add(probe)
            self._note(ProbeFailed(node=probe.node, probe=probe.name, reason=reason))

    def _note(self, event: Event) -> None:
        if not self._cpu_only:  # a server that is killed there is no trouble of the sampler's
            self._run.note(event)

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        if not self._buffer:
            return
        times = [t_ns for t_ns, _ in self._buffer]
        nodes, metrics, values = zip(*(reading for _, reading in self._buffer), strict=True)
        with self._run.writer("samples") as writer:
            writer.write({"t_ns": times, "node": list(nodes), "metric": list(metrics), "value": list(values)})
        self.rows += len(times)
        self._buffer.clear()
