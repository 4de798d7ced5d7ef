"""Waiting for sockets: epoll where there is one (Linux), else poll (macOS), behind the same four calls."""

from __future__ import annotations

import select
from typing import Protocol

IN, OUT = 1, 4
"""The masks of both epoll and poll (POSIX leaves them open; Linux, macOS and the BSDs agree)."""


class Poller(Protocol):
    def register(self, fd: int, mask: int) -> None: ...

    def modify(self, fd: int, mask: int) -> None: ...

    def unregister(self, fd: int) -> None: ...

    def wait(self, timeout_s: float) -> list[tuple[int, int]]:
        """Ready (fd, mask) pairs; empty after `timeout_s`."""
        ...

    def close(self) -> None: ...


class Epoll:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.register, self.modify, self.unregister = self._epoll.register, self._epoll.modify, self._epoll.unregister
        self.close = self._epoll.close

    def wait(self, timeout_s: float) -> list[tuple[int, int]]:
        if 0 < timeout_s < 0.002:
            # epoll_wait counts in whole milliseconds; select on the epoll itself wakes on the microsecond.
            select.select([self._epoll], (), (), timeout_s)
            timeout_s = 0
        return self._epoll.poll(timeout_s)


class Poll:
    def __init__(self) -> None:
        self._poll = select.poll()
        self.register, self.modify, self.unregister = self._poll.register, self._poll.modify, self._poll.unregister

    def wait(self, timeout_s: float) -> list[tuple[int, int]]:
        return self._poll.poll(timeout_s * 1000)

    def close(self) -> None:
        """Nothing to close: poll has no descriptor of its own."""


def poller() -> Poller:
    """The best that this system has."""
    return Epoll() if hasattr(select, "epoll") else Poll()
