"""What helps after an error, as a value: a verb and its arguments. How it reads is decided where it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verb = Literal[
    "up",
    "down",
    "recreate",
    "failover",
    "rejoin",
    "rebuild",
    "clean",
    "stop_replicas",
    "run",
    "audit",
    "report",
    "again",
    "install",
    "open_files",
    "set",
    "sql",
    "add_account",
    "list_contexts",
    "use_context",
    "do",
]
Argument = str | int | float | bool
DEFAULT_PROVIDER = "embedded"
"""Where a cluster's provider is not said, it is this one."""


@dataclass(frozen=True, init=False)
class Remedy:
    """One thing that helps: `Remedy("rejoin", "makes it a replica", node="pg1", name="lab", provider="embedded")`.

    Verbs and their arguments:
        up            name, provider, replicas, base_port: bring the cluster up
        down          name, provider, purge: stop it, or delete it
        recreate      name, provider, base_port: delete it, and bring it up again
        failover      name, provider, old: promote a replica in place of a primary that failed
        rejoin        node, name, provider: make an old primary a replica
        rebuild       node, name, provider: replace a node's data by a copy of the primary's
        clean         name, provider, purge: remove the replicas
        stop_replicas name, provider: leave the primary alone
        run           experiment: drive it
        audit         run: judge it again
        report        run: draw it again
        again         options: what was just asked for, with these
        install       packages, with blanks between them, or kernel: a Jupyter kernel of that name
        open_files    number: let a process have so many files open
        set           variable, to: an environment variable; `to` says in words what to
        sql           statement, node: run there; on the node that the error names if none is given
        add_account   user: an account of this machine for servers
        list_contexts no arguments: the contexts of Docker that there are
        use_context   context: of Docker, from now on
        do            words: anything else, in plain English

    Attributes:
        verb: what to do.
        effect: what comes of it, the end of a sentence that begins with the verb; may be empty.
        arguments: of the verb, by name.
    """

    verb: Verb
    effect: str = ""
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    def __init__(self, verb: Verb, effect: str = "", /, **arguments: Argument) -> None:
        object.__setattr__(self, "verb", verb)
        object.__setattr__(self, "effect", effect)
        object.__setattr__(self, "arguments", arguments)

    def as_dict(self) -> dict[str, Any]:
        """As plain values, which `from_dict` takes."""
        return {"verb": self.verb, "effect": self.effect, "arguments": dict(self.arguments)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Remedy:
        return cls(plain["verb"], plain["effect"], **plain["arguments"])


def advice(words: str) -> Remedy:
    """A remedy that no verb names, in plain English: `wait for its end`."""
    return Remedy("do", words=words)


def setting(variable: str, to: str) -> Remedy:
    """An environment variable, and in words what to set it to."""
    return Remedy("set", variable=variable, to=to)
