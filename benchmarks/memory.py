"""What millions of requests cost: memory while they are recorded, bytes on disk, seconds until all figures are drawn.

`python -m benchmarks.memory --requests 10_000_000` records synthetic requests through the load generator's own
recorder, then runs every cell of notebooks/read_scaling.ipynb on that run. Each part is a process of its own, whose
peak memory is read from the kernel. Prints JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

ARMS, WORKLOADS, ROUNDS = ("primary-only", "replicas-round-robin"), ("get-user", "search-users"), 6
USERS, SECOND = 1000, 1_000_000_000


def record(folder: Path, requests: int) -> dict[str, Any]:
    """Write a run of that many requests, as 1,000 users at 40,000 requests per second would make them."""
    from labkit.experiments.read_scaling.parameters import ReadScaling
    from labkit.lab.load.records import DTYPE, Recorder
    from labkit.run import layout
    from labkit.run.schema import LoadBlock
    from labkit.run.store import RunStore

    rng = np.random.default_rng(1)
    blocks: list[LoadBlock] = []
    run = RunStore(folder).create("read-scaling", ReadScaling().as_dict(), provider="embedded", nodes=[])
    order = [(w, r, a) for w in WORKLOADS for r in range(ROUNDS) for a in ARMS]
    each, now = requests // len(order), SECOND
    for number, (workload, turn, arm) in enumerate(order):
        length = each * 25_000
        with run.writer("ops", number) as writer:
            recorder = Recorder(writer, number, ["pg1", "pg2", "pg3"])
            recorder.window = (now, now + length)
            view = np.frombuffer(recorder.buffer, dtype=DTYPE)
            for first in range(0, each, len(view)):
                n = min(len(view), each - first)
                chunk = view[:n]
                done = now + first * 25_000 + np.sort(rng.integers(0, n * 25_000, n))
                chunk["latency_ns"] = rng.gamma(20, USERS * 25_000 / 20, n)
                chunk["wait_ns"] = chunk["latency_ns"] - rng.gamma(5, 120_000, n).clip(max=1_000_000)
                chunk["start_ns"] = done - chunk["latency_ns"]
                chunk["rows"], chunk["sqlstate"], chunk["outcome"] = 1, 0, 0
                chunk["node"] = rng.integers(0, 3, n)
                recorder.offset = n * recorder.size
                recorder.flush()
        blocks.append(
            LoadBlock(
                block=number,
                workload=workload,
                arm=arm,
                round=turn,
                from_ns=now,
                warm_until_ns=now,
                to_ns=now + length,
                requests=each,
                measured=each,
                vus=USERS,
                generator_cpu_percent=60.0,
                pool_busy_fraction=0.9,
                nodes=["pg1"],
                connections={"pg1": USERS},
            )
        )
        now += length + SECOND
    times = np.arange(0, now, SECOND)
    metrics = ("cpu_seconds_total", "memory_bytes", "read_bytes_total", "connections_active", "lag_bytes")
    rows = [(t, node, m) for t in times.tolist() for node in ("pg1", "pg2", "pg3", "host") for m in metrics]
    with run.writer("samples", "sampler") as samples:
        t_ns, node, metric = zip(*rows, strict=True)
        samples.write(
            {"t_ns": np.array(t_ns), "node": list(node), "metric": list(metric), "value": np.array(t_ns) / 2e9}
        )
    run.update(blocks=blocks)
    run.mark("complete")
    size = sum(part.stat().st_size for part in layout.parts(run.path, "ops"))
    return {"run": str(run.path), "bytes_per_request": size / (each * len(order)), "requests": each * len(order)}


def read(folder: Path, _: int) -> dict[str, Any]:
    """Run the cells of the read-scaling notebook on that run, and draw every figure that they return."""
    import ast

    import nbformat

    from labkit import paths

    cells = nbformat.read(paths.notebooks() / "read_scaling.ipynb", as_version=4).cells
    namespace: dict[str, Any] = {}
    spent: dict[str, float] = {}
    for i, cell in enumerate(cell for cell in cells if cell.cell_type == "code"):
        began = time.process_time()
        body = ast.parse(cell.source).body
        if i == 1:
            namespace["run_id"] = str(next(folder.glob("*/2*")))
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), "cell", "exec"), namespace)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
            shown.svg() if hasattr(shown, "svg") else str(shown)
        spent[cell.source.splitlines()[-1][:60]] = round(time.process_time() - began, 2)
    return {"cpu_seconds": round(time.process_time(), 2), "cells": spent}


@click.command()
@click.option("--requests", default=10_000_000, show_default=True)
def main(requests: int) -> None:
    """Record that many synthetic requests and draw them."""
    with tempfile.TemporaryDirectory(prefix="labkit-memory-") as folder:
        found = {part: _in_a_process(part, Path(folder), requests) for part in ("record", "read")}
    print(json.dumps(found, indent=1))


def _in_a_process(part: str, folder: Path, requests: int) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.memory", "--part", part, str(folder), str(requests)]
    began = time.perf_counter()
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"seconds": round(time.perf_counter() - began, 2)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        result = {"record": record, "read": read}[sys.argv[2]](Path(sys.argv[3]), int(sys.argv[4]))
        # Linux counts in KiB, macOS in bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps(result | {"peak_rss_mb": round(peak / 1e6, 1)}))
    else:
        main()
