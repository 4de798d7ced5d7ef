"""What a run of `failover` says: the steps with their times, who was chosen, what was written, what was lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from labkit.analysis import frames
from labkit.analysis.words import UNKNOWN, Sentences, Words, not_valid, number, whole
from labkit.checkers import audit, evidence
from labkit.errors import RunUnreadable
from labkit.lsn import lsn_text
from labkit.names import APPEND_ROWS
from labkit.run import ledger
from labkit.run.layout import View
from labkit.run.schema import CANNOT_CONNECT, VERDICT_WORDS, Event, Standing, TrialBlock
from labkit.run.schema import events as happened
from labkit.run.steps import (
    DECIDE,
    DETECTED,
    LOSE_PRIMARY,
    READ_BACK,
    REJOIN,
    Moment,
    Step,
    at_ns,
    label,
    moments,
)
from labkit.run.store import Run
from labkit.units import count

VIEW_WORDS: dict[View, str] = {
    "promoted": "the promoted replica",
    "other": "the other replica, had it been promoted",
    "old": "the old primary itself",
}
CLASS_WORDS = {
    "kept": "acknowledged and there",
    "lost": "acknowledged and LOST",
    "recovered": "unknown to the writer, there",
    "gone": "unknown to the writer, not there",
    "contradicted": "refused, yet there",
    "refused": "refused, not there",
    "duplicated": "there more than once",
    "unexpected": "there, never attempted",
}
ORIGINAL = {"successful_tx_count": 355_766, "failed_tx_count": 350_209}
"""Of the original report's write test: 10 users, 5 minutes, the primary killed on the way."""


def facts(run: Run) -> TrialBlock:
    """The one trial of a failover run. Raises RunUnreadable if it is not read back yet, or was cut off before that."""
    trials = run.blocks_of(TrialBlock)
    if not trials:
        raise _too_early(run, READ_BACK)
    return trials[0]


def _too_early(run: Run, step: Step) -> RunUnreadable:
    """Not raised: what was asked for is there once `step` is taken."""
    if run.state == "running":
        return RunUnreadable(f"{run.id} is not that far yet: {step}() comes first")
    return RunUnreadable(f"{run.id} ended before its failover did: {evidence.why_no_end(run)}")


def steps(run: Run) -> pd.DataFrame:
    """One row per step, in order of time: step, words, at_ms since the primary was lost, took_ms (NaN if not timed).

    Of a failover that is under way, the steps up to now. Raises RunUnreadable if the primary is not lost yet.
    """
    events = run.events_of(Event)
    trial = facts(run) if run.blocks else None
    fault_ns = trial.fault_ns if trial is not None else _lost_ns(run)
    rows = []
    for moment in moments():
        noted = _noted(moment, events, trial)
        if noted is not None and (words := label(moment, noted)):
            at_ms, took_ms = (at_ns(noted) - fault_ns) / 1e6, getattr(noted, "took_ms", np.nan)
            rows.append({"step": moment.kind, "words": words, "at_ms": at_ms, "took_ms": took_ms})
    return pd.DataFrame(rows).sort_values("at_ms", ignore_index=True)


def _noted(moment: Moment, noted: Sequence[Event], trial: TrialBlock | None) -> Event | None:
    """The last event of a moment, or one at the time that the facts have of it; None if it has not come."""
    if moment.fact:
        at = None if trial is None else getattr(trial, moment.fact)
        return None if at is None else Event(kind=moment.kind, t_ns=at)
    return next((event for event in reversed(noted) if event.kind == moment.kind), None)


def _lost_ns(run: Run) -> int:
    """When the primary was lost, before the rows are read back. Raises RunUnreadable if it is not lost yet."""
    lost = run.events_of(happened.Fault)
    if not lost:
        raise _too_early(run, LOSE_PRIMARY)
    return lost[-1].at_ns


def timeline(run: Run) -> pd.DataFrame:
    """`steps` to read."""
    found = steps(run)
    table = Words(
        {"ms after": found["at_ms"].map(number), "what": found["words"], "took, ms": found["took_ms"].map(number)}
    )
    return Words(table.set_index("ms after"))


def decision(run: Run) -> pd.DataFrame:
    """The decision table: every survivor, what it had, and whose rule chooses it. It is there once it was decided."""
    rows = []
    for row in facts(run).decision if run.blocks else _decided(run):
        rows.append(
            {
                "replica": row.node,
                "answers": _yes(row.answers),
                "received": _lsn(row.received),
                "replayed": _lsn(row.replayed),
                "behind the best, bytes": whole(row.behind_best_bytes),
                "behind the primary's last answer, bytes": whole(row.behind_primary_bytes),
                "timeline": whole(row.timeline),
                "replay paused": _yes(row.replay_paused),
                "priority": whole(row.priority),
                "chosen by": row.chosen_by or UNKNOWN,
            }
        )
    return Words(pd.DataFrame(rows).set_index("replica").T)


