"""The errors that labkit raises on purpose; everything else that escapes is a bug.

    LabkitError
    ├── BadInput          parameters or arguments: every problem at once, before anything starts
    ├── ClusterError      a server or the machinery around it
    │   ├── WaitTimeout   a condition that did not come true before its deadline
    │   └── ProviderUnavailable   no PostgreSQL binaries, no engine: what to install
    ├── LoadError         the load could not be started or had to be abandoned
    └── RunError          a run directory
        ├── RunNotFound
        └── RunUnreadable     cut off before it was measured, or written by a newer labkit
            └── RunDamaged    a part of a table is not what was recorded

Each holds fields; text is made where it is shown: wording.py for Python and notebooks, cli/wording.py for a shell.
What is wrong with a cluster, and what helps, is also told without being raised: then it is one of these as a value.

A failed operation under load is a row in the run, never one of these.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit import wording
from labkit.remedies import Remedy

_LABKIT = Path(__file__).parent


class LabkitError(Exception):
    """What happened, where, and what to do next.

    Attributes:
        reason: what happened, a part of a sentence.
        node: the server that it is about, or None.
        remedies: what helps, each by itself; `remedy` is the first of them, or None.
        log_tail: the last lines that the server, or the program, wrote.
        exit_code: what the command line returns.
    """

    exit_code = 2

    def __init__(
        self,
        reason: str,
        *,
        node: str | None = None,
        remedy: Remedy | Sequence[Remedy] = (),
        log_tail: str = "",
    ) -> None:
        super().__init__(reason)
        self.reason, self.node, self.log_tail = reason, node, log_tail
        self.remedies = (remedy,) if isinstance(remedy, Remedy) else tuple(remedy)

    @property
    def remedy(self) -> Remedy | None:
        return self.remedies[0] if self.remedies else None

    @property
    def notes(self) -> list[str]:
        """What was added on the error's way up (PEP 678)."""
        return list(getattr(self, "__notes__", []))

    def __str__(self) -> str:
        return wording.explain(self)

    def __reduce__(self) -> tuple[Any, ...]:
        # As it is, into another process: subclasses take other arguments.
        return _made, (type(self), self.args), self.__dict__

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: where it called labkit, and the error; not the way through labkit's own code."""
        frames = traceback.extract_tb(self.__traceback__)
        outside = list(itertools.takewhile(lambda frame: not Path(frame.filename).is_relative_to(_LABKIT), frames))
        called = [f"line {frame.lineno}: {frame.line}" for frame in outside[-1:] if frame.line]
        return [*called, f"{type(self).__name__}: {self}", *self.notes]

    def as_dict(self) -> dict[str, Any]:
        """The fields and notes as plain values, which `from_dict` takes."""
        return {
            "reason": self.reason,
            "node": self.node,
            "remedies": [remedy.as_dict() for remedy in self.remedies],
            "log_tail": self.log_tail,
            "notes": self.notes,
            "exit_code": self.exit_code,
        }

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> LabkitError:
        """The error of these fields. It is a LabkitError, whatever it was: its class says nothing more to a reader."""
        remedies = [Remedy.from_dict(each) for each in plain["remedies"]]
        made = LabkitError(plain["reason"], node=plain["node"], remedy=remedies, log_tail=plain["log_tail"])
        made.exit_code = plain["exit_code"]
        for note in plain["notes"]:
            made.add_note(note)
        return made


def _made(kind: type[LabkitError], args: tuple[Any, ...]) -> LabkitError:
    return kind.__new__(kind, *args)


class BadInput(LabkitError):
    """Input that cannot be used. `problems` lists all that is wrong, one sentence each; `subject` says with what."""

    def __init__(
        self,
        problems: Sequence[str] | str,
        *,
        subject: str = "parameters",
        remedy: Remedy | Sequence[Remedy] = (),
    ) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.subject = subject
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        several = f"{len(self.problems)} problems in the {subject}:\n{listed}"
        super().__init__(self.problems[0] if len(self.problems) == 1 else several, remedy=remedy)


class ClusterError(LabkitError):
    """A server could not do what was asked."""


class WaitTimeout(ClusterError):
    """A condition did not come true in time: says what was waited for, on which node and how long."""


class ProviderUnavailable(ClusterError):
    """Servers are unavailable on this machine: says what was looked for and what to install."""


class LoadError(LabkitError):
    """The load could not start, or was abandoned because measuring on would mean nothing."""


class RunError(LabkitError):
    """Something about a run directory."""


class RunNotFound(RunError):
    """No run of that name: lists the nearest ones."""


class RunUnreadable(RunError):
    """The directory is there but holds no readable measurement: says which file and why."""


class RunDamaged(RunUnreadable):
    """A part of a table is not what was recorded: nothing is concluded from it. Says which file."""

    exit_code = 1
