"""What limited a run: named after short rounds in which one thing was changed, not after how busy something was.

After the measured rounds come short ones. In each, one thing is changed or nothing, in alternating order. What raises
throughput, its interval above zero, was the limit. What nothing raises is the CPU of the machine where that is used up,
and unknown elsewhere. A load that was answered in full is its own limit, and on a machine that was shared with other
programs nothing can be told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd

from labkit.analysis.frames.host_cpu import account_of
from labkit.analysis.frames.per_run_cache import once_a_run
from labkit.analysis.frames.recorded import Block, counted, short, short_rounds
from labkit.analysis.frames.rows import each
from labkit.analysis.statistics import compare
from labkit.analysis.words import cores, count, interval, percent
from labkit.checkers import offered
from labkit.run.schema import HostCpu, Intervention, LoadBlock
from labkit.run.store import Run

UNKNOWN = "unknown"
LIMITS: Mapping[Intervention, str] = {
    "connections doubled": "pool",
    "users halved": "users",
    "one load generator more": "client",
    "CPU limit doubled": "servers",
}
"""What was the limit if a change raised throughput."""
WORDS = {
    "offered": "the load that was offered",
    "pool": "the number of connections",
    "users": "contention between its users",
    "client": "the load generator",
    "servers": "the servers' CPU limit",
    "host": "the CPU of the machine",
    UNKNOWN: "unknown",
}
_CHANGED = {
    "connections doubled": "twice the connections",
    "users halved": "half the users",
    "one load generator more": "one load generator more",
    "CPU limit doubled": "twice the CPU limit",
}
_ORDER = list(get_args(Intervention))
_COLUMNS = ["workload", "arm", "intervention", "before_per_s", "after_per_s", "relative", "low", "high", "n"]


@once_a_run
def interventions(run: Run) -> pd.DataFrame:
    """One row per workload, arm and thing that was changed in its short rounds; empty if nothing was.

    workload, arm, intervention: str. before_per_s, after_per_s: float, right answers a second with nothing and with
    that one thing changed. relative, low, high: float, shares, the change and its 95 % interval. n: int, pairs of
    rounds.
    """
    rows = []
    for (workload, arm), blocks in _by_cell(short_rounds(run)).items():
        by_change: dict[str, dict[int, Block]] = {}
        for block in blocks:
            by_change.setdefault(str(block.facts.intervention), {})[block.facts.round] = block
        unchanged = by_change.pop("nothing", {})
        for change in sorted(by_change, key=_ORDER.index):
            changed = by_change[change]
            both = [number for number in unchanged if number in changed]
            if not both:
                continue
            sides = [[side[number] for number in both] for side in (unchanged, changed)]
            (found,) = compare.paired(sides[0], sides[1], ["requests_per_s"])
            rows.append(
                {"workload": workload, "arm": arm, "intervention": change}
                | {"before_per_s": found["baseline"], "after_per_s": found["other"], "relative": found["relative"]}
                | {"low": found["relative_low"], "high": found["relative_high"], "n": found["n"]}
            )
    return pd.DataFrame(rows, columns=_COLUMNS)


def bottleneck(run: Run) -> pd.DataFrame:
    """One row per workload and arm: what limited its throughput, and how that is known.

    workload, arm: str. limit: str, one of `WORDS`. reason: str, what was seen.
    """
    tried = interventions(run)
    tried_in = _by_cell(short(run))
    rows = []
    for (workload, arm), blocks in _by_cell(counted(run)).items():
        mine = tried_in.get((workload, arm), [])
        changes = list(each(tried[(tried["workload"] == workload) & (tried["arm"] == arm)]))
        limit, reason = _limit(run, _alike(blocks, mine), mine, changes)
        rows.append({"workload": workload, "arm": arm, "limit": limit, "reason": reason})
    return pd.DataFrame(rows, columns=["workload", "arm", "limit", "reason"])


def _by_cell(blocks: Sequence[Any]) -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for block in blocks:
        facts = block.facts if isinstance(block, Block) else block
        found.setdefault((facts.workload, facts.arm), []).append(block)
    return found


def _alike(measured: Sequence[LoadBlock], short: Sequence[LoadBlock]) -> list[LoadBlock]:
    """The measured blocks that were asked the same as the short rounds without a change; all if there is none."""
    unchanged = [block for block in short if block.intervention == "nothing"]
    same = [block for block in measured if any(_asked(block, other) for other in unchanged)]
    return same or list(measured)


def _asked(one: LoadBlock, other: LoadBlock) -> bool:
    asked = np.array([(block.vus or 0.0, block.offered_per_s or 0.0) for block in (one, other)])
    return bool(np.isclose(asked[0], asked[1], rtol=0.01).all())


def _limit(
    run: Run, measured: Sequence[LoadBlock], short: Sequence[LoadBlock], changes: Sequence[Any]
) -> tuple[str, str]:
    if reason := offered.limit(measured):
        return "offered", reason
    account = account_of(run, measured)
    for blocks, when in ((measured, "while it was measured"), (short, "in the short rounds afterwards")):
        shared = account_of(run, blocks)
        if shared is not None and shared.disturbed:
            return UNKNOWN, f"other programs used {cores(shared.taken)} of {count(shared.cores, 'core')} {when}"
    if not short:
        return UNKNOWN, _not_tried(run)
    known = [row for row in changes if not np.isnan(row.low)]
    if raised := sorted((row for row in known if row.low > 0), key=lambda row: -row.low):
        busy = "" if account is None else f", with {_busy(account)} busy"
        return LIMITS[raised[0].intervention], f"{_all(map(_raised, raised))} raised throughput{busy}"
    said = ", ".join(map(_change, changes))
    if len(known) < len(changes) or not changes:
        return UNKNOWN, f"too few short rounds for an interval ({said or 'nothing could be changed'})"
    nothing = f"nothing that was tried raised throughput: {said}"
    if account is None:
        return UNKNOWN, f"who used this machine's CPU is not known, and {nothing}"
    if account.used_up:
        return "host", f"{_busy(account)} were busy, and {nothing}"
    elsewhere = "" if account.servers else ", the servers' CPU was not measured"
    return UNKNOWN, f"only {_busy(account)} were busy{elsewhere}; {nothing}"


def _not_tried(run: Run) -> str:
    if "interventions_s" not in run.parameters:
        return "nothing was changed to find out"
    if not run.parameter("interventions_s", float):
        return "nothing was changed to find out, as `interventions_s` was 0"
    return "nothing was changed here to find out; raise `interventions_s`"


def _raised(row: Any) -> str:
    by = f"{percent(row.relative)}, 95 % interval {interval(row.low, row.high)}, {count(row.n, 'short round')}"
    return f"{_CHANGED[row.intervention]} ({by})"


def _all(words: Iterable[str]) -> str:
    *some, last = words
    return f"{', '.join(some)} and {last}" if some else last


def _change(row: Any) -> str:
    return f"{_CHANGED[row.intervention]} {percent(row.relative)} ({interval(row.low, row.high)})"


def _busy(account: HostCpu) -> str:
    """How much of the machine was used, and by whom."""
    parts = {
        "servers": sum((account.servers or {}).values()) if account.servers else None,
        "load generator": account.generator,
        "lab": account.lab,
        "other programs": account.others,
        "stolen": account.stolen,
    }
    said = ", ".join(f"{name} {cores(value)}" for name, value in parts.items() if value and value >= 0.005)
    return f"{cores(account.cores - account.idle)} of {count(account.cores, 'core')} ({said})"