def _decided(run: Run) -> list[Standing]:
    """The table of a failover that is under way; a refused one rests on a table too."""
    made = [event for event in run.events_of(happened.OfTrial) if event.kind in (DECIDE.name, DECIDE.failed)]
    tables = [event.table for event in made if isinstance(event, happened.Decide | happened.StepFailed) and event.table]
    if not tables:
        raise _too_early(run, DECIDE)
    return tables[-1]


def written(run: Run) -> pd.DataFrame:
    """Transactions and rows by how they ended for the writer, beside what the original report counted."""
    block, writes = facts(run), ledger.written(run)
    names = {
        "ok": "acknowledged",
        "ok-with-warning": "acknowledged with a warning: local only",
        "fail": "refused",
        "unknown": "unknown: the connection ended first",
    }
    rows = {}
    for name, words in names.items():
        ended = writes[writes["outcome"] == name]
        rows[words] = {"transactions": whole(len(ended)), "rows": whole(len(audit.keys_of(ended)))}
    turned_away = block.sqlstates.get(CANNOT_CONNECT, 0)
    rows["not sent: no connection"] = {"transactions": whole(turned_away), "rows": UNKNOWN}
    rows["acknowledged rows per second before the fault"] = {"transactions": "", "rows": number(block.rate_per_s)}
    rows["original: successful_tx_count"] = {"transactions": whole(ORIGINAL["successful_tx_count"]), "rows": ""}
    rows["original: failed_tx_count"] = {"transactions": whole(ORIGINAL["failed_tx_count"]), "rows": ""}
    return Words(pd.DataFrame.from_dict(rows, orient="index"))


def audits(run: Run) -> dict[View, audit.Audit]:
    """View -> audit, for each view that was read. The other replica and the old primary are judged by what was
    sent to the old primary: they never got what was written after it."""
    block = facts(run)
    found: dict[View, audit.Audit] = {"promoted": audit.of_run(run, block.block)}
    writes = ledger.written(run)
    others: tuple[View, ...] = ("other", "old")
    for view in others:
        keys = audit.present_keys(run, view, block.block)
        if keys is not None:
            found[view] = audit.judge(writes[writes["node"].astype(str) == block.old], keys)
    return found


def table(run: Run) -> pd.DataFrame:
    """Rows of every class, one column per view: the proof, and the counterfactual beside it."""
    found = audits(run)
    table = {VIEW_WORDS[view]: {CLASS_WORDS[c]: whole(n) for c, n in a.counts.items()} for view, a in found.items()}
    frame = pd.DataFrame(table)
    frame.loc["audit"] = {VIEW_WORDS[view]: VERDICT_WORDS[a.verdict] for view, a in found.items()}
    return Words(frame)


def lost(run: Run, most: int = 20) -> pd.DataFrame:
    """The first lost keys with their commits, times since the primary was lost; empty if nothing was lost."""
    block, lost_ms = facts(run).block, facts(run).fault_ns / 1e6
    found = audit.lost_rows(run, audit.of_run(run, block), block).head(most)
    if "commit_lsn" in found:
        found = found.assign(commit_lsn=found["commit_lsn"].map(_commit_lsn))
    names = {"intent_ms": "sent, ms after", "acknowledged_ms": "acknowledged, ms after"}
    found = found.assign(**{name: (found[name] - lost_ms).round(3) for name in names})
    names |= {"commit_lsn": "commit LSN", "commit_utc": "committed"}
    return found.rename(columns=names).set_index("key")


def ghosts(run: Run) -> pd.DataFrame:
    """One row per transaction that only the old primary has: xid, commit_lsn, commit_utc, rows, first and last key.

    Raises RunUnreadable if the old primary is still to be read.
    """
    if not run.has("ghosts"):
        if run.state == "running" and run.parameters.get(REJOIN.name):
            raise _too_early(run, REJOIN)
        return pd.DataFrame(columns=["commit LSN", "committed", "rows", "first key", "last key"])
    found = run.table("ghosts")
    grouped = found.groupby("xid", sort=True)
    return pd.DataFrame(
        {
            "commit LSN": grouped["commit_lsn"].first().map(_commit_lsn),
            "committed": grouped["commit_utc"].first().astype(str),
            "rows": grouped.size(),
            "first key": grouped["key"].min(),
            "last key": grouped["key"].max(),
        }
    )


def acknowledged(run: Run, bin_ms: float = 20.0) -> pd.DataFrame:
    """Acknowledged rows around the outage: at_ms (middle of the bin, since the fault), node, rows_per_s."""
    block, writes = facts(run), ledger.written(run)
    ok = writes[writes["outcome"] == "ok"]
    at = (ok["done_ns"] - block.fault_ns) / 1e6
    near = at.between(-1000, ((block.first_after_ns or block.fault_ns) - block.fault_ns) / 1e6 + 1000)
    bins = np.floor(at[near] / bin_ms).astype(int)
    chosen = pd.DataFrame({"bin": bins, "node": ok.loc[near, "node"].astype(str), "rows": ok.loc[near, "rows"]})
    summed = chosen.groupby(["bin", "node"], as_index=False)["rows"].sum()
    return pd.DataFrame(
        {
            "at_ms": (summed["bin"] + 0.5) * bin_ms,
            "node": summed["node"],
            "rows_per_s": summed["rows"] / bin_ms * 1e3,
        }
    )


