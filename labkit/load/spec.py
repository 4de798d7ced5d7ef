"""What a load generator is told, and what it reports: plain data that travels between processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from labkit.load.arrivals import Arrivals
from labkit.workloads import Workload


@dataclass(frozen=True)
class Target:
    """A node to load."""

    name: str
    conninfo: str


@dataclass(frozen=True)
class LoadSpec:
    """All that one generator needs to know; picklable, so that it can run in another process.

    Attributes:
        targets: nodes that serve the load, in turn.
        connections: to each of them.
        part: the file that the records go to.
        block: the number under which they are recorded.
        epoch_ns: the run's epoch on the monotonic clock; recorded times count from it.
        start_ns: do not begin before this time of the monotonic clock.
        stop_file: the load ends early when this file appears.
        ledger: for writes: the file that holds each transaction's intent before it is sent, and its outcome after.
        route: the file that names the one target that serves; the load follows it. Without it, all serve in turn.
    """

    workload: Workload
    targets: tuple[Target, ...]
    arrivals: Arrivals
    connections: int
    duration_s: float
    warmup_s: float
    timeout_s: float
    seed: int
    part: Path
    block: int = 0
    epoch_ns: int = 0
    start_ns: int = 0
    stop_file: Path | None = None
    ledger: Path | None = None
    route: Path | None = None


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
