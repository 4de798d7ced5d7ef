"""What a run of `durability-matrix` says: what each mode and level lost, how sure that is, and what it cost."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from labkit.analysis import frames
from labkit.analysis.frames.rows import each
from labkit.analysis.frames.trials import trials
from labkit.analysis.statistics.intervals import share_at_most
from labkit.analysis.words import UNKNOWN, Sentences, Words, not_valid, number, percent
from labkit.names import APPEND_ROWS
from labkit.percentiles import percentile
from labkit.replication import Replication
from labkit.run.store import Run
from labkit.units import amount, count

_TAIL = 30
"""Of fewer trials a 99th percentile is not told: it would lie between the two longest."""


def cells(run: Run) -> pd.DataFrame:
    """One row per mode, level and fault: trials, judged (those with a verdict), losing (those of them that lost a row),
    lost_p50, lost_min and lost_max (rows, over the losing trials), bound (95 % upper bound of the rate of losing
    trials: exact, near 3/n where none lost), rto_p50_ms, rto_p99_ms (NaN with fewer than 30 trials), rto_max_ms,
    commit_p50_ms, rate_per_s, acknowledged (rows of the judged)."""
    rows = []
    for (mode, level, fault), group in trials(run).groupby(["mode", "level", "fault"], sort=False):
        judged = group[group["verdict"] != "unknown"]
        losing = judged[judged["lost"] > 0]
        rto = group["rto_ms"].dropna().astype(float)
        rows.append(
            {
                "mode": mode,
                "level": level,
                "fault": fault,
                "trials": len(group),
                "judged": len(judged),
                "losing": len(losing),
                "lost_p50": float(losing["lost"].median()) if len(losing) else 0.0,
                "lost_min": int(losing["lost"].min()) if len(losing) else 0,
                "lost_max": int(losing["lost"].max()) if len(losing) else 0,
                "bound": share_at_most(len(losing), len(judged)),
                "unknown": len(group) - len(judged),
                "rto_p50_ms": percentile(rto, 50),
                "rto_p99_ms": percentile(rto, 99) if len(rto) >= _TAIL else np.nan,
                "rto_max_ms": float(rto.max()) if len(rto) else np.nan,
                "commit_p50_ms": float(group["commit_p50_ms"].median()),
                "rate_per_s": float(group["rate_per_s"].median()),
                "acknowledged": int((judged["kept"] + judged["lost"]).sum()),
            }
        )
    return pd.DataFrame(rows)


def table(run: Run) -> pd.DataFrame:
    """`cells` to read."""
    rows = {}
    for row in each(cells(run)):
        rows[f"{row.mode}/{row.level}", row.fault] = {
            "trials": f"{row.trials}",
            "that lost": f"{row.losing}" if row.judged else UNKNOWN,
            "rate at most": percent(row.bound, signed=False),
            "rows lost, median": amount(row.lost_p50) if row.judged else UNKNOWN,
            "most": f"{row.lost_max:,}" if row.judged else UNKNOWN,
            "of rows": f"{row.acknowledged:,}" if row.judged else UNKNOWN,
            "RTO p50, ms": number(row.rto_p50_ms),
            "longest, ms": number(row.rto_max_ms),
            "commit p50, ms": number(row.commit_p50_ms),
        }
    return Words(pd.DataFrame.from_dict(rows, orient="index"))


def headline(run: Run) -> pd.DataFrame:
    """`cells` with the columns that every experiment's headline has: workload, arm, requests_per_s, p99_ms."""
    found = cells(run)
    p99 = trials(run).groupby(["mode", "level", "fault"], sort=False)["commit_p99_ms"].median().to_numpy(dtype=float)
    found.insert(0, "workload", APPEND_ROWS)
    found.insert(1, "arm", found["mode"] + "/" + found["level"] + " " + found["fault"])
    return found.assign(requests_per_s=found["rate_per_s"], p99_ms=p99)


def verdicts(run: Run) -> Sentences:
    """What the matrix shows, in sentences."""
    found, every = lead(run), cells(run)
    for row in each(every):
        if row.losing:
            found.append(
                f"{row.mode}/{row.level} lost acknowledged rows in {row.losing} of {count(row.judged, 'trial')} of "
                f"{row.fault}: {amount(row.lost_p50)} in the median of these, {amount(row.lost_max)} at most."
            )
    safe = [row for row in each(every) if row.judged and not row.losing]
    if safe:
        weakest = min(safe, key=_tried)
        found.append(
            f"In {len(safe)} of {count(len(every), 'cell')} no trial lost anything; with "
            f"{count(weakest.judged, 'trial')} of one, a rate of losing trials of up to "
            f"{percent(weakest.bound, signed=False)} would still look like that."
        )
    quiet, disturbed = len(_undisturbed(run)), len(frames.disturbed_blocks(run))
    if quiet and disturbed:
        found.append(f"Times are told of the {count(quiet, 'trial')} that nothing disturbed.")
    found += [outage for fault in dict.fromkeys(every["fault"]) for outage in _outages(run, str(fault))]
    held = "hold_writes" in run.parameters and run.parameter("hold_writes", bool)
    if held and len(set(_waits(every))) > 1:
        found.append(
            "Where commits waited for a replica, the new primary also acknowledged none until one followed it "
            "(`hold_writes`): two things differ between these outages and the others."
        )
    took_s = _undisturbed(run)["took_s"].dropna()
    if len(took_s):
        found.append(
            f"From its new cluster to its verdict a trial took {number(took_s.median())} s in the median of "
            f"{count(len(took_s), 'trial')}, {number(took_s.max())} s at most."
        )
    weaker = every[(every["level"] == "remote_write") & _waits(every) & (every["judged"] > 0)]
    looks_safe = len(weaker) and not weaker["losing"].any()
    seen = ": remote_write lost nothing here, and does not promise that" if looks_safe else ""
    found.append(f"Killing processes cannot show what an operating system's crash would lose{seen}.")
    return Sentences([*found, *not_valid(validity(run))])


