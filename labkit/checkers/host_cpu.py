"""Who used the CPU of the machine that drove a run: servers, load generator, lab, kernel, other programs, none.

The sampler reads what the kernel has counted for the whole machine (proc(5), /proc/stat) and for every process that
takes part. The kernel's own threads are counted apart: they work disks and network for whoever asks, most of all for
servers under load. The rest of what was busy is other programs'. The kernel counts the machine's time in ticks and that
of processes exactly, so a part may be wrong by a few ticks; in half a second on two cores that is about 4 % of them.
Interrupts that a kernel charges to no process are among the others.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from labkit.run.schema import Block, HostCpu, LoadBlock

HOST, GENERATOR, LAB, KERNEL = "host", "generator", "lab", "kernel"
BUSY, IDLE, STOLEN = "cpu_busy_seconds_total", "cpu_idle_seconds_total", "cpu_stolen_seconds_total"
PROCESSES = "cpu_seconds_total"
COUNTERS = (BUSY, IDLE, STOLEN, PROCESSES)
_ALONE_S = 1.0
"""A block of less is judged together with others of its cell."""

Series = tuple[Sequence[int] | npt.NDArray[np.int64], Sequence[float] | npt.NDArray[np.float64]]
"""Times in ns, ascending, and the values of one counter."""


class Account:
    """The counters of one machine, by node and metric, ready to be asked for any span of time.

    `cores`: of the machine. `blind`: there are servers on it whose CPU was not measured. `late`: servers whose counts
    are some time old when they are read; what is not counted of a span yet is no other program's.
    """

    def __init__(
        self,
        counters: Mapping[tuple[str, str], Series],
        cores: int,
        *,
        blind: bool = False,
        late: Collection[str] = (),
    ) -> None:
        self._rising = {
            key: _rising(series, restarts=key[0] != HOST) for key, series in counters.items() if len(series[0]) > 1
        }
        self._cores, self._blind, self._late = cores, blind, late

    def of(self, from_ns: int, to_ns: int) -> HostCpu | None:
        """Who used the machine from one moment to another; None if the samples do not say it.

        Between two samples a counter is taken to rise evenly.
        """
        if not {(HOST, BUSY), (HOST, IDLE)} <= self._rising.keys():
            return None
        times, _ = self._rising[HOST, BUSY]
        span = max(from_ns, int(times[0])), min(to_ns, int(times[-1]))
        if 2 * (span[1] - span[0]) < to_ns - from_ns:
            return None
        busy, idle, stolen = (self._used(HOST, metric, *span) for metric in (BUSY, IDLE, STOLEN))
        parts = {node: self._used(node, PROCESSES, *span) or 0.0 for node in self._nodes()}
        total = (busy or 0.0) + (idle or 0.0) + (stolen or 0.0)
        if total <= 0:
            return None
        scale = self._cores / total
        blind = self._blind or any(
            2 * self._counted_ns(node, PROCESSES, *span) < span[1] - span[0] for node in self._late
        )
        others = max((busy or 0.0) - sum(parts.values()), 0.0)
        generator, lab, kernel = parts.pop(GENERATOR, 0.0), parts.pop(LAB, None), parts.pop(KERNEL, None)
        return HostCpu(
            cores=self._cores,
            servers=None if blind else {node: used * scale for node, used in parts.items()},
            generator=generator * scale,
            lab=None if lab is None else lab * scale,
            others=None if blind else others * scale,
            idle=(idle or 0.0) * scale,
            stolen=None if stolen is None else stolen * scale,
            kernel=None if kernel is None else kernel * scale,
        )

    def _nodes(self) -> list[str]:
        return [node for node, metric in self._rising if metric == PROCESSES]

    def _counted_ns(self, node: str, metric: str, from_ns: int, to_ns: int) -> int:
        """How much of a span a counter covers; nothing if there is no such counter."""
        if (node, metric) not in self._rising:
            return 0
        times, _ = self._rising[node, metric]
        return min(to_ns, int(times[-1])) - max(from_ns, int(times[0]))

    def _used(self, node: str, metric: str, from_ns: int, to_ns: int) -> float | None:
        """What a counter rose by; None if there is no such counter."""
        if (node, metric) not in self._rising:
            return None
        times, values = self._rising[node, metric]
        before, after = np.interp([from_ns, to_ns], times, values)
        # The engine of containers counts once a second: what came since its last count goes on as before.
        counted_ns = self._counted_ns(node, metric, from_ns, to_ns)
        missing = 2 * counted_ns < to_ns - from_ns
        return float(after - before) * (1.0 if missing else (to_ns - from_ns) / counted_ns)


def _rising(series: Series, *, restarts: bool) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """A counter as if it had never fallen. One of a server that is restarted begins again at zero; one of the machine
    only ever falls by a rounding, or because waiting for a disk was counted differently (proc(5), iowait)."""
    times, values = np.asarray(series[0], dtype=np.int64), np.asarray(series[1], dtype=np.float64)
    steps = np.diff(values)
    steps = np.where(steps < 0, values[1:] if restarts else 0.0, steps)
    return times, np.concatenate([[0.0], np.cumsum(steps)])


def pooled(accounts: Sequence[tuple[HostCpu, float]]) -> HostCpu:
    """Several accounts of one machine as one: their means, each with its weight. What one does not know is unknown."""
    whole = sum(weight for _, weight in accounts)

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return None
        return sum(value * weight for value, (_, weight) in zip(known, accounts, strict=True)) / whole

    by_node = [each.servers for each, _ in accounts if each.servers is not None]
    names = dict.fromkeys(name for each in by_node for name in each)
    blind = len(by_node) < len(accounts)
    return HostCpu(
        cores=accounts[0][0].cores,
        servers=None if blind else {name: mean([each.get(name, 0.0) for each in by_node]) or 0.0 for name in names},
        generator=mean([each.generator for each, _ in accounts]) or 0.0,
        lab=mean([each.lab for each, _ in accounts]),
        others=mean([each.others for each, _ in accounts]),
        idle=mean([each.idle for each, _ in accounts]) or 0.0,
        stolen=mean([each.stolen for each, _ in accounts]),
        kernel=mean([each.kernel for each, _ in accounts]),
    )


def disturbed(known: Sequence[tuple[Block, HostCpu]]) -> dict[int, bool | None]:
    """The number of each block -> whether others disturbed it; None: not known.

    Blocks too short to be judged alone are judged together: short rounds of a workload on an arm, and of a cell those
    of less than a second, in which the ticks of the counters weigh too much.
    """
    together: dict[Hashable, list[tuple[Block, HostCpu]]] = {}
    for block, account in known:
        key: Hashable = block.block
        if isinstance(block, LoadBlock) and block.intervention:
            key = block.workload, block.arm
        elif block.measured_s < _ALONE_S:
            key = block.cell
        together.setdefault(key, []).append((block, account))
    found: dict[int, bool | None] = {}
    for group in together.values():
        one = group[0][1] if len(group) == 1 else pooled([(account, block.measured_s) for block, account in group])
        found |= {block.block: one.disturbed for block, _ in group}
    return found