def headline(run: Run) -> pd.DataFrame:
    """One row: workload, arm, requests_per_s and p99_ms before the fault, rto_ms, acknowledged, lost, unknown rows
    (not there and there), verdict. Rows are None where nothing was read back."""
    block = facts(run)
    judged = audit.of_run(run, block.block)
    row = {
        "workload": APPEND_ROWS,
        "arm": block.cell,
        "requests_per_s": block.rate_per_s,
        "p99_ms": block.commit_p99_ms,
        "rto_ms": block.rto_ms,
        "acknowledged": judged.acknowledged,
        **{name: judged.counts[name] for name in ("lost", "recovered", "gone")},
        "verdict": judged.verdict,
    }
    return pd.DataFrame([row])


def verdicts(run: Run) -> Sentences:
    """What the run shows, in sentences."""
    found, block = lead(run), facts(run)
    judged = audits(run)
    if "other" in judged and judged["other"].verdict != "unknown":
        lost_there = len(judged["other"].lost)
        none = "no acknowledged row" + " either" * (judged["promoted"].verdict == "true")
        would_lose = count(lost_there, "acknowledged row") if lost_there else none
        found.append(f"Promoting the other replica would have lost {would_lose}.")
    unknown = len(judged["promoted"].recovered) + len(judged["promoted"].gone)
    if unknown:
        found.append(
            f"{count(unknown, 'row was', 'rows were')} under way when the primary was lost: "
            f"{len(judged['promoted'].recovered):,} of them are on the new primary. Their writers were told nothing, "
            "so those that are not there are no loss."
        )
    repointed = run.events_of(happened.Repoint)
    if repointed and not any(event.followers for event in repointed):
        found.append(
            f"No replica was left to follow {block.new}, so its commits waited for none: until another is back, "
            "its rows are on one server only."
        )
    if block.ghosts:
        found.append(
            f"{count(block.ghosts, 'row')} existed on the old primary alone; {block.rejoined} took that back when it "
            "rejoined as a replica."
        )
    if len(set(block.choices.values())) == 1 and None not in block.choices.values():
        (agreed,) = set(block.choices.values())
        found.append(f"All {len(block.choices)} rules, labkit's and those of managers, would promote {agreed}.")
    elif block.choices:
        said = ", ".join(f"{manager} {name or 'would refuse'}" for manager, name in block.choices.items())
        found.append(f"The rules differ: {said}.")
    if open_ended := audit.left_open(run):
        found.append(
            f"{count(open_ended, 'transaction has', 'transactions have')} no outcome: the load generator was killed."
        )
    return Sentences([*found, *not_valid(validity(run))])


def lead(run: Run) -> Sentences:
    """The verdict and the outage; how long that takes is unknown where other programs disturbed it, but not what was
    lost."""
    block = facts(run)
    judged = audit.of_run(run, block.block)
    disturbed = frames.disturbances(run)
    wrong = "Acknowledged rows are lost" if len(judged.lost) else "Rows are wrong"
    what = {"true": "Nothing that was acknowledged is lost", "false": wrong}.get(
        judged.verdict, "Whether anything is lost is unknown"
    )
    verdict = f"{what} ({block.mode}, synchronous_commit = {block.level}): {judged.reason}."
    found = Sentences([*disturbed, verdict])
    if block.rto_ms is not None:
        lasted = f"{number(block.rto_ms)} ms, from the last row of {block.old} to the first of {block.new}"
        found.append(
            f"How long an outage lasts is unknown: beside other programs nothing was acknowledged for {lasted}."
            if disturbed
            else f"Nothing was acknowledged for {lasted} (RTO, as the writers saw it)."
        )
        if "by_hand" in run.parameters and run.parameter("by_hand", bool):
            found.append(_by_hand(run))
    found += [f"Overridden: {reason}." for reason in block.overridden]
    return found


def _by_hand(run: Run) -> str:
    taken = steps(run)
    noticed = taken.loc[taken["step"] == DETECTED.kind, "at_ms"].sum()
    return (
        "The steps were taken by hand, so that outage includes the reader's time between the cells: the steps "
        f"themselves took {number(taken['took_ms'].sum())} ms, after {number(noticed)} ms until the loss was noticed."
    )


def validity(run: Run) -> list[str]:
    """What makes the run worthless as a proof, or proves something wrong; a loss that replication allows is neither."""
    block = facts(run)
    judged = audit.of_run(run, block.block)
    fine = judged.verdict == "true" or audit.allowed(judged, block.replication)
    return [] if fine else [f"the audit {VERDICT_WORDS[judged.verdict]}: {judged.reason}"]


def _lsn(lsn: int | None) -> str:
    return UNKNOWN if lsn is None else lsn_text(lsn)


def _commit_lsn(lsn: float) -> str:
    """-1 where the old primary's WAL holds no such commit, NaN where it was not read."""
    return lsn_text(int(lsn)) if lsn > 0 else UNKNOWN


def _yes(value: bool) -> str:
    return "yes" if value else "no"
