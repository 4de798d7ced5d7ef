"""Nonblocking connections to one node: opening, preparing, losing and opening again.

Built on `psycopg.pq`, the thin layer over libpq: a request costs no more than libpq's own work, the system calls
and a few function calls.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from psycopg import OperationalError, pq

from labkit.errors import LoadError
from labkit.lab.load.polling import IN, OUT, Poller
from labkit.lab.load.records import CANNOT_CONNECT
from labkit.lab.workloads.base import Parameters, Workload
from labkit.remedies import Remedy, advice

CONNECTING, PREPARING, IDLE, BUSY, DOWN = range(5)
CONNECT_TIMEOUT_NS = 5_000_000_000
_BACKOFF_NS = (50_000_000, 1_000_000_000)  # first and longest pause between two attempts at a node that is away
_OPENED_WITHIN_S = 30.0
_MANY = 8  # connections opened at once to a node that answers
STATEMENT = b"labkit"


class Slot:
    """One place for a connection, and the request that it carries.

    Bound methods of the connection are kept as attributes: looking them up is a measurable part of a request.
    """

    __slots__ = (
        "busy",
        "consume",
        "fd",
        "flush",
        "get",
        "parameters",
        "pgconn",
        "pool",
        "result",
        "send",
        "sent_ns",
        "since_ns",
        "start_ns",
        "state",
        "warning",
    )

    consume: Callable[[], None]
    busy: Callable[[], int]
    get: Callable[[], pq.abc.PGresult | None]
    send: Callable[..., None]
    flush: Callable[[], int]
    parameters: Parameters

    def __init__(self, pool: NodePool) -> None:
        self.pool = pool
        self.pgconn: pq.abc.PGconn | None = None
        self.state = DOWN
        self.fd = -1
        self.start_ns = self.sent_ns = self.since_ns = 0
        self.result: pq.abc.PGresult | None = None
        self.warning = ""
        """What the server warned of while it answered the request; writers set it back."""

    def noticed(self, notice: pq.abc.PGresult) -> None:
        if notice.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) == b"WARNING":
            self.warning = notice.error_message.decode(errors="replace").strip()


class NodePool:
    """The connections to one node and the requests that wait for one, first come first served."""

    def __init__(self, index: int, name: str, conninfo: str, size: int, workload: Workload, poller: Poller) -> None:
        self.index, self.name = index, name
        self.slots = [Slot(self) for _ in range(size)]
        self.down = list(self.slots)
        self.idle: list[Slot] = []
        self.waiting: deque[int] = deque()
        """Start times, in ns."""
        self.live = 0
        self.problem = ""
        """Why the last attempt to connect failed."""
        self._conninfo = conninfo.encode()
        self._statement = workload.statement.encode()
        self._types = workload.types
        self._poller = poller
        self._failures = 0
        self._retry_ns = 0

    @property
    def connecting(self) -> Iterator[Slot]:
        return (slot for slot in self.slots if slot.state in (CONNECTING, PREPARING))

    def open_some(self, now: int, by_fd: dict[int, Slot]) -> bool:
        """Begin to open connections that are down, if it is time. True if an attempt failed at once.

        A node that is away is probed by one connection at a time, with exponential backoff and jitter.
        """
        if not self.down or now < self._retry_ns:
            return False
        under_way = sum(1 for _ in self.connecting)
        allowed = (_MANY if self.live or not self._failures else 1) - under_way
        failed = False
        for _ in range(min(allowed, len(self.down))):
            failed |= not self._begin(self.down.pop(), now, by_fd)
        return failed

    def advance(self, slot: Slot, by_fd: dict[int, Slot]) -> bool | None:
        """Take the next step of opening. True: ready for requests, False: failed, None: not there yet."""
        assert slot.pgconn is not None
        if slot.state == PREPARING:
            return self._prepared(slot, by_fd)
        step = slot.pgconn.connect_poll()
        if step == pq.PollingStatus.FAILED:
            return self._failed(slot, slot.pgconn.error_message.decode(errors="replace"), by_fd)
        self._watch(slot, by_fd, OUT if step == pq.PollingStatus.WRITING else IN)
        if step != pq.PollingStatus.OK:
            return None
        slot.pgconn.nonblocking = 1
        slot.consume, slot.busy, slot.get = slot.pgconn.consume_input, slot.pgconn.is_busy, slot.pgconn.get_result
        slot.send, slot.flush = slot.pgconn.send_query_prepared, slot.pgconn.flush
        slot.state = PREPARING
        try:
            slot.pgconn.send_prepare(STATEMENT, self._statement, self._types)
        except OperationalError as error:
            return self._failed(slot, str(error), by_fd)
        if slot.flush():
            self.watch_writes(slot, True)
        return None

    def expire(self, now: int, by_fd: dict[int, Slot]) -> bool:
        """Give up on connections that take too long to open. True if there were any."""
        late = [slot for slot in self.connecting if now - slot.since_ns > CONNECT_TIMEOUT_NS]
        for slot in late:
            self._failed(slot, f"no answer within {CONNECT_TIMEOUT_NS / 1e9:g} s", by_fd)
        return bool(late)

    def close(self, slot: Slot, by_fd: dict[int, Slot]) -> None:
        """Close a connection and put its place among those that are down."""
        if slot.state in (IDLE, BUSY):
            self.live -= 1
        self._forget(slot, by_fd)
        if slot.pgconn is not None:
            slot.pgconn.finish()
        if slot.state == IDLE:
            self.idle.remove(slot)
        slot.pgconn = slot.result = None
        slot.fd, slot.state = -1, DOWN
        self.down.append(slot)

    def watch_writes(self, slot: Slot, wanted: bool) -> None:
        """Whether to be told when the socket takes more: only while a request did not fit into its buffer."""
        self._poller.modify(slot.fd, IN | OUT if wanted else IN)

    def _begin(self, slot: Slot, now: int, by_fd: dict[int, Slot]) -> bool:
        slot.since_ns, slot.state = now, CONNECTING
        try:
            slot.pgconn = pq.PGconn.connect_start(self._conninfo)
        except OperationalError as error:
            return self._failed(slot, str(error), by_fd)
        if slot.pgconn.status == pq.ConnStatus.BAD:
            return self._failed(slot, slot.pgconn.error_message.decode(errors="replace"), by_fd)
        slot.pgconn.notice_handler = slot.noticed
        self._watch(slot, by_fd, OUT)
        return True

    def _prepared(self, slot: Slot, by_fd: dict[int, Slot]) -> bool | None:
        try:
            slot.flush()
            slot.consume()
            while not slot.busy():
                result = slot.get()
                if result is None:
                    break
                slot.result = result
            else:
                return None
        except OperationalError as error:
            return self._failed(slot, str(error), by_fd)
        result, slot.result = slot.result, None
        if result is None or result.status != pq.ExecStatus.COMMAND_OK:
            text = result.error_message.decode(errors="replace") if result else "the server closed the connection"
            return self._failed(slot, text, by_fd)
        self.watch_writes(slot, False)
        slot.state = IDLE
        self.idle.append(slot)
        self.live += 1
        self._failures = 0
        return True

    def _failed(self, slot: Slot, problem: str, by_fd: dict[int, Slot]) -> bool:
        self.problem = problem.strip() or CANNOT_CONNECT
        first, longest = _BACKOFF_NS
        pause = min(first << min(self._failures, 10), longest)
        self._failures += 1
        self._retry_ns = slot.since_ns + int(pause * random.uniform(0.5, 1.0))
        self.close(slot, by_fd)
        return False

    def _watch(self, slot: Slot, by_fd: dict[int, Slot], mask: int) -> None:
        """Follow the connection's socket, which libpq may have replaced."""
        assert slot.pgconn is not None
        fd = slot.pgconn.socket
        if fd == slot.fd:
            # A new socket may have the old one's number: it is not registered then.
            with contextlib.suppress(FileNotFoundError):
                self._poller.modify(fd, mask)
                return
        self._forget(slot, by_fd)
        slot.fd = fd
        by_fd[fd] = slot
        self._poller.register(fd, mask)

    def _forget(self, slot: Slot, by_fd: dict[int, Slot]) -> None:
        if by_fd.get(slot.fd) is slot:
            del by_fd[slot.fd]
            # Where libpq has closed the socket itself, epoll has forgotten it already; poll has not.
            with contextlib.suppress(OSError, KeyError):
                self._poller.unregister(slot.fd)


