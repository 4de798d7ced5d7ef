"""Where a request's client CPU goes: `python -m benchmarks.profile` samples the event loop while it runs.

A timer interrupts the process every millisecond of CPU and records the line of the load generator that was running; a
line of Python stands for the libpq and system calls that it makes. Unlike a tracing profiler, this slows
nothing down.
"""

from __future__ import annotations

import linecache
import signal
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType

import click

from labkit.lab import dataset, environment, providers
from labkit.lab.load.arrivals import Closed
from labkit.lab.load.engine import run_load
from labkit.lab.load.spec import LoadSpec, Target
from labkit.lab.providers.protocol import ClusterSpec
from labkit.lab.workloads.get_user import GetUserByNumber

# What a line is for, by what it contains; the first match counts.
KINDS = (
    ("slot.consume()", "receive (recv)"),
    ("slot.send(", "send (send)"),
    ("slot.flush()", "send (send)"),
    ("in wait(", "wait for sockets (epoll)"),
    ("_poll(", "wait for sockets (epoll)"),
    ("select(", "wait for sockets (epoll)"),
    ("get()", "take the result from libpq"),
    ("busy()", "take the result from libpq"),
    ("check(", "check the answer"),
    ("return result.ntuples", "check the answer"),
    ("ids[", "check the answer"),
    ("int(parameters", "check the answer"),
    ("next(self._parameters)", "choose parameters"),
    ("yield", "choose parameters"),
    ("pack", "record"),
    ("recorder", "record"),
)
_EVERY_S = 0.001


class Sampler:
    """Counts (file, line) of the innermost frame of Python."""

    def __init__(self) -> None:
        self.lines: Counter[tuple[str, int]] = Counter()

    def __call__(self, _: int, frame: FrameType | None) -> None:
        if frame is not None:
            self.lines[frame.f_code.co_filename, frame.f_lineno or 0] += 1

    def kinds(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for (file, number), count in self.lines.items():
            source = linecache.getline(file, number)
            store = "/pyarrow/" in file or file.endswith(("store.py", "records.py"))
            kind = "record" if store else next((k for text, k in KINDS if text in source), "the loop itself")
            found[kind] += count
        return found


@click.command()
@click.option("--seconds", default=8.0, show_default=True)
@click.option("--users", default=1000, show_default=True)
@click.option("--connections", default=32, show_default=True)
@click.option("--rows", default=100_000, show_default=True)
@click.option("--lines", default=0, show_default=True, help="show the most expensive lines too")
def main(seconds: float, users: int, connections: int, rows: int, lines: int) -> None:
    """Profile the load generator against one embedded server."""
    provider = providers.provider("embedded")
    cluster = provider.up(ClusterSpec(name="bench", replicas=0))
    sampler = Sampler()
    try:
        data = dataset.DatasetSpec(rows)
        dataset.seed(cluster, data)
        with tempfile.TemporaryDirectory() as folder:
            spec = LoadSpec(
                workload=GetUserByNumber(data),
                targets=(Target("pg1", cluster.primary().conninfo("app"), connections),),
                arrivals=Closed(users),
                duration_s=seconds,
                warmup_s=1.0,
                timeout_s=30,
                seed=1,
                part=Path(folder) / "ops.parquet",
            )
            signal.signal(signal.SIGPROF, sampler)
            signal.setitimer(signal.ITIMER_PROF, _EVERY_S, _EVERY_S)
            try:
                result = run_load(spec)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
    finally:
        provider.down("bench")
    rate = result.measured / seconds
    cost_us = 1e6 * result.cpu_percent / 100 / rate
    total = sum(sampler.lines.values())
    print(f"{rate:,.0f} requests/s, {cost_us:.1f} µs of CPU each; {total} samples; {environment.host().cpu}\n")
    print("| what | share | µs per request |\n|---|---:|---:|")
    for kind, count in sampler.kinds().most_common():
        print(f"| {kind} | {count / total:.0%} | {cost_us * count / total:.1f} |")
    for (file, number), count in sampler.lines.most_common(lines):
        print(f"{count / total:6.1%}  {Path(file).name}:{number}  {linecache.getline(file, number).strip()}")


if __name__ == "__main__":
    main()
