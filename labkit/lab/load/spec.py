"""What a load generator is told, and what it reports: plain data that travels between processes."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from labkit.errors import LoadError
from labkit.lab.load.arrivals import Arrivals, share
from labkit.lab.workloads.base import Workload
from labkit.remedies import advice
from labkit.run import layout


@dataclass(frozen=True)
class Target:
    """A node to load, over so many connections."""

    name: str
    conninfo: str
    connections: int


@dataclass(frozen=True)
class LoadSpec:
    """All that one generator needs to know; picklable, so that it can run in another process.

    Attributes:
        targets: nodes that serve the load, in turn, each over connections of its own.
        part: the file that the records go to.
        block: the number under which they are recorded.
        epoch_ns: the run's epoch on the monotonic clock; recorded times count from it.
        start_ns: do not begin before this time of the monotonic clock.
        stop_file: the load ends early when this file appears.
        live_file: gets a line about every second, see `labkit.lab.load.live`.
        ledger: for writes: the file that holds each transaction's intent before it is sent, and its outcome after.
        route: the file that names the one target that serves; the load follows it. Without it, all serve in turn.
    """

    workload: Workload
    targets: tuple[Target, ...]
    arrivals: Arrivals
    duration_s: float
    warmup_s: float
    timeout_s: float
    seed: int
    part: Path
    block: int = 0
    epoch_ns: int = 0
    start_ns: int = 0
    stop_file: Path | None = None
    live_file: Path | None = None
    ledger: Path | None = None
    route: Path | None = None

    @property
    def connections(self) -> int:
        """To all targets together."""
        return sum(target.connections for target in self.targets)

    def split(self, n: int) -> list[LoadSpec]:
        """n shards that together are this load, each with random choices and a part of its own."""
        if n == 1:
            return [self]
        shards: Sequence[Arrivals] = self.arrivals.split(n)
        seeds = np.random.SeedSequence(self.seed).generate_state(n)
        return [
            replace(
                self,
                targets=self._targets(i, n),
                arrivals=arrivals,
                seed=int(seeds[i]),
                part=layout.shard(self.part, i),
                live_file=self.live_file and layout.shard(self.live_file, i),
                ledger=self.ledger and layout.shard(self.ledger, i),
            )
            for i, arrivals in enumerate(shards)
        ]

    def _targets(self, i: int, n: int) -> tuple[Target, ...]:
        """The targets with the connections that the i-th of n shards opens.

        All connections, one target's after the other's, go to the shards in turn: each shard has as many of each
        target, and as many in all, as the others have, or one more.
        """
        ends = itertools.accumulate(target.connections for target in self.targets)
        return tuple(
            replace(target, connections=share(end, i, n) - share(end - target.connections, i, n))
            for target, end in zip(self.targets, ends, strict=True)
        )


@dataclass
class LoadResult:
    """What one generator did. Times are ns since the run's epoch; the measured part is [warm_until_ns, to_ns).

    Attributes:
        requests: all records, warm-up and tail included.
        measured: those answered in the measured part.
        sqlstates: requests that did not succeed, by SQLSTATE, and `problems` with the first text of each.
        cpu_percent: the generator's CPU in the measured part, of one core. Above 90 it measured itself.
        pool_busy_fraction: share of the connections' time in the measured part in which a request was under way.
        late_ns: open arrivals only: the most that an arrival was noticed after it was due.
        host: the machine that it ran on, and how far that machine's clock is ahead of the driving one's,
            give or take `clock_bound_ns`; recorded times have been corrected by it.
    """

    from_ns: int = 0
    warm_until_ns: int = 0
    to_ns: int = 0
    requests: int = 0
    measured: int = 0
    dropped: int = 0
    cpu_percent: float = 0.0
    pool_busy_fraction: float = 0.0
    late_ns: int = 0
    interrupted: bool = False
    sqlstates: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    host: str = ""
    clock_offset_ns: int = 0
    clock_bound_ns: int = 0


def merge(shards: Sequence[LoadResult]) -> LoadResult:
    """One load's result from those of its shards; its measured part is that in which all of them were measuring.

    cpu_percent is that of the busiest, since a generator at its limit spoils the whole. Raises LoadError if a shard
    began so late that less than nine tenths of the time are common to all.
    """
    first, last = max(shards, key=lambda s: s.warm_until_ns), min(shards, key=lambda s: s.to_ns)
    longest = max(shard.to_ns - shard.warm_until_ns for shard in shards)
    if last.to_ns - first.warm_until_ns < 0.9 * longest and not any(shard.interrupted for shard in shards):
        late_s = (first.from_ns - min(shard.from_ns for shard in shards)) / 1e9
        raise LoadError(
            f"a shard of the load began {late_s:.1f} s after the first one, so they did not run together",
            remedy=advice(f"see whether there are {len(shards)} free workers, and each reaches the servers"),
        )
    return LoadResult(
        from_ns=min(shard.from_ns for shard in shards),
        warm_until_ns=first.warm_until_ns,
        to_ns=last.to_ns,
        requests=sum(shard.requests for shard in shards),
        measured=sum(shard.measured for shard in shards),
        dropped=sum(shard.dropped for shard in shards),
        cpu_percent=max(shard.cpu_percent for shard in shards),
        pool_busy_fraction=float(np.mean([shard.pool_busy_fraction for shard in shards])),
        late_ns=max(shard.late_ns for shard in shards),
        interrupted=any(shard.interrupted for shard in shards),
        sqlstates=dict(sum((Counter(shard.sqlstates) for shard in shards), Counter[str]())),
        problems={state: text for shard in reversed(shards) for state, text in shard.problems.items()},
        clock_bound_ns=max(shard.clock_bound_ns for shard in shards),
    )
