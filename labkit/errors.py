"""The errors that labkit raises on purpose; everything else that escapes is a bug.

    LabkitError
    ├── BadInput          parameters or arguments: every problem at once, before anything starts
    ├── ClusterError      a server or the machinery around it; names the node, carries the tail of its log
    │   ├── WaitTimeout   a condition that did not come true before its deadline
    │   └── ProviderUnavailable   no PostgreSQL binaries, no engine: what to install
    ├── LoadError         the load could not be started or had to be abandoned
    └── RunError          a run directory
        ├── RunNotFound
        └── RunUnreadable     damaged, cut off before it was measured, or written by a newer labkit

A failed operation under load is a row in the run, never one of these.
"""

from __future__ import annotations

from collections.abc import Sequence


class LabkitError(Exception):
    """What happened, where, and what to do next. `exit_code` is what the command line returns."""

    exit_code = 2


class BadInput(LabkitError):
    """Input that cannot be used. `problems` lists everything that is wrong, one sentence each."""

    def __init__(self, problems: Sequence[str] | str, *, subject: str = "parameters") -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.subject = subject
        super().__init__(self.problems, subject)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        listed = "\n".join(f"  - {problem}" for problem in self.problems)
        return f"{len(self.problems)} problems in the {self.subject}:\n{listed}"


class ClusterError(LabkitError):
    """A server could not do what was asked. `node` is its name, `log_tail` the last lines it wrote."""

    def __init__(self, message: str, *, node: str | None = None, log_tail: str = "") -> None:
        self.message, self.node, self.log_tail = message, node, log_tail
        super().__init__(message)

    def __str__(self) -> str:
        text = f"{self.node}: {self.message}" if self.node else self.message
        if not self.log_tail:
            return text
        indented = "\n".join(f"    {line}" for line in self.log_tail.rstrip().splitlines())
        return f"{text}\n  last lines of the log of {self.node or 'the server'}:\n{indented}"


class WaitTimeout(ClusterError):
    """A polled condition stayed false: says what was waited for, on which node and how long."""


class ProviderUnavailable(ClusterError):
    """Servers cannot be had on this machine: says what was looked for and the line that installs it."""


class LoadError(LabkitError):
    """The load could not start, or was abandoned because measuring on would mean nothing."""


class RunError(LabkitError):
    """Something about a run directory."""


class RunNotFound(RunError):
    """No run of that name: lists the nearest ones."""


class RunUnreadable(RunError):
    """The directory is there but holds no readable measurement: says which file and why."""
