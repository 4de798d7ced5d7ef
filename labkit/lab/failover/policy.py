"""What a failover may do. Pure: parameters and the command line have their defaults from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from labkit.units import MIB


@dataclass(frozen=True)
class Policy:
    """What a failover may do.

    Attributes:
        max_lag_bytes: a replica further behind the primary's last known position is not promoted.
        accept_data_loss: promote although committed rows may be lost. What cannot be promoted at all stays refused.
        priorities: node -> priority, as the managers have it: higher is preferred among equals, 0 never.
        hold_writes: the new primary acknowledges nothing until a replica follows it, if the old one waited for one.
            Without it writes go on sooner, and for that moment are on one server only.
        deadline_s: of each step.
    """

    max_lag_bytes: int = 16 * MIB
    accept_data_loss: bool = False
    priorities: Mapping[str, int] = field(default_factory=dict)
    hold_writes: bool = True
    deadline_s: float = 30.0
