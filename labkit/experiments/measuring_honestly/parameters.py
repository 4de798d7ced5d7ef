"""Parameters of measuring-honestly."""

from __future__ import annotations

from collections.abc import Mapping

from labkit.experiments.parameters import param
from labkit.experiments.shared import OneWorkload, Users
from labkit.experiments.values import Several
from labkit.lab.cluster.powers import Killable


class MeasuringHonestly(OneWorkload):
    """What a closed loop does not see, and how much a comparison can be trusted."""

    experiment = "measuring-honestly"

    users: int = param(100_000, "rows of the users table", low=100, high=100_000_000)
    vus: int = param(
        16,
        "users of the closed loop; they think for so long that they ask about `rate` times a second",
        low=1,
        high=100_000,
    )
    rate: float = param(1500.0, "requests per second of the open workload", low=1, high=1e6)
    block_s: float = param(5.0, "measured seconds of the blocks in which the server stalls", low=2, high=600)
    stall_s: float = param(0.5, "how long the server stalls in the middle of such a block", low=0.05, high=60)
    little_levels: Several[Users] = param("1,4,16,64", "numbers of users for which Little's law is checked")
    comparisons: int = param(40, "comparisons of the server with itself", low=2, high=1000)
    pairs: int = param(5, "paired rounds of each of them", low=3, high=100)
    pair_block_s: float = param(0.25, "measured seconds of each side of such a pair", low=0.1, high=60)

    def conflicts(self) -> list[str]:
        found = super().conflicts()
        if self.stall_s > self.block_s / 2:
            found.append(f"stall_s: {self.stall_s:g} s is more than half of a block; raise block_s or lower stall_s")
        if self.timeout_s <= self.stall_s:
            found.append(
                f"timeout_s: {self.timeout_s:g} s would end the requests that stand still for {self.stall_s:g} s"
            )
        return found

    def needs(self) -> Mapping[type, str]:
        return {Killable: "stall_s: a stall"}
