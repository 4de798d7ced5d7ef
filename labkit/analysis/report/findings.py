"""What a report asks of an experiment: the protocol that every module `findings` meets, and a run in short."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import pandas as pd

from labkit.analysis import frames
from labkit.analysis.words import Sentences, not_valid
from labkit.checkers import evidence
from labkit.run.schema import Summary
from labkit.run.store import Run


class Findings(Protocol):
    """What one kind of run shows. All are pure functions of the run; a module of functions of these names will do."""

    def headline(self, run: Run, /) -> pd.DataFrame:
        """The figures to compute with."""
        ...

    def table(self, run: Run, /) -> pd.DataFrame:
        """The figures to read."""
        ...

    def verdicts(self, run: Run, /) -> Sentences:
        """All that can be said of the run, with its uncertainty."""
        ...

    def lead(self, run: Run, /) -> Sentences:
        """The few of the verdicts that come first: what casts doubt on all others, then the answer. What makes the run
        worthless is not among them: `head` puts it before them."""
        ...

    def validity(self, run: Run, /) -> list[str]:
        """What makes the run worthless, one sentence each; empty if nothing does."""
        ...


@runtime_checkable
class Compares(Protocol):
    """Findings of experiments that compare arms."""

    def differences(self, run: Run, /) -> pd.DataFrame:
        """What each arm changed against the first, with intervals."""
        ...


def problems(run: Run, findings: Findings) -> list[str]:
    """What makes the run worthless, each once: what is missing of it or damaged comes first."""
    return list(dict.fromkeys([*evidence.problems(run), *findings.validity(run)]))


def head(run: Run, findings: Findings) -> Sentences:
    """What a report begins with: what makes the run worthless, before anything that is concluded from it; then, if so,
    that it is unknown whether other programs disturbed it."""
    return Sentences([*not_valid(problems(run, findings)), *findings.lead(run), *frames.unaccounted(run)])


def verdicts(run: Run, findings: Findings) -> Sentences:
    """All that can be said of the run, and whether it is known that nothing disturbed it."""
    return Sentences([*findings.verdicts(run), *frames.unaccounted(run)])


def summary(run: Run, findings: Findings) -> Summary:
    """What a script wants to know of a run."""
    found = problems(run, findings)
    return Summary(
        id=run.id,
        path=str(run.path),
        status=run.status,
        valid=not found,
        problems=found,
        headline=records(findings.headline(run)),
        differences=records(findings.differences(run)) if isinstance(findings, Compares) else [],
        verdicts=list(verdicts(run, findings)),
    )


def unknown(run: Run, reason: str) -> Summary:
    """The same where a part is damaged that the findings rest on: nothing is known but what is wrong."""
    return Summary(
        id=run.id,
        path=str(run.path),
        status=run.status,
        valid=False,
        problems=list(dict.fromkeys([reason, *evidence.problems(run)])),
        headline=[],
        differences=[],
        verdicts=[f"What the run shows is unknown: {reason}."],
    )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries that JSON can hold."""
    plain = frame.astype(object).where(frame.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in plain.to_dict("records")]
