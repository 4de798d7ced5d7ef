"""`make bench`: labkit's load generator beside pgbench, asyncpg, psycopg's pool and Locust.

In every round all contenders run in turn on one server, with the same query and the same number of connections; each
in a process of its own. Prints a table of medians and ranges; writes JSON and a figure.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import psycopg
from matplotlib.figure import Figure

from benchmarks.contenders import WARMUP_S, Job
from labkit import paths
from labkit.lab import dataset, environment, providers
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.providers.protocol import ClusterSpec
from labkit.lab.workloads.get_user import GetUserByNumber

LABELS = {
    "labkit": "labkit",
    "pgbench": "pgbench -M prepared -j 1",
    "asyncpg_pool": "asyncpg pool, uvloop",
    "psycopg_pool": "psycopg AsyncConnectionPool, uvloop",
    "locust_users": "Locust, psycopg users",
}


_PG = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
"""Keyword of a connection string -> the environment variable that libpq takes it from."""


def pgbench(job: Job, cluster: Cluster) -> dict[str, float]:
    """pgbench on the same statement; its users are its connections."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "get-user.sql"
        script.write_text(
            f"\\set number random(0, {job.rows - 1})\n{job.statement.replace('$1', ':number')};\n", encoding="utf-8"
        )
        known = psycopg.conninfo.conninfo_to_dict(job.conninfo)
        words = [Path(cluster.binaries) / "pgbench", "-n", "-M", "prepared", "-j", 1, "-c", job.connections]
        words += ["-T", round(job.seconds + WARMUP_S), "-f", script]
        # Every user can read a command line.
        server = {variable: str(known[name]) for name, variable in _PG.items() if name in known}
        environment = os.environ | server
        process = subprocess.Popen([str(word) for word in words], env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    rate = re.search(r"tps = ([\d.]+)", said)
    count = re.search(r"number of transactions actually processed: (\d+)", said)
    if process.returncode or not rate or not count:
        raise click.ClickException(f"pgbench failed: {said}")
    requests = int(count.group(1))
    return {
        "requests": requests,
        "seconds": requests / float(rate.group(1)),
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def contender(name: str, job: Job, cluster: Cluster) -> dict[str, float]:
    if name == "pgbench":
        return pgbench(job, cluster)
    words, asked = [sys.executable, "-m", "benchmarks.contenders", name], json.dumps(asdict(job))
    done = subprocess.run(
        words, input=asked, capture_output=True, text=True, timeout=60 + 10 * job.seconds, check=False
    )
    if done.returncode:
        raise click.ClickException(f"{name} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def summary(rounds: list[dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """One row per contender: throughput and CPU as median, min, max; the ratio to labkit round by round."""
    rows = []
    for name in rounds[0]:
        rate = [r[name]["requests"] / r[name]["seconds"] for r in rounds]
        cost = [1e6 * r[name]["cpu_s"] / r[name]["requests"] for r in rounds]
        ratio = [
            (r["labkit"]["requests"] / r["labkit"]["seconds"]) / (r[name]["requests"] / r[name]["seconds"])
            for r in rounds
        ]
        rows.append(
            {
                "client": LABELS[name],
                "requests_per_s": _spread(rate),
                "cpu_us_per_request": _spread(cost),
                "labkit_is_times": _spread(ratio),
            }
        )
    return rows


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| client | requests/s | client CPU per request | labkit's throughput is |", "|---|---:|---:|---:|"]
    for row in rows:
        rate, cost, ratio = row["requests_per_s"], row["cpu_us_per_request"], row["labkit_is_times"]
        lines.append(
            f"| {row['client']} | {rate['median']:,.0f} ({rate['min']:,.0f} – {rate['max']:,.0f}) "
            f"| {cost['median']:.1f} µs ({cost['min']:.1f} – {cost['max']:.1f}) "
            f"| {ratio['median']:.2f} × ({ratio['min']:.2f} – {ratio['max']:.2f}) |"
        )
    return "\n".join(lines)


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    fig = Figure(figsize=(9.5, 3.2), layout="constrained")
    panels = fig.subplots(1, 2, sharey=True)
    for ax, key, label in zip(
        panels,
        ("requests_per_s", "cpu_us_per_request"),
        ("requests/s (more is better)", "client CPU, µs/request (less is better)"),
        strict=True,
    ):
        median = [row[key]["median"] for row in rows]
        error = [[m - row[key]["min"] for m, row in zip(median, rows, strict=True)]]
        error += [[row[key]["max"] - m for m, row in zip(median, rows, strict=True)]]
        colours = ["#0072B2" if i == 0 else "#999999" for i in range(len(rows))]
        bars = ax.barh([row["client"] for row in rows], median, xerr=error, color=colours, ecolor="#333333")
        ax.bar_label(bars, [f"{m:,.0f}" for m in median], padding=12, fontsize=9)
        ax.set_xlabel(label)
        ax.margins(x=0.25)
        ax.locator_params(axis="x", nbins=4)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    fig.savefig(path)


@click.command()
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="measured seconds of each contender in each round")
@click.option("--users", default=1000, show_default=True, help="virtual users of all but pgbench")
@click.option("--connections", default=32, show_default=True)
@click.option("--rows", default=1_000_000, show_default=True, help="users in the table")
@click.option("--only", multiple=True, type=click.Choice(list(LABELS)), help="labkit and these (default: all)")
@click.option("--out", type=click.Path(path_type=Path), help="folder for bench.json and bench.svg")
def main(
    rounds: int, seconds: float, users: int, connections: int, rows: int, only: tuple[str, ...], out: Path
) -> None:
    """Benchmark the load generators against one embedded server."""
    if psycopg.pq.__impl__ == "python":
        raise click.ClickException("this would measure psycopg's pure Python pq; install psycopg[binary]")
    names = ["labkit", *(name for name in LABELS if name != "labkit" and (not only or name in only))]
    out = out or paths.data() / "bench"
    out.mkdir(parents=True, exist_ok=True)
    provider = providers.provider("embedded")
    cluster = provider.up(ClusterSpec(name="bench", replicas=0))
    try:
        spec = dataset.DatasetSpec(rows)
        dataset.seed(cluster, spec)
        statement = GetUserByNumber(spec).statement
        job = Job(cluster.primary().conninfo("app"), statement, rows, spec.seed, users, connections, seconds)
        measured: list[dict[str, dict[str, float]]] = []
        with click.progressbar(length=rounds * len(names), label="measuring", file=sys.stderr) as bar:
            for number in range(rounds):
                order = names if number % 2 == 0 else names[::-1]
                found = {}
                for name in order:
                    found[name] = contender(name, job, cluster)
                    bar.update(1)
                measured.append({name: found[name] for name in names})
    finally:
        provider.down("bench")
    rows_out = summary(measured)
    commit = environment.commit()
    facts = {"versions": environment.versions(), "git": commit and commit.as_json()}
    facts |= {"host": environment.host().as_json(), "postgresql": cluster.version}
    facts |= {"users": users, "connections": connections}
    content = {"facts": facts, "rows": rows, "seconds": seconds, "summary": rows_out, "rounds": measured}
    (out / "bench.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    figure(rows_out, out / "bench.svg")
    print(
        f"{rounds} rounds of {seconds:g} s, {connections} connections, {users} users, {rows:,} rows; median (range)\n"
    )
    print(table(rows_out))
    print(f"\n{out / 'bench.json'}\n{out / 'bench.svg'}")


if __name__ == "__main__":
    main()
