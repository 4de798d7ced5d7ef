"""Whether a load was answered in full, so that what was asked for limited the throughput and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labkit.checkers.host_cpu import pooled
from labkit.run.schema import LoadBlock

_LATE = 0.99  # of the rate that was asked for: below it, requests pile up
_THINKING = 0.9  # of the users' time


def met(answered: float, offered_per_s: float, seconds: float) -> bool:
    """Whether answers kept up with a rate that was asked for."""
    # A Poisson count strays by its square root: five of them are no chance.
    expected = offered_per_s * seconds
    return answered >= _LATE * expected - 5 * math.sqrt(expected)


def limit(blocks: Sequence[LoadBlock]) -> str | None:
    """Why nothing but the load that was offered limited these blocks of one load, in words; None if something else did.

    Requests at a rate: answers kept up with them as they came, not only with their mean rate, from which few requests
    stray far. Users who think: they thought for more than 90 % of their time while
    the machine had CPU left, so that answers in no time at all would raise throughput by a ninth at most.
    """
    seconds = sum(block.measured_s for block in blocks)
    answered = sum(block.measured for block in blocks)
    rates = [block.offered_per_s for block in blocks if block.offered_per_s is not None]
    if len(rates) == len(blocks):
        asked = sum(rates) / len(rates)
        kept_up = met(answered, asked, seconds) and _as_they_came(blocks)
        if any(block.dropped for block in blocks) or not kept_up:
            return None
        return f"{asked:,.0f} requests/s were asked for, {answered / seconds:,.0f} were answered"
    users = [block.vus for block in blocks if block.vus is not None]
    think_s = min(block.think_s for block in blocks)
    if len(users) < len(blocks) or not think_s:
        return None
    most = sum(users) / len(users) / think_s
    accounts = [(block.host_cpu, block.measured_s) for block in blocks if block.host_cpu is not None]
    if answered / seconds < _THINKING * most or (accounts and pooled(accounts).used_up):
        return None
    return (
        f"users who think {think_s:g} s ask for {most:,.0f} requests/s at most, were each answered at once; "
        f"{answered / seconds:,.0f}/s were"
    )


def _as_they_came(blocks: Sequence[LoadBlock]) -> bool:
    """Whether as many were answered in the measured parts as came in them, within 1 % and two standard deviations of
    how many of a block's requests fall into a part of it, and never less than 90 %."""
    came = sum(block.requests for block in blocks)
    share = sum(block.measured_s for block in blocks) / sum((block.to_ns - block.from_ns) / 1e9 for block in blocks)
    expected, chance = came * share, math.sqrt(came * share * (1 - share))
    return sum(block.measured for block in blocks) >= max(_LATE * expected - 2 * chance, 0.9 * expected)