def _waits(rows: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Of each row whether its commits waited for a replica."""
    return np.array([Replication.parse(row.mode, row.level).promises > 0 for row in each(rows)], dtype=bool)


def _outages(run: Run, fault: str) -> list[str]:
    """The outages of a fault's trials that nothing disturbed: where commits waited for a replica, and where not."""
    of_fault = _undisturbed(run).query("fault == @fault and rto_ms.notna()")
    if of_fault.empty and trials(run).query("fault == @fault")["rto_ms"].notna().any():
        return [f"RTO of {fault}: unknown, as other programs disturbed every trial."]
    waits = _waits(of_fault)
    found = []
    for group, who in ((of_fault[waits], "waited for a replica"), (of_fault[~waits], "waited for none")):
        rto = group["rto_ms"].to_numpy(dtype=float)
        if len(rto) == 1:
            found.append(f"RTO of the one trial of {fault} in which commits {who}: {number(float(rto[0]))} ms.")
        elif len(rto):
            tail = f"p99 {number(percentile(rto, 99))} ms, " if len(rto) >= _TAIL else ""
            found.append(
                f"RTO over {count(len(rto), 'trial')} of {fault} in which commits {who}: "
                f"p50 {number(float(np.median(rto)))} ms, {tail}longest {number(float(rto.max()))} ms."
            )
    if fault.endswith("all-behind") and waits.any():
        behind_s = number(run.parameter("behind_s", float))
        found.append(
            f"Before {fault} replicas receive nothing for {behind_s} s: commits that wait "
            "for one stop then, and their RTO counts from there."
        )
    return found


def _undisturbed(run: Run) -> pd.DataFrame:
    """The trials whose times tell something: other programs took no CPU from them, as far as that is known."""
    every = trials(run)
    return every[~every["block"].isin(frames.disturbed_blocks(run))]


def _tried(row: Any) -> int:
    return int(row.judged)


def lead(run: Run) -> Sentences:
    """Survival of acknowledged commits: of those that waited for a replica, and of those that waited for none. Rows are
    lost or not, whatever other programs used; of that only times are unknown."""
    every = cells(run)
    waits = _waits(every)
    found = Sentences(frames.disturbances(run))
    for group, who in ((every[waits], "waited for a replica"), (every[~waits], "waited for no replica")):
        if not len(group):
            continue
        which = ", ".join(dict.fromkeys(f"{row.mode}/{row.level}" for row in each(group)))
        judged, unknown, losing, rows = (
            int(group[name].sum()) for name in ("judged", "unknown", "losing", "acknowledged")
        )
        if losing:
            by_fault = group.groupby("fault", sort=False)[["losing", "judged"]].sum()
            said = ", ".join(
                f"in {row.losing} of {count(row.judged, 'trial')} of {row.fault}"
                for row in each(by_fault.reset_index())
            )
            came = f"were lost {said}; {count(int(group['lost_max'].max()), 'row')} in a trial at most"
        elif judged:
            bound = percent(share_at_most(0, judged), signed=False)
            survived = f"{count(rows, 'row')} in {count(judged, 'trial')}"
            came = f"all survived, {survived}: on average over such trials at most {bound} lose any (95 %)"
        else:
            came = "cannot be judged"
        came += f"; {_no_verdict(unknown)}" if unknown else ""
        found.append(f"Acknowledged commits that {who} ({which}) {came}.")
    return found


def validity(run: Run) -> list[str]:
    """What makes the matrix worthless: rows that were never written, or trials without a verdict."""
    every = trials(run)
    problems = []
    if wrong := int(every["wrong"].sum()):
        problems.append(f"{count(wrong, 'row is', 'rows are')} there that should not be")
    if unknown := int((every["verdict"] == "unknown").sum()):
        problems.append(_no_verdict(unknown))
    return problems


def _no_verdict(trials: int) -> str:
    return count(trials, "trial has no verdict", "trials have no verdict")
