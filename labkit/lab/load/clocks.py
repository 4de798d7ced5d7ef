"""How far the clocks of other machines are from this one's, with a bound on the error.

A monotonic clock counts from some moment of its machine's own. A worker's answer with its clock's reading must have
been read between the question and the answer, so the offset lies in an interval as wide as the round trip. Of many
exchanges the narrowest interval counts (D. L. Mills, "Internet Time Synchronization: the Network Time Protocol",
IEEE Transactions on Communications 39, 1991).
"""

from __future__ import annotations

import concurrent.futures
import platform
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LoadError
from labkit.remedies import advice

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ROUNDS = 12
_HOLD_S = 0.02
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Clock:
    """A machine's monotonic clock: it is ahead of this machine's by offset_ns, give or take bound_ns."""

    offset_ns: int
    bound_ns: int


def host_id() -> str:
    """What tells machines with different monotonic clocks apart: the kernel's boot, shared by its containers."""
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else platform.node()


def read_clock(nonce: int) -> tuple[str, int]:
    """This machine and its monotonic clock. `nonce` keeps an executor from answering out of a cache."""
    del nonce
    time.sleep(_HOLD_S)  # so that no worker takes the questions of two
    return host_id(), time.monotonic_ns()


def exchange(executor: Executor, workers: int, read: Callable[[int], tuple[str, int]] = read_clock) -> dict[str, Clock]:
    """The clocks of the machines behind an executor, by `host_id`. Raises LoadError if nothing answers in time."""
    found: dict[str, Clock] = {}
    here = host_id()
    for _ in range(_ROUNDS):
        asked = [_Question(executor, read) for _ in range(workers)]
        if concurrent.futures.wait([question.future for question in asked], _TIMEOUT_S).not_done:
            reason = f"of {workers} workers not all answered within {_TIMEOUT_S:g} s"
            raise LoadError(reason, remedy=advice("see whether there are as many"))
        for question in asked:
            host, clock = question.answer()
            if host == here:
                found[host] = Clock(0, 0)  # the very same clock
            elif host not in found or clock.bound_ns < found[host].bound_ns:
                found[host] = clock
    return found


class _Question:
    """One exchange with a worker."""

    def __init__(self, executor: Executor, read: Callable[[int], tuple[str, int]]) -> None:
        self._answered_ns: list[int] = []
        self._asked_ns = time.monotonic_ns()
        self.future = executor.submit(read, self._asked_ns)
        self.future.add_done_callback(lambda _: self._answered_ns.append(time.monotonic_ns()))

    def answer(self) -> tuple[str, Clock]:
        host, reading = self.future.result()
        # The callback may not have run yet; a later moment only widens the interval.
        latest = self._answered_ns[0] if self._answered_ns else time.monotonic_ns()
        earliest = self._asked_ns + int(_HOLD_S * 1e9)
        return host, Clock(reading - (earliest + latest) // 2, (latest - earliest) // 2 + 1)