def open_all(pools: Sequence[NodePool], poller: Poller, by_fd: dict[int, Slot]) -> None:
    """Open every connection of every pool. Raises LoadError naming each node that cannot be reached, and why."""
    deadline = time.monotonic_ns() + int(_OPENED_WITHIN_S * 1e9)
    while any(pool.down or pool.live < len(pool.slots) for pool in pools):
        now = time.monotonic_ns()
        for pool in pools:
            pool.open_some(now, by_fd)
        for fd, _ in poller.wait(0.01):
            if fd in by_fd:
                by_fd[fd].pool.advance(by_fd[fd], by_fd)
        for pool in pools:
            pool.expire(now, by_fd)
        refused = [pool for pool in pools if pool.problem]
        if refused or now > deadline:
            named = refused or pools
            raise LoadError("\n".join(map(_refusal, named)), remedy=_remedies(named))


def _refusal(pool: NodePool) -> str:
    why = pool.problem or f"no answer within {_OPENED_WITHIN_S:g} s"
    return f"{pool.name}: connection {pool.live + 1} of {len(pool.slots)} could not be opened: {why}"


def _remedies(pools: Sequence[NodePool]) -> list[Remedy]:
    full = [p for p in pools if "too many clients" in p.problem or "connection slots are reserved" in p.problem]
    if not full:
        return []
    most = max(len(pool.slots) for pool in full) + 20
    return [advice(f"set max_connections to at least {most} there"), advice("use fewer connections")]
