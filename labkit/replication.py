"""What commits wait for: the value (mode, k, level), how it is written, and what it promises. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from labkit.errors import BadInput
from labkit.units import count

Mode = Literal["off", "FIRST", "ANY"]


Level = Literal["off", "local", "remote_write", "on", "remote_apply"]


MODES = get_args(Mode)


LEVELS = get_args(Level)


REMOTE_LEVELS = LEVELS[2:]


ASYNC = "async"
"""How it is written that commits wait for no replica."""


@dataclass(frozen=True)
class Replication:
    """Which replicas a commit waits for: none (`off`), the first `k` that are connected (`FIRST`), or any `k` (`ANY`).

    `level` is synchronous_commit, how far they must have come.
    """

    mode: Mode = "off"
    k: int = 1
    level: Level = "on"

    @classmethod
    def parse(cls, words: str, level: str = "on") -> Replication:
        """From `off`, `async`, `FIRST 1` or `ANY 2`. Raises BadInput."""
        found = re.fullmatch(r"\s*(?:(off|async)|(FIRST|ANY)\s+(\d+))\s*", words, re.IGNORECASE)
        if found is None:
            raise BadInput(f"{words!r} is no replication mode; there are: off, FIRST k, ANY k")
        made = cls("off") if found[1] else cls(found[2].upper(), int(found[3]))  # type: ignore[arg-type]
        return cls(made.mode, made.k, level)  # type: ignore[arg-type]

    @classmethod
    def from_setting(cls, names: str, level: str = "on") -> Replication:
        """What a value of synchronous_standby_names means, labkit's or not. Raises BadInput.

        A bare list is FIRST 1, and `2 (…)` is FIRST 2 (PostgreSQL's documentation of the setting).
        """
        if not names.strip():
            return cls.parse("off", level)
        before, listed, _ = names.partition("(")
        method = before.strip() if listed else "FIRST 1"
        return cls.parse(f"FIRST {method}" if method.isdigit() else method, level)

    def at(self, level: Level) -> Replication:
        """The same commits wait, at another level."""
        return replace(self, level=level)

    def __str__(self) -> str:
        return ASYNC if self.mode == "off" else f"{self.mode} {self.k}"

    @property
    def promises(self) -> int:
        """On how many replicas an acknowledged commit is."""
        return self.k if self.mode != "off" and self.level in REMOTE_LEVELS else 0

    def standby_names(self, replicas: Sequence[str]) -> str:
        """The value of synchronous_standby_names."""
        return "" if self.mode == "off" else f"{self.mode} {self.k} ({', '.join(replicas)})"

    def sync_states(self, replicas: Sequence[str]) -> dict[str, str]:
        """What pg_stat_replication.sync_state must say of connected replicas, given in the order they are listed."""
        if self.mode == "off":
            return dict.fromkeys(replicas, "async")
        if self.mode == "ANY":
            return dict.fromkeys(replicas, "quorum")
        return {name: "sync" if place < self.k else "potential" for place, name in enumerate(replicas)}

    def check(self, replicas: int, down: Sequence[str] = ()) -> None:
        """Raises BadInput naming everything that cannot be with that many replicas; `down` are those not running."""
        problems = []
        if self.mode not in MODES:
            problems.append(f"mode: {self.mode!r} is not among {', '.join(MODES)}")
        if self.level not in LEVELS:
            problems.append(f"level: {self.level!r} is not among {', '.join(LEVELS)}")
        if isinstance(self.k, bool) or not isinstance(self.k, int):
            problems.append(f"k: {self.k!r} is not a whole number")
        elif self.mode != "off" and self.k < 1:
            problems.append(f"k: {self.k} is out of range, it must be at least 1")
        elif self.mode != "off" and self.k > replicas:
            known = count(replicas, "replica there is", "replicas there are")
            there = count(replicas, "replica that runs", "replicas that run") if down else known
            more = f"start {', '.join(down)}" if down else "add replicas"
            asks = f"{self.mode} {self.k} asks for more than the {there}"
            problems.append(f"k: {asks}; no commit would end. Lower k, or {more}")
        if problems:
            raise BadInput(problems, subject="synchronous replication")


def strictest(found: Sequence[Replication]) -> Replication:
    """The one whose commits are on the most replicas, the first among equals; `off` if there is none."""
    return max(found, key=lambda each: each.promises, default=Replication("off"))
