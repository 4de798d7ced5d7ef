"""The load generator: one thread, nonblocking libpq, one event loop.

Every user, connection and timer lives in this loop, so nothing is locked and a request costs little more than its
two system calls. What one request does on its way: it is asked for (`start`), waits for a connection of the node that
the router picked, is sent, answered and checked, becomes a record; then its user asks again. Trouble never raises
out of the loop: it becomes a record with outcome `fail` or `unknown` and the connection is opened again.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from psycopg import OperationalError, pq

from labkit.lab.load import records
from labkit.lab.load.arrivals import Closed, Open
from labkit.lab.load.connections import BUSY, IDLE, STATEMENT, NodePool, Slot, open_all
from labkit.lab.load.intents import intents
from labkit.lab.load.live import LiveWriter
from labkit.lab.load.polling import OUT, poller
from labkit.lab.load.records import OK, Recorder
from labkit.lab.load.route import Route
from labkit.lab.load.spec import LoadResult, LoadSpec
from labkit.lab.routing import round_robin
from labkit.run.parts import PartWriter

_TICK_NS = 10_000_000
_STOPPING_NS = 1_000_000_000  # for the last answers, when told to stop
_BINARY = 1


def run_load(spec: LoadSpec, meet: Callable[[], int] = lambda: 0) -> LoadResult:
    """Run one load from connect to the last answer; once connected, `meet` says when to begin. Raises LoadError."""
    with PartWriter(spec.part, "ops") as writer:
        recorder = Recorder(writer, spec.block, [t.name for t in spec.targets], keep_fresh=spec.live_file is not None)
        engine = _Engine(spec, recorder)
        collecting = gc.isenabled()
        gc.collect()  # the loop makes no cycles, and a collection would be a stall of every user
        gc.disable()
        try:
            return engine.run(meet)
        finally:
            if collecting:
                gc.enable()
            engine.close()
            recorder.flush()


class _Engine:
    def __init__(self, spec: LoadSpec, recorder: Recorder) -> None:
        self._spec, self._recorder, self._live = spec, recorder, LiveWriter(spec.live_file, recorder)
        self._poller = poller()
        self._by_fd: dict[int, Slot] = {}
        self._pools = [
            NodePool(i, t.name, t.conninfo, t.connections, spec.workload, self._poller)
            for i, t in enumerate(spec.targets)
        ]
        self._route = Route(spec.route, [target.name for target in spec.targets]) if spec.route else None
        self._pick = self._route.pick if self._route else round_robin(self._pools)
        self._ledger = intents(spec)
        rng = np.random.default_rng(spec.seed)
        self._parameters = spec.workload.requests(rng)
        self._check = spec.workload.checker()
        self._timeout_ns = int(spec.timeout_s * 1e9)
        self._timers: list[int] = []  # when users who think will ask again
        self._unanswered = 0
        self._sqlstates: Counter[str] = Counter()
        self._problems: dict[str, str] = {}
        self._stopped = False
        self._parent = os.getppid()
        self._next_stop_check = 0
        self._result = LoadResult()
        self._arrivals: Iterator[float] = iter(())
        self._due = 0  # ns of the next open arrival, 0 if there is none
        self._users = 0
        self._schedule = spec.arrivals.schedule()
        if isinstance(spec.arrivals, Open):
            self._arrivals = spec.arrivals.times(rng)

    # -- the course of a load ---------------------------------------------------------------------------------

    def run(self, meet: Callable[[], int]) -> LoadResult:
        open_all(self._pools, self._poller, self._by_fd)
        spec, result = self._spec, self._result
        next(self._parameters)  # whatever the workload prepares on first use is not part of the load
        start_ns = max(spec.start_ns, meet())
        while (early := start_ns - time.monotonic_ns()) > 0:
            time.sleep(early / 1e9)
        self._t0 = time.monotonic_ns()
        warm = self._t0 + int(spec.warmup_s * 1e9)
        self._to = warm + int(spec.duration_s * 1e9)
        epoch = spec.epoch_ns
        self._recorder.window = (warm - epoch, self._to - epoch)
        self._begin()
        self._loop(until=warm)
        cpu, wall = time.process_time_ns(), time.monotonic_ns()
        self._loop(until=self._to)
        if self._stopped:
            self._to = time.monotonic_ns()
            self._recorder.window = (warm - epoch, self._to - epoch)
        span = max(time.monotonic_ns() - wall, 1)
        result.cpu_percent = 100 * (time.process_time_ns() - cpu) / span
        self._timers.clear()
        self._due = 0
        grace = min(self._timeout_ns, _STOPPING_NS) if self._stopped else self._timeout_ns
        self._loop(until=time.monotonic_ns() + grace, drain=True)
        self._give_up()
        self._recorder.flush()
        result.from_ns, result.warm_until_ns, result.to_ns = self._t0 - epoch, warm - epoch, self._to - epoch
        result.requests, result.measured = self._recorder.rows, self._recorder.measured
        places = sum(len(pool.slots) for pool in self._pools)
        result.pool_busy_fraction = self._recorder.busy_ns / max(places * (self._to - warm), 1)
        result.sqlstates, result.problems = dict(self._sqlstates), self._problems
        result.dropped = self._sqlstates[records.DROPPED]
        result.interrupted = self._stopped
        return result

    def close(self) -> None:
        for pool in self._pools:
            for slot in pool.slots:
                pool.close(slot, self._by_fd)
        self._poller.close()
        if self._ledger is not None:
            self._ledger.close()

    def _begin(self) -> None:
        if isinstance(self._spec.arrivals, Closed):
            self._set_users(round(self._schedule.at(0.0)), self._t0)
        else:
            self._next_arrival()

    def _give_up(self) -> None:
        """Record what is still unanswered when the time for the last answers is over."""
        now = time.monotonic_ns()
        for pool in self._pools:
            for start in pool.waiting:
                self._record(start, now - start, now, pool, records.DEADLINE)
            pool.waiting.clear()
            for slot in pool.slots:
                if slot.state == BUSY:
                    self._lose(slot, records.DEADLINE, records.CLIENT_STATES[records.DEADLINE], now)

    # -- the loop ---------------------------------------------------------------------------------------------

    def _loop(self, until: int, drain: bool = False) -> None:
        clock, wait, by_fd, pools = time.monotonic_ns, self._poller.wait, self._by_fd, self._pools
        recorder, check, pick, send, ledger = self._recorder, self._check, self._pick, self._send, self._ledger
        pack, buffer, size, limit = recorder.pack_into, recorder.buffer, recorder.size, recorder.limit
        epoch = self._spec.epoch_ns
        # Users ask again at once only in the plain closed workload; all else goes through _again.
        plain = not drain and isinstance(self._spec.arrivals, Closed) and not self._spec.arrivals.think_s
        plain = plain and not self._spec.arrivals.stages
        now = clock()
        tick = now + _TICK_NS
        while now < until and not (drain and not self._unanswered) and (drain or not self._stopped):
            wake = min(tick, until, self._due or tick, self._timers[0] if self._timers else tick)
            for fd, mask in wait(max(wake - now, 0) / 1e9):
                slot = by_fd.get(fd)
                if slot is None:
                    continue
                pool = slot.pool
                if slot.state != BUSY:
                    self._attend(slot, clock())
                    continue
                try:
                    if mask & OUT and not slot.flush():
                        pool.watch_writes(slot, False)
                    slot.consume()
                    busy, get = slot.busy, slot.get
                    while not busy():
                        got = get()
                        if got is None:
                            break
                        if slot.result is None:
                            slot.result = got
                    else:
                        continue
                except OperationalError as error:
                    self._lose(slot, records.CONNECTION_LOST, str(error), clock())
                    continue
                now = clock()
                result, slot.result = slot.result, None
                if result is None or result.status > pq.ExecStatus.TUPLES_OK or not check(result, slot.parameters):
                    self._refused(slot, result, now)
                    continue
                if ledger is not None:
                    if slot.warning:
                        self._refused(slot, result, now)
                        continue
                    ledger.acknowledged(slot, now)
                start, sent = slot.start_ns, slot.sent_ns
                pack(
                    buffer, recorder.offset, start - epoch, sent - start, now - start, result.ntuples, 0, pool.index, OK
                )
                recorder.offset += size
                if recorder.offset == limit:
                    recorder.flush()
                if plain:
                    target = pools[pick()]
                    target.waiting.append(now)
                else:
                    target = pool
                    self._unanswered -= 1
                    self._again(now)
                if pool.waiting:
                    send(slot, pool.waiting.popleft(), now)
                else:
                    slot.state = IDLE
                    pool.idle.append(slot)
                if target.idle and target.waiting:
                    self._dispatch(target, now)
            now = clock()
            if self._due and now >= self._due:
                self._arrive(now)
            while self._timers and self._timers[0] <= now:
                self._ask(heapq.heappop(self._timers), now)
            if now >= tick:
                self._housekeep(now, drain)
                tick = now + _TICK_NS

    def _send(self, slot: Slot, start: int, now: int) -> None:
        slot.start_ns, slot.sent_ns = start, now
        slot.state = BUSY
        slot.parameters = parameters = next(self._parameters)
        if self._ledger is not None:
            self._ledger.intend(slot, now)
        try:
            slot.send(STATEMENT, parameters, [_BINARY] * len(parameters), _BINARY)
            if slot.flush():
                slot.pool.watch_writes(slot, True)
        except OperationalError as error:
            self._lose(slot, records.CONNECTION_LOST, str(error), now)

    def _dispatch(self, pool: NodePool, now: int) -> None:
        while pool.idle and pool.waiting:
            self._send(pool.idle.pop(), pool.waiting.popleft(), now)

    # -- users and arrivals -----------------------------------------------------------------------------------

    def _ask(self, start: int, now: int) -> None:
        """A request is wanted since `start`."""
        self._unanswered += 1
        pool = self._pools[self._pick()]
        pool.waiting.append(start)
        if pool.idle:
            self._dispatch(pool, now)

    def _again(self, now: int) -> None:
        """The user of an answered request goes on, in the next turn of the loop at the earliest, or leaves."""
        arrivals = self._spec.arrivals
        if isinstance(arrivals, Open) or now >= self._to or self._stopped:
            return
        if self._users > self._wanted_users(now):
            self._users -= 1
        else:
            heapq.heappush(self._timers, now + int(arrivals.think_s * 1e9))

    def _wanted_users(self, now: int) -> int:
        return round(self._schedule.at((now - self._t0) / 1e9))

    def _set_users(self, wanted: int, now: int) -> None:
        while self._users < wanted:
            self._users += 1
            self._ask(now, now)

    def _next_arrival(self) -> None:
        at = next(self._arrivals, None)
        self._due = 0 if at is None else self._t0 + int(at * 1e9)

    def _arrive(self, now: int) -> None:
        """Begin every arrival that is due; measured from when it was due, not from when it was noticed."""
        assert isinstance(self._spec.arrivals, Open)
        most = self._spec.arrivals.max_in_flight
        while self._due and self._due <= now:
            due = self._due
            if due >= self._to or self._stopped:
                self._due = 0
                return
            self._result.late_ns = max(self._result.late_ns, now - due)
            if self._unanswered < most:
                self._ask(due, now)
            else:
                pool = self._pools[self._pick()]
                self._unanswered += 1
                self._record(due, now - due, now, pool, records.DROPPED)
            self._next_arrival()

    # -- what goes wrong --------------------------------------------------------------------------------------

    def _attend(self, slot: Slot, now: int) -> None:
        """News on a connection that carries no request: it is being opened, or the server has closed it."""
        pool = slot.pool
        if slot.state == IDLE:
            with contextlib.suppress(OperationalError):
                slot.consume()
                if not slot.busy() and slot.pgconn is not None and slot.pgconn.status == pq.ConnStatus.OK:
                    return  # a notice or a changed setting
            pool.close(slot, self._by_fd)
            return
        ready = pool.advance(slot, self._by_fd)
        if ready:
            self._dispatch(pool, now)
        elif ready is False:
            self._turn_away(pool, now)

    def _turn_away(self, pool: NodePool, now: int) -> None:
        """An attempt to connect has failed: where nothing else is open, those who waited for it fail with it."""
        if pool.live:
            return
        self._problems.setdefault(records.CANNOT_CONNECT, f"{pool.name}: {pool.problem}")
        for start in [pool.waiting.popleft() for _ in range(len(pool.waiting))]:
            self._record(start, now - start, now, pool, records.CANNOT_CONNECT)

    def _refused(self, slot: Slot, result: pq.abc.PGresult | None, now: int) -> None:
        """The server answered with an error, wrongly, or with a warning: a commit that may be lost yet."""
        pool, outcome = slot.pool, records.FAIL
        if result is not None and result.status <= pq.ExecStatus.TUPLES_OK and slot.warning:
            sqlstate, text, rows, outcome = records.WARNED, slot.warning, result.ntuples, records.UNKNOWN
        elif result is not None and result.status <= pq.ExecStatus.TUPLES_OK:
            sqlstate, text, rows = records.WRONG_ANSWER, f"{pool.name}: {slot.parameters!r}", result.ntuples
        elif result is None:
            return self._lose(slot, records.CONNECTION_LOST, "the server closed the connection", now)
        else:
            sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode() or records.CONNECTION_LOST
            text, rows = result.error_message.decode(errors="replace").strip(), 0
            severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
            if severity != b"ERROR" or slot.pgconn is None or slot.pgconn.status != pq.ConnStatus.OK:
                return self._lose(slot, sqlstate, text, now)
        self._problems.setdefault(sqlstate, f"{pool.name}: {text}")
        slot.state = IDLE
        pool.idle.append(slot)
        if self._ledger is not None:
            self._ledger.ended(slot, now, outcome, sqlstate)
        self._record(slot.start_ns, slot.sent_ns - slot.start_ns, now, pool, sqlstate, rows, outcome)
        self._dispatch(pool, now)
        return None

    def _lose(self, slot: Slot, sqlstate: str, text: str, now: int) -> None:
        """The connection died, or is given up, under a request: whether a write took place is not known."""
        self._problems.setdefault(sqlstate, f"{slot.pool.name}: {text.strip()}")
        slot.pool.close(slot, self._by_fd)
        outcome = records.UNKNOWN if self._spec.workload.writes else records.FAIL
        if self._ledger is not None:
            self._ledger.ended(slot, now, outcome, sqlstate)
        self._record(slot.start_ns, slot.sent_ns - slot.start_ns, now, slot.pool, sqlstate, outcome=outcome)

    def _record(
        self,
        start: int,
        wait: int,
        now: int,
        pool: NodePool,
        sqlstate: str,
        rows: int = 0,
        outcome: int = records.FAIL,
    ) -> None:
        self._sqlstates[sqlstate] += 1
        self._recorder.add(start - self._spec.epoch_ns, wait, now - start, rows, sqlstate, pool.index, outcome)
        self._unanswered -= 1
        self._again(now)

    def _follow(self, target: NodePool, now: int) -> None:
        """The load belongs to another node now: give up what is under way elsewhere, and ask there."""
        for pool in self._pools:
            if pool is not target:
                target.waiting.extend(pool.waiting)
                pool.waiting.clear()
                for slot in pool.slots:
                    if slot.state == BUSY:
                        self._lose(slot, records.ROUTED_AWAY, records.CLIENT_STATES[records.ROUTED_AWAY], now)
        self._dispatch(target, now)

    def _housekeep(self, now: int, drain: bool) -> None:
        """Every 10 ms: the route, deadlines, connections to open, the number of users, the order to stop."""
        if self._route is not None and self._route.changed():
            self._follow(self._pools[self._route.index], now)
        for pool in self._pools:
            oldest = now - self._timeout_ns
            for slot in pool.slots:
                if slot.state == BUSY and slot.start_ns < oldest:
                    self._lose(slot, records.DEADLINE, records.CLIENT_STATES[records.DEADLINE], now)
            while pool.waiting and pool.waiting[0] < oldest:
                start = pool.waiting.popleft()
                self._record(start, now - start, now, pool, records.DEADLINE)
            if pool.expire(now, self._by_fd) | pool.open_some(now, self._by_fd):
                self._turn_away(pool, now)
        if isinstance(self._spec.arrivals, Closed) and not drain and self._spec.arrivals.stages:
            self._set_users(self._wanted_users(now), now)
        if now >= self._next_stop_check:
            self._next_stop_check = now + 100_000_000
            self._live.tick(now)
            stop = self._spec.stop_file
            self._stopped |= os.getppid() != self._parent or (stop is not None and stop.exists())
