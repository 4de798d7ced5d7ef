"""Do more load generator processes generate more load? `python -m benchmarks.scaling`: 1, 2, … processes in turn.

The statement asks the server for next to nothing, so that the servers stay idle and the generator is the limit. Where
servers and generators share the cores, the host's CPU soon becomes the limit: it is printed too.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import click
import numpy as np
import psutil
from psycopg import pq

from labkit.lab import providers
from labkit.lab.load.arrivals import Closed
from labkit.lab.load.shards import Generators
from labkit.lab.load.spec import LoadSpec, Target, merge
from labkit.lab.providers.protocol import ClusterSpec

INT4_OID = 23


@dataclass(frozen=True)
class Echo:
    """The cheapest possible request."""

    statement: ClassVar[str] = "SELECT $1::int4"
    name: ClassVar[str] = "echo"
    writes: ClassVar[bool] = False
    types: ClassVar[tuple[int, ...]] = (INT4_OID,)

    def requests(self, rng: np.random.Generator) -> Iterator[list[bytes]]:
        while True:
            for number in rng.integers(0, 2**31, 1024).tolist():
                yield [number.to_bytes(4, "big")]

    def checker(self) -> Callable[[pq.abc.PGresult, list[bytes]], bool]:
        return lambda result, parameters: result.get_value(0, 0) == parameters[0]


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3.0, show_default=True)
@click.option("--most", default=2, show_default=True, help="largest number of processes")
@click.option("--connections", default=16, show_default=True)
def main(rounds: int, seconds: float, most: int, connections: int) -> None:
    """Measure 1 … MOST generator processes in turn against one embedded server."""
    provider = providers.provider("embedded")
    cluster = provider.up(ClusterSpec(name="bench", replicas=0))
    counts = list(range(1, most + 1))
    rates: dict[int, list[float]] = {n: [] for n in counts}
    busy: dict[int, list[float]] = {n: [] for n in counts}
    hosts: dict[int, list[float]] = {n: [] for n in counts}
    generators = {n: Generators(n) for n in counts}
    try:
        for r in range(rounds):
            for n in counts if r % 2 == 0 else counts[::-1]:
                with tempfile.TemporaryDirectory() as folder:
                    spec = LoadSpec(
                        workload=Echo(),
                        targets=(Target("pg1", cluster.primary().conninfo("app"), connections),),
                        arrivals=Closed(connections),
                        duration_s=seconds,
                        warmup_s=0.5,
                        timeout_s=30,
                        seed=r,
                        part=Path(folder) / "ops.parquet",
                    )
                    psutil.cpu_percent()
                    result = merge(generators[n].load(spec))
                    hosts[n].append(psutil.cpu_percent())
                rates[n].append(result.measured / ((result.to_ns - result.warm_until_ns) / 1e9))
                busy[n].append(result.cpu_percent)
    finally:
        for each in generators.values():
            each.close()
        provider.down("bench")
    where = f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
    print(f"{rounds} rounds of {seconds:g} s, {connections} connections, {where}\n")
    print("| processes | requests/s | times one | busiest generator | host |\n|---:|---:|---:|---:|---:|")
    for n in counts:
        ratio = statistics.median(a / b for a, b in zip(rates[n], rates[1], strict=True))
        rate, own, host = (statistics.median(values[n]) for values in (rates, busy, hosts))
        print(f"| {n} | {rate:,.0f} | {ratio:.2f} | {own:.0f} % of a core | {host:.0f} % of all cores |")


if __name__ == "__main__":
    main()
