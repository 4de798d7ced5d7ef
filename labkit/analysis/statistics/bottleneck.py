"""What limited a run: named after short rounds in which one thing was changed, not after how busy something was.

After the measured rounds come short ones. In each, one thing is changed or nothing, in alternating order. What raises
throughput, its interval above zero, was the limit. That nothing raises it is told where every interval ends below a
gain of 10 %: then the CPU of the machine was the limit, if it was used up. An interval that reaches further shows
neither, and then the limit is unknown, as it is where CPU was left. A load that was answered in full is its own limit,
and on a machine that was shared with other programs nothing can be told.

An arm that differs in nothing but more connections is such a change too, measured in the run's own rounds. Its interval
is the one that the comparison of arms shows, so that both say the same of it. Where it has exactly twice as many, it
stands for the short rounds with twice the connections: of one change the longer rounds are heard, whatever they say.

10 %, because that is how much the rest of the verdict leaves open as well: a machine with a tenth of its CPU left
counts as used up, and that tenth could answer a ninth more.

The intervals of all changes hold at once, see `intervals.ratios_to_first`. With three changes in four rounds, none of
which helps, a limit is named wrongly in 2 of 100 cases (7 if each change had an interval of 95 % by itself). That
nothing helps is said of a change that truly gives 20 % in fewer than 1 of 1,000, and in 3 of 1,000 at most with three
rounds and uneven noise. What that costs: a change that gives 20 % is found in 99 of 100 where short rounds scatter by
3 %, in 88 by 6 % and in 41 by 10 %; that nothing gives 10 % is told in 81, 13 and 3.
`tests/unit/test_bottleneck_odds.py` measures it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from labkit.analysis.frames.host_cpu import account_of
from labkit.analysis.frames.per_run_cache import once_a_run
from labkit.analysis.frames.recorded import Block, counted, short, short_rounds
from labkit.analysis.frames.rows import each, matching
from labkit.analysis.statistics import compare, intervals
from labkit.analysis.words import cores, count, interval, number, percent
from labkit.checkers import offered
from labkit.checkers.comparisons import CONNECTIONS
from labkit.run.schema import SHARE_THAT_MATTERS, HostCpu, Intervention, LoadBlock
from labkit.run.store import Run

UNKNOWN = "unknown"
GAIN_THAT_MATTERS = SHARE_THAT_MATTERS
"""A share of throughput: where a change may have gained as much, it is not told that it did not help."""
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
_ARM_COLUMNS = ["workload", "arm", "other", "before", "after", *_COLUMNS[3:]]


@once_a_run
def interventions(run: Run) -> pd.DataFrame:
    """One row per workload, arm and thing that was changed in its short rounds; empty if nothing was.

    workload, arm, intervention: str. before_per_s, after_per_s: float, right answers a second with nothing and with
    that one thing changed. relative, low, high: float, shares, the change with its interval: those of a workload and
    arm hold at once in 95 % of the cases, see `intervals.ratios_to_first`; NaN for fewer than three rounds, or where a
    block answered nothing. n: int, rounds that have both.
    """
    rows = []
    for (workload, arm), blocks in _by_cell(short_rounds(run)).items():
        by_change: dict[str, dict[int, Block]] = {}
        for block in blocks:
            by_change.setdefault(str(block.facts.intervention), {})[block.facts.round] = block
        names = sorted(by_change, key=_ORDER.index)
        if names[0] != "nothing" or len(names) < 2:
            continue
        numbers = sorted(set().union(*by_change.values()))
        rates = [[_per_s(by_change[name].get(number)) for name in names] for number in numbers]
        for change, *limits in zip(names[1:], *intervals.ratios_to_first(rates), strict=True):
            unchanged, changed = by_change["nothing"], by_change[change]
            relative, low, high = (float(limit) - 1 for limit in limits)
            rows.append(
                {"workload": workload, "arm": arm, "intervention": change}
                | {"before_per_s": _per_s(*unchanged.values()), "after_per_s": _per_s(*changed.values())}
                | {"relative": relative, "low": low, "high": high, "n": len(unchanged.keys() & changed.keys())}
            )
    return pd.DataFrame(rows, columns=_COLUMNS)


@once_a_run
def more_connections(run: Run) -> pd.DataFrame:
    """One row per workload and pair of arms of which one has more connections, and nothing else differs.

    workload, arm, other: str, `other` has more. before, after: int, connections of both. The rest as in
    `interventions`, of the measured rounds: n: int, pairs of them, and the interval of `compare.arms`. None for a
    sweep, whose rounds have a block for each number of users.
    """
    blocks = counted(run)
    in_rounds = len({(block.workload, block.arm, block.round) for block in blocks}) == len(blocks)
    pools = {(block.workload, block.arm): sum(block.connections.values()) for block in blocks}
    alone = {
        (pair.against, pair.arm)
        for pair in compare.comparisons(run)
        if in_rounds and [what.thing for what in pair.differs] == [CONNECTIONS]
    }
    rows = []
    for row in each(compare.arms(run, ["requests_per_s"])) if alone else ():
        before, after = (pools.get((row.workload, arm), 0) for arm in (row.against, row.arm))
        if (row.against, row.arm) in alone and before < after:
            rows.append(
                {"workload": row.workload, "arm": row.against, "other": row.arm, "before": before, "after": after}
                | {"before_per_s": row.baseline, "after_per_s": row.other, "relative": row.relative}
                | {"low": row.relative_low, "high": row.relative_high, "n": row.n}
            )
    return pd.DataFrame(rows, columns=_ARM_COLUMNS)


def _per_s(*blocks: Block | None) -> float:
    """Right answers a second; NaN for a block that is missing."""
    known = [block for block in blocks if block is not None]
    return sum(block.right for block in known) / sum(block.measured_s for block in known) if known else np.nan


def bottleneck(run: Run) -> pd.DataFrame:
    """One row per workload and arm: what limited its throughput, and how that is known.

    workload, arm: str. limit: str, one of `WORDS`. reason: str, what was seen.
    """
    tried, in_arms = interventions(run), more_connections(run)
    tried_in, measured_in = _by_cell(short(run)), _by_cell(counted(run))
    rows = []
    for (workload, arm), blocks in measured_in.items():
        mine = tried_in.get((workload, arm), [])
        wider = list(each(matching(in_arms.dropna(subset=["low"]), workload=workload, arm=arm)))
        shown = {
            "while it was measured": _alike(blocks, mine),
            "while more connections were measured": [b for row in wider for b in measured_in[workload, row.other]],
            "in the short rounds afterwards": mine,
        }
        changes = _changes(list(each(matching(tried, workload=workload, arm=arm))), wider)
        limit, reason = _limit(run, shown, bool(mine), changes)
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


@dataclass(frozen=True)
class _Change:
    """One thing that was changed: in words, what it did to throughput (shares), in how many rounds, of which kind."""

    limit: str
    words: str
    relative: float
    low: float
    high: float
    n: int
    kind: str = "short"

    def __str__(self) -> str:
        rounds = "" if self.kind == "short" else f", {self.rounds}"
        known = "" if np.isnan(self.low) else f" {percent(self.relative)} ({interval(self.low, self.high)}{rounds})"
        return f"{self.words}{known}"

    @property
    def rounds(self) -> str:
        return count(self.n, f"{self.kind} round")

    @property
    def raised(self) -> str:
        """In words, of a change that raised throughput."""
        limits = f"95 % interval {interval(self.low, self.high)}, {self.rounds}"
        return f"{self.words} ({percent(self.relative)}, {limits})"


def _changes(short: Sequence[Any], wider: Sequence[Any]) -> list[_Change]:
    """Those of the short rounds and those of arms with more connections; twice as many are told of once."""
    found = [
        _Change(LIMITS["connections doubled"], _instead(row), row.relative, row.low, row.high, row.n, "measured")
        for row in wider
    ]
    measured = any(row.after == 2 * row.before for row in wider)
    return found + [
        _Change(LIMITS[row.intervention], _CHANGED[row.intervention], row.relative, row.low, row.high, row.n)
        for row in short
        if not (measured and row.intervention == "connections doubled")
    ]


def _instead(row: Any) -> str:
    return f"{count(row.after, 'connection')} instead of {number(row.before)}"


def _limit(
    run: Run, shown: Mapping[str, Sequence[LoadBlock]], tried: bool, changes: Sequence[_Change]
) -> tuple[str, str]:
    """`shown`: the blocks that the verdict rests on, and when they were, those that it is about first."""
    measured = next(iter(shown.values()))
    if reason := offered.limit(measured):
        return "offered", reason
    account = account_of(run, measured)
    for when, blocks in shown.items():
        shared = account_of(run, blocks)
        if shared is not None and shared.disturbed:
            return UNKNOWN, f"other programs used {cores(shared.taken)} of {count(shared.cores, 'core')} {when}"
    if raised := sorted((each for each in changes if shows(each.low, each.high) == "gain"), key=lambda each: -each.low):
        busy = "" if account is None else f", with {_busy(account)} busy"
        return raised[0].limit, f"{_all(each.raised for each in raised)} raised throughput{busy}"
    if not tried:
        return UNKNOWN, _not_tried(run, "nothing but connections" if changes else "nothing")
    if not changes:
        return UNKNOWN, "nothing could be changed, or what was is not to be compared with anything"
    if unsure := [each for each in changes if np.isnan(each.low)]:
        few = [each for each in unsure if each.n < intervals.FEWEST]
        none = "in some short round nothing was answered, or every one gave the same"
        why = "too few short rounds for an interval" if few else none
        return UNKNOWN, f"{why} ({', '.join(map(str, few or unsure))})"
    gain = f"{100 * GAIN_THAT_MATTERS:.0f} %"
    open_question = any(shows(each.low, each.high) == "nothing" for each in changes)
    said = (
        f"nothing that was tried could be shown to raise throughput, nor that it gains less than {gain}"
        if open_question
        else f"nothing that was tried gains {gain}"
    )
    said += f": {', '.join(map(str, changes))}; 95 % intervals"
    if short := [each for each in changes if each.kind == "short"]:
        said += f", {min(short, key=lambda each: each.n).rounds}"
    if account is None:
        return UNKNOWN, f"who used this machine's CPU is not known, and {said}"
    if not account.used_up:
        elsewhere = "" if account.servers else ", the servers' CPU was not measured"
        return UNKNOWN, f"only {_busy(account)} were busy{elsewhere}; {said}"
    return UNKNOWN if open_question else "host", f"{_busy(account)} were busy, and {said}"


def shows(low: float, high: float) -> Literal["gain", "no gain", "nothing"]:
    """What the interval of a change shows: that it raised throughput; that it gained less than matters; neither."""
    return "gain" if low > 0 else "no gain" if high < GAIN_THAT_MATTERS else "nothing"


def _not_tried(run: Run, what: str) -> str:
    if "interventions_s" not in run.parameters:
        return f"{what} was changed to find out"
    if not run.parameter("interventions_s", float):
        return f"{what} was changed to find out, as `interventions_s` was 0"
    if run.state != "complete" and not short(run):
        return "the run did not come to the short rounds that would have shown it"
    return f"{what} was changed here to find out; raise `interventions_s`"


def _all(words: Iterable[str]) -> str:
    *some, last = words
    return f"{', '.join(some)} and {last}" if some else last


def _busy(account: HostCpu) -> str:
    """How much of the machine was used, and by whom."""
    parts = {
        "servers": sum((account.servers or {}).values()) if account.servers else None,
        "load generator": account.generator,
        "lab": account.lab,
        "kernel threads": account.kernel,
        "other programs": account.others,
        "stolen": account.stolen,
    }
    said = ", ".join(f"{name} {cores(value)}" for name, value in parts.items() if value and value >= 0.005)
    return f"{cores(account.cores - account.idle)} of {count(account.cores, 'core')} ({said})"
