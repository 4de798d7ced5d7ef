"""Which survivor becomes primary: the table to decide by, and the rules of four managers. Pure.

A commit that waited for k of n replicas is on at least one survivor as long as fewer than k of the n are missing; the
survivor with the highest received LSN then has every such commit. LSNs count only once nothing more can arrive, that is
after the WAL receivers have stopped.

The rules, each from the project's documentation and source:
    labkit           the highest timeline, then the highest LSN received, priority, name
    Patroni          the highest of received and replayed LSN among those within maximum_lag_on_failover (1 MiB) of the
                     last known position of the primary; failover_priority breaks ties, 0 never
    pg_auto_failover the highest candidate priority, then the LSN (it fetches missing WAL from the most advanced); waits
                     for every replica of the quorum to report
    repmgr           the highest received LSN, then priority (0 never), then node id
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from labkit.lab.cluster.sql import Role, resume_replay
from labkit.lab.failover.policy import Policy
from labkit.remedies import Remedy, advice
from labkit.replication import Replication
from labkit.run.schema import Standing
from labkit.units import MIB

PATRONI_MAX_LAG_BYTES = MIB
DEFAULT_PRIORITY = 100


@dataclass(frozen=True)
class Survivor:
    """One replica after the primary's failure. LSNs are integers; None where it has none, or does not answer."""

    name: str
    answers: bool = True
    received: int | None = None
    replayed: int | None = None
    timeline: int | None = None
    replay_paused: bool = False
    priority: int = DEFAULT_PRIORITY
    """As repmgr, Patroni and pg_auto_failover have it: higher is preferred, 0 is never promoted."""
    role: Role = "replica"

    @property
    def has(self) -> int:
        """How much WAL it has: what it received, or replayed if it has not streamed since it started."""
        return max(self.received or 0, self.replayed or 0)


@dataclass(frozen=True)
class Decision:
    """Which replica is promoted, or why none is.

    `refusals` are reasons not to go on, each of which `accept_data_loss` overrides; with `impossible` reasons nothing
    can be promoted at all; `remedies` help against them. `choices` says whom each manager's rule would take, None if it
    would refuse.
    """

    chosen: Survivor | None
    survivors: tuple[Survivor, ...]
    choices: dict[str, str | None]
    refusals: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    primary_lsn: int | None = None

    def table(self) -> list[Standing]:
        """What is known of each survivor, how far it is behind the best, and who would choose it."""
        best = max((survivor.has for survivor in self.survivors), default=0)
        return [
            Standing(
                node=s.name,
                answers=s.answers,
                received=s.received,
                replayed=s.replayed,
                behind_best_bytes=best - s.has if s.answers else None,
                behind_primary_bytes=max(0, self.primary_lsn - s.has) if s.answers and self.primary_lsn else None,
                timeline=s.timeline,
                replay_paused=s.replay_paused,
                priority=s.priority,
                chosen_by=", ".join(manager for manager, name in self.choices.items() if name == s.name),
            )
            for s in self.survivors
        ]


def decide(
    survivors: Sequence[Survivor],
    replication: Replication,
    primary_lsn: int | None = None,
    max_lag_bytes: int = Policy.max_lag_bytes,
) -> Decision:
    """Choose among all replicas the dead primary had, those that do not answer included.

    `replication` is what the primary promised, `primary_lsn` its last known position.
    """
    there = [s for s in survivors if s.answers]
    eligible = [s for s in there if not s.replay_paused and s.priority > 0]
    choices = {manager: rule(survivors, primary_lsn, replication) for manager, rule in RULES.items()}
    name = choices["labkit"]
    chosen = next((s for s in survivors if s.name == name), None)
    impossible: list[str] = []
    remedies: list[Remedy] = []
    if not there:
        impossible.append("no replica answers: there is nothing to promote")
        remedies += [advice("start one"), advice("start the primary again")]
    elif not eligible:
        reasons = [
            f"{s.name}: " + ("its WAL replay is paused" if s.replay_paused else "its priority is 0") for s in there
        ]
        impossible.append(f"no replica is eligible ({'; '.join(reasons)})")
        remedies += [resume_replay("makes it eligible", s.name) for s in there if s.replay_paused]
        remedies += [advice(f"raise the priority of {s.name}") for s in there if s.priority <= 0]
    missing = [s.name for s in survivors if not s.answers]
    refusals: list[str] = []
    if chosen and replication.promises and len(missing) >= replication.promises:
        refusals.append(
            f"the quorum cannot be proven: commits waited for {replication}, and {', '.join(missing)} "
            f"{'does' if len(missing) == 1 else 'do'} not answer, so the only copy of one may be there"
        )
        remedies.append(advice(f"start {' and '.join(missing)}"))
    if chosen:
        refusals += _behind(survivors, chosen, replication, primary_lsn, max_lag_bytes)
    return Decision(chosen, tuple(survivors), choices, tuple(refusals), tuple(impossible), tuple(remedies), primary_lsn)


