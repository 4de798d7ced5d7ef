"""How errors and remedies read in a shell: lines that can be typed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence

from labkit import wording
from labkit.errors import LabkitError
from labkit.remedies import DEFAULT_PROVIDER, Argument, Remedy

_COMMANDS = {
    "up": "up",
    "down": "down",
    "failover": "failover",
    "rejoin": "rejoin",
    "rebuild": "replicas rebuild",
    "clean": "replicas clean",
    "stop_replicas": "replicas stop",
    "run": "run",
    "audit": "audit",
    "report": "report",
}
"""Verb -> labkit's command."""
_POSITIONAL = ("node", "experiment", "run")
_LAST = ("name", "provider")


def explain(error: LabkitError) -> str:
    """An error for the terminal: the reason, lines that help, the log; below them what was added on its way."""
    return "\n".join([wording.explain(error, in_shell), *error.notes])


def suggest(remedies: Sequence[Remedy]) -> str:
    """Remedies for the terminal, one sentence."""
    return wording.suggest(remedies, in_shell)


def in_shell(remedy: Remedy) -> str:
    """A remedy as a line to type; in plain words where there is none."""
    given = dict(remedy.arguments)
    match remedy.verb:
        case "recreate":
            where = {name: value for name, value in given.items() if name in _LAST}
            return f"`{_line('down', {'purge': True} | where)}`, then `{_line('up', given)}`"
        case "again":
            return f"`{' '.join(_options(given))}`"
        case "install" if "packages" in given:
            return f"`pip install {shlex.join(str(given['packages']).split())}`"
        case "install":
            line = [sys.executable, "-m", "ipykernel", "install", "--sys-prefix", "--name", str(given["kernel"])]
            return f"`{shlex.join(line)}`"
        case "open_files":
            return f"`ulimit -n {given['number']}`"
        case "add_account":
            return f"`useradd --system {shlex.quote(str(given['user']))}`"
        case "list_contexts":
            return "`docker context ls`"
        case "use_context":
            return f"`docker context use {shlex.quote(str(given['context']))}`"
        case verb if verb in _COMMANDS:
            return f"`{_line(_COMMANDS[verb], given)}`"
        case _:
            return wording.in_plain_words(remedy)


def _line(command: str, arguments: Mapping[str, Argument]) -> str:
    ordered = [name for name in arguments if name not in _LAST] + [name for name in _LAST if name in arguments]
    positional = [shlex.quote(str(arguments[name])) for name in ordered if name in _POSITIONAL]
    options = {name: arguments[name] for name in ordered if name not in _POSITIONAL}
    return " ".join(["labkit", command, *positional, *_options(options)])


def _options(given: Mapping[str, Argument]) -> list[str]:
    """Options in the order that they are given; those that say what is so anyway are left out."""
    words = []
    for name, value in given.items():
        if value is False or (name, value) == ("provider", DEFAULT_PROVIDER):
            continue
        option = f"--{name.replace('_', '-')}"
        words.append(option if value is True else f"{option} {shlex.quote(str(value))}")
    return words
