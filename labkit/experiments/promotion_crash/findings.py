"""What a run of `promotion-crash` says: the client's message beside the log line that explains it."""

from __future__ import annotations

import pandas as pd

from labkit.analysis.words import UNKNOWN, Sentences, Words, count, not_valid
from labkit.run.schema import AttemptBlock, Cause
from labkit.run.store import Run

MEANING: dict[Cause, str] = {
    "deleted": "standby.signal was deleted by hand",
    "mounted": "standby.signal is bind-mounted as a single file",
    "immutable": "standby.signal is immutable (chattr +i)",
    "sticky": "standby.signal is another user's, in a sticky directory that is not the server's",
    "unwritable": "the data directory is not writable for the server",
    "foreign": "standby.signal is another user's, in the server's own directory",
}
ORIGINAL = "terminating connection because of crash of another server process"
"""The first line of what the original report's author saw, and could not explain."""


def _tried(run: Run) -> list[AttemptBlock]:
    return [block for block in run.blocks_of(AttemptBlock) if block.tried]


def table(run: Run) -> pd.DataFrame:
    """One row per set-up: whether preflight warned, what came of pg_promote, and what repairing it led to."""
    rows = {}
    for block in run.blocks_of(AttemptBlock):
        if not block.tried:
            rows[MEANING[block.cause]] = {"pg_promote()": f"not tried: {block.reason}"}
            continue
        came = "promoted" if block.promoted else "crashed" if block.crashed else "refused; it stays a replica"
        rows[MEANING[block.cause]] = {
            "preflight": "warned" if block.preflight else "no objection",
            "pg_promote()": came,
            "the original's message": "yes" if ORIGINAL in block.client else "no",
            "after the repair": block.repaired or UNKNOWN,
        }
    return Words(pd.DataFrame.from_dict(rows, orient="index").fillna(UNKNOWN))


def messages(run: Run) -> pd.DataFrame:
    """What the person at psql sees, line by line, and what the server's log says at that moment."""
    rows = {}
    for block in _tried(run):
        reason = [line for line in block.log if "standby.signal" in line or "ERROR" in line]
        rows[MEANING[block.cause]] = {
            "the client sees": block.client.replace("\t", "").replace("\n", " ⏎ "),
            "the server's log": reason[0].split("  ")[-1] if reason else UNKNOWN,
        }
    return Words(pd.DataFrame.from_dict(rows, orient="index"))


def warnings(run: Run) -> pd.DataFrame:
    """What preflight says beforehand."""
    rows = {MEANING[block.cause]: "; ".join(block.preflight) or "no objection" for block in _tried(run)}
    return Words(pd.DataFrame({"preflight": rows}))


def headline(run: Run) -> pd.DataFrame:
    """One row: workload, arm, requests_per_s and p99_ms (nothing is loaded here), crashes, warned, repaired."""
    tried = _tried(run)
    crashed = [block for block in tried if block.crashed]
    row = {"workload": "pg_promote", "arm": "set-ups", "requests_per_s": float("nan"), "p99_ms": float("nan")}
    row |= {
        "tried": len(tried),
        "crashes": len(crashed),
        "warned": sum(1 for block in tried if block.preflight),
        "repaired": sum(1 for block in tried if block.repaired == "primary"),
    }
    return pd.DataFrame([row])


def verdicts(run: Run) -> Sentences:
    """What the run shows, in sentences."""
    tried = _tried(run)
    found = [_crashes(run)]
    found += [
        f"Refused, and it stays a replica: {MEANING[block.cause]}."
        for block in tried
        if not block.promoted and block.survived
    ]
    found += [f"Promoted all the same: {MEANING[block.cause]}." for block in tried if block.promoted]
    if failing := [block for block in tried if not block.promoted]:
        warned = sum(1 for block in failing if block.preflight)
        found.append(f"The preflight foresees {_of(warned, len(failing))} that fail.")
        repaired = sum(1 for block in failing if block.repaired == "primary")
        found.append(f"Put right, {_of(repaired, len(failing))} were promoted after all.")
    found += [f"Not tried, {MEANING[b.cause]}: {b.reason}." for b in run.blocks_of(AttemptBlock) if not b.tried]
    return Sentences([*found, *not_valid(validity(run))])


def _crashes(run: Run) -> str:
    """How many set-ups crash, and whether with the original's message."""
    tried = _tried(run)
    crashed = [block for block in tried if block.crashed]
    if not crashed:
        return f"pg_promote() crashed in none of {count(len(tried), 'set-up')}."
    same = sum(1 for block in crashed if ORIGINAL in block.client)
    with_it = "none" if not same else _of(same, len(crashed))
    return (
        f"pg_promote() crashed in {len(crashed)} of {count(len(tried), 'set-up')}, {with_it} with the message that the "
        "original report could not explain: the server cannot delete standby.signal at the end of recovery."
    )


def _of(some: int, every: int) -> str:
    return f"all {every}" if some == every else f"{some} of the {every}"


def lead(run: Run) -> Sentences:
    """The cause."""
    return Sentences([_crashes(run)])


def validity(run: Run) -> list[str]:
    """A crash that the preflight did not name, or a replica that could not be repaired."""
    problems = []
    for block in _tried(run):
        if block.crashed and not block.preflight:
            problems.append(f"the preflight did not see that {MEANING[block.cause]}")
        if not block.promoted and block.repaired != "primary":
            problems.append(f"it could not be repaired after {MEANING[block.cause]}")
    return problems
