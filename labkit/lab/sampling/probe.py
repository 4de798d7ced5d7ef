"""What the sampler asks of a probe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

Reading = tuple[str, str, float]
"""Node, metric, value."""


class Dated(list[Reading]):
    """Readings that were true some time ago: at `at_ns`, on the monotonic clock."""

    def __init__(self, readings: Iterable[Reading], at_ns: int) -> None:
        super().__init__(readings)
        self.at_ns = at_ns


class Probe(Protocol):
    """One source of readings. `node` and `name` identify it in events."""

    node: str
    name: str

    @property
    def not_measured(self) -> Mapping[str, str]:
        """Metric name -> why this probe cannot read it."""
        ...

    async def read(self) -> list[Reading]:
        """Read once.

        Raises ClusterError, psycopg.Error, psutil.Error or OSError while there is nothing to be read; a later
        call tries again, reconnecting if need be.
        """
        ...

    def close(self) -> None:
        """Let go of everything at once, even in the middle of a read."""
        ...
