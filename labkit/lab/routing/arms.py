"""Arms, as values: which nodes serve reads. Imports no server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Arm:
    """Which nodes serve reads, in turn: the primary or not, and so many replicas; `all` of them, however many."""

    name: str
    primary: bool
    replicas: int | Literal["all"]

    def __str__(self) -> str:
        return self.name

    @property
    def least_replicas(self) -> int:
        """How many replicas there must be. All of them, beside the primary, may be none."""
        if self.replicas == "all":
            return 0 if self.primary else 1
        return self.replicas


PRIMARY_ONLY = Arm("primary-only", primary=True, replicas=0)
REPLICAS = Arm("replicas-round-robin", primary=False, replicas="all")
ALL_NODES = Arm("all-nodes-round-robin", primary=True, replicas="all")


def some_replicas(count: int) -> Arm:
    """The first so many replicas."""
    return Arm(f"{REPLICAS}-{count}", primary=False, replicas=count)