def _behind(
    survivors: Sequence[Survivor],
    chosen: Survivor,
    replication: Replication,
    primary_lsn: int | None,
    max_lag_bytes: int,
) -> list[str]:
    """Why commits may be lost with it: it has less WAL than is, or may be, elsewhere."""
    found = []
    ahead = [s for s in survivors if s.answers and (s.timeline or 0, s.has) > (chosen.timeline or 0, chosen.has)]
    if ahead:
        found.append(
            f"{chosen.name} is the best that may be promoted, but {', '.join(s.name for s in ahead)} has "
            f"{max(s.has for s in ahead) - chosen.has:,} bytes of WAL more and is not eligible"
            + (": its replay is paused" if any(s.replay_paused for s in ahead) else "")
        )
    if primary_lsn is None and not replication.promises:
        found.append(
            f"how far {chosen.name} is behind is not known: the primary's WAL cannot be read, and commits waited for "
            "no replica"
        )
    behind = max(0, primary_lsn - chosen.has) if primary_lsn is not None else 0
    if behind > max_lag_bytes:
        found.append(
            f"{chosen.name} is {behind:,} bytes of WAL behind the last known position of the primary, allowed are "
            f"{max_lag_bytes:,} (max_lag_bytes)"
        )
    return found


def _labkit(survivors: Sequence[Survivor], primary_lsn: int | None, replication: Replication) -> str | None:
    del primary_lsn, replication
    eligible = [s for s in survivors if s.answers and not s.replay_paused and s.priority > 0]
    return _best(eligible, lambda s: (s.timeline or 0, s.has, s.priority))


def _patroni(survivors: Sequence[Survivor], primary_lsn: int | None, replication: Replication) -> str | None:
    del replication
    near = [s for s in survivors if s.answers and s.priority > 0]
    if primary_lsn is not None:
        near = [s for s in near if primary_lsn - s.has <= PATRONI_MAX_LAG_BYTES]
    return _best(near, lambda s: (s.has, s.priority))


def _pg_auto_failover(survivors: Sequence[Survivor], primary_lsn: int | None, replication: Replication) -> str | None:
    del primary_lsn
    if any(not s.answers for s in survivors) and replication.mode != "off":
        return None
    return _best([s for s in survivors if s.answers and s.priority > 0], lambda s: (s.priority, s.has))


def _repmgr(survivors: Sequence[Survivor], primary_lsn: int | None, replication: Replication) -> str | None:
    del primary_lsn, replication
    return _best(
        [s for s in survivors if s.answers and s.priority > 0], lambda s: (s.received or s.replayed or 0, s.priority)
    )


RULES: dict[str, Callable[[Sequence[Survivor], int | None, Replication], str | None]] = {
    "labkit": _labkit,
    "Patroni": _patroni,
    "pg_auto_failover": _pg_auto_failover,
    "repmgr": _repmgr,
}


def _best(survivors: Sequence[Survivor], rank: Callable[[Survivor], tuple[int, ...]]) -> str | None:
    """The highest rank; among equals the first by name, as node ids count up."""
    ordered = sorted(survivors, key=lambda s: s.name)
    return max(ordered, key=rank).name if ordered else None
