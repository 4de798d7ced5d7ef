"""Waiting: every wait polls a condition, has a deadline, and says on failure what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from labkit.errors import WaitTimeout
from labkit.lab.cluster.powers import NodeControl

T = TypeVar("T")


class Waited(Protocol):
    """What a wait needs of a node: its name, and its log for the message of a timeout."""

    @property
    def name(self) -> str: ...

    @property
    def control(self) -> NodeControl: ...


def wait_until(
    condition: Callable[[], T],
    deadline_s: float,
    what: str,
    node: Waited | None = None,
    interval_s: float = 0.01,
) -> T:
    """Poll until `condition` returns something true, and return that.

    Raises WaitTimeout after `deadline_s`, saying what was waited for, on which node and how long, with the tail of
    that node's log.
    """
    started = time.monotonic()
    while True:
        if result := condition():
            return result
        waited_s = time.monotonic() - started
        if waited_s >= deadline_s:
            raise WaitTimeout(
                f"timed out after {waited_s:.1f} s waiting for {what}",
                node=node.name if node else None,
                log_tail=node.control.log_tail() if node else "",
            )
        time.sleep(min(interval_s, max(0.0, deadline_s - waited_s)))
