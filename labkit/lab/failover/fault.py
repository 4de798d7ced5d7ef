"""How a primary is lost, as a value: what is done to it, and who receives nothing before. Imports no server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labkit.lab.cluster.powers import Isolatable, Killable

Injection = Literal["kill", "postmaster", "pause", "isolate", "switchover"]
NEEDS: dict[str, type] = {"kill": Killable, "postmaster": Killable, "pause": Killable, "isolate": Isolatable}
"""What is done to a primary -> the power that its node needs. A switchover is a clean stop, which every node can."""


@dataclass(frozen=True)
class Fault:
    """`does` is done to the primary, after no replica, `one` or `all` of them have received nothing for some time."""

    does: Injection
    behind: Literal["", "one", "all"] = ""

    def __str__(self) -> str:
        return f"{self.does}-{self.behind}-behind" if self.behind else self.does


FAULTS = (
    Fault("kill"),
    Fault("postmaster"),
    Fault("pause"),
    Fault("isolate"),
    Fault("switchover"),
    Fault("kill", "one"),
    Fault("kill", "all"),
)
