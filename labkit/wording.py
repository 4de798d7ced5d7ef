"""How errors and remedies read in Python and in a notebook. The command line has words of its own, cli/wording.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from labkit.remedies import DEFAULT_PROVIDER, Argument, Remedy

Say = Callable[[Remedy], str]
"""Gives the words for a remedy's verb and arguments."""


class Explainable(Protocol):
    """What an error carries."""

    @property
    def reason(self) -> str: ...
    @property
    def node(self) -> str | None: ...
    @property
    def remedies(self) -> Sequence[Remedy]: ...
    @property
    def log_tail(self) -> str: ...


def in_python(remedy: Remedy) -> str:
    """A remedy as a call of labkit's public names; in plain words where there is none."""
    given = dict(remedy.arguments)
    match remedy.verb:
        case "up" | "down":
            return _call(f"labkit.{remedy.verb}", given)
        case "recreate":
            where = {name: value for name, value in given.items() if name in ("name", "provider")}
            return f"{_call('labkit.down', where | {'purge': True})}, then {_call('labkit.up', given)}"
        case "failover":
            return f'`labkit.FailoverSteps(cluster, cluster.node("{given.get("old", "NODE")}")).run()`'
        case "rejoin":
            return f"rejoining {given['node']} to cluster {given['name']}"
        case "rebuild":
            return f"rebuilding {given['node']} of cluster {given['name']}"
        case "clean" | "stop_replicas":
            what = "removing" if remedy.verb == "clean" else "stopping"
            return f"{what} the replicas of cluster {given['name']}"
        case "run":
            return f"running the experiment {given['experiment']}"
        case "audit":
            return f"auditing run {given['run']}"
        case "report":
            return f"drawing the report of {given['run']}"
        case "again":
            return f"`{', '.join(f'{name}={_literal(value)}' for name, value in given.items())}`"
        case "install":
            what = f"with pip: {given['packages']}" if "packages" in given else f"a Jupyter kernel {given['kernel']}"
            return f"install {what}"
        case "open_files":
            return f"let this process have {given['number']} files open"
        case "add_account":
            return f"adding a system account {given['user']}"
        case "list_contexts":
            return "Docker's list of contexts"
        case "use_context":
            return f"choosing {given['context']} as Docker's context"
        case _:
            return in_plain_words(remedy)


def in_plain_words(remedy: Remedy) -> str:
    """A remedy that reads the same everywhere."""
    given = remedy.arguments
    match remedy.verb:
        case "set":
            return f"set {given['variable']} to {given['to']}"
        case "sql":
            return f"{given['statement']} on {given.get('node', 'it')}"
        case _:
            return str(given["words"])


def explain(error: Explainable, say: Say = in_python) -> str:
    """What happened, what to do next, and the last lines of the server's log."""
    text = f"{error.node}: {error.reason}" if error.node else error.reason
    if error.remedies:
        text = f"{text}; {suggest(error.remedies, say)}"
    if not error.log_tail:
        return text
    indented = "\n".join(f"    {line}" for line in error.log_tail.rstrip().splitlines())
    return f"{text}\n  last lines of the log of {error.node or 'the server'}:\n{indented}"


def suggest(remedies: Sequence[Remedy], say: Say = in_python) -> str:
    """The remedies as the rest of a sentence, each with what comes of it."""
    *first, last = [f"{say(remedy)} {remedy.effect}".rstrip() for remedy in remedies] or [""]
    return f"{', '.join(first)}, or {last}" if first else last


def _call(function: str, arguments: Mapping[str, Argument]) -> str:
    first = [_literal(value) for name, value in arguments.items() if name == "name"]
    others = [
        f"{name}={_literal(value)}"
        for name, value in arguments.items()
        if name != "name" and (name, value) != ("provider", DEFAULT_PROVIDER)
    ]
    return f"`{function}({', '.join([*first, *others])})`"


def _literal(value: Argument) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)
