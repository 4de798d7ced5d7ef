"""What every provider says of itself before it is loaded: parameters ask here what its nodes can do.

Imports neither psycopg nor docker. The providers take their declarations from here, and a test holds their controls
against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from labkit import paths
from labkit.lab.cluster.powers import (
    Damageable,
    Isolatable,
    Killable,
    Limitable,
    Measurable,
    Repairable,
    ReplicaKeeper,
)

ProviderName = Literal["embedded", "docker", "attach"]


class Owned:
    """The power over servers that are the lab's: to configure, start and stop them. No protocol tells it."""


@dataclass(frozen=True)
class Declared:
    """A provider's own word.

    Attributes:
        root: where its clusters have their folders: those of two providers may share a name, and are kept apart.
        powers: Owned, the protocols that its nodes' controls keep, and ReplicaKeeper if it keeps that one itself.
        without: why it has no more of them.
    """

    name: ProviderName
    root: Callable[[], Path]
    powers: frozenset[type]
    without: str = ""

    @property
    def owns(self) -> bool:
        return Owned in self.powers


EMBEDDED = Declared(
    "embedded",
    root=paths.clusters,
    powers=frozenset({Owned, Killable, Measurable, Repairable, Damageable, ReplicaKeeper}),
    without="its servers have neither a network nor a CPU limit of their own",
)
DOCKER = Declared("docker", root=lambda: paths.data() / "docker", powers=EMBEDDED.powers | {Isolatable, Limitable})
ATTACH = Declared(
    "attach",
    root=lambda: paths.data() / "attach",
    powers=frozenset(),
    without="attached servers are neither killed nor damaged",
)
DECLARED = {declared.name: declared for declared in (EMBEDDED, DOCKER, ATTACH)}
assert tuple(DECLARED) == get_args(ProviderName)


def lacking(provider: ProviderName, needs: Mapping[type, str]) -> list[str]:
    """A sentence for each of the powers that are needed (power -> what needs it) and that the provider has not."""
    chosen = DECLARED[provider]
    return [
        f"{what} needs provider {' or '.join(each.name for each in DECLARED.values() if power in each.powers)}; "
        f"{provider} cannot: {chosen.without}"
        for power, what in needs.items()
        if power not in chosen.powers
    ]
