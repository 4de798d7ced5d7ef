"""One client under test, in a process of its own: `python -m benchmarks.contenders NAME`, its job on standard input.

The job is JSON. It holds a password, and a command line can be read by every user of the machine.

Every contender sends the same query with the same random user numbers through the same number of connections, checks
that one row came back, and counts only requests that were answered in the measured seconds. Prints JSON:
requests, seconds, cpu_s.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WARMUP_S = 1.0


@dataclass(frozen=True)
class Job:
    """What to do: users send requests through connections during the warm-up and then for `seconds`."""

    conninfo: str
    statement: str  # with $1
    rows: int
    seed: int
    users: int
    connections: int
    seconds: float


class Meter:
    """Counts answers inside the measured seconds, and the CPU used meanwhile."""

    def __init__(self, seconds: float) -> None:
        now = time.perf_counter()
        self._from, self.until = now + WARMUP_S, now + WARMUP_S + seconds
        self.requests, self._cpu, self._began = 0, 0.0, 0.0

    def answered(self) -> bool:
        """Count one answer; False when the time is over."""
        now = time.perf_counter()
        if now < self._from:
            return True
        if not self._began:
            self._began, self._cpu = now, time.process_time()
        if now < self.until:
            self.requests += 1
            return True
        return False

    def result(self) -> dict[str, float]:
        return {
            "requests": self.requests,
            "seconds": self.until - self._began,
            "cpu_s": time.process_time() - self._cpu,
        }


def labkit(job: Job) -> dict[str, float]:
    """labkit's event loop, recording everything that a run records."""
    from labkit.lab.dataset import DatasetSpec
    from labkit.lab.load.arrivals import Closed
    from labkit.lab.load.engine import run_load
    from labkit.lab.load.spec import LoadSpec, Target
    from labkit.lab.workloads.get_user import GetUserByNumber

    with tempfile.TemporaryDirectory() as folder:
        result = run_load(
            LoadSpec(
                workload=GetUserByNumber(DatasetSpec(job.rows, seed=job.seed)),
                targets=(Target("pg1", job.conninfo, job.connections),),
                arrivals=Closed(job.users),
                duration_s=job.seconds,
                warmup_s=WARMUP_S,
                timeout_s=30,
                seed=random.randrange(2**31),
                part=Path(folder) / "ops.parquet",
            )
        )
        if result.sqlstates:
            raise SystemExit(f"requests failed: {result.problems}")
        size = (Path(folder) / "ops.parquet").stat().st_size
    seconds = (result.to_ns - result.warm_until_ns) / 1e9
    return {
        "requests": result.measured,
        "seconds": seconds,
        "cpu_s": result.cpu_percent / 100 * seconds,
        "bytes_per_request": size / result.requests,
    }


def _asynchronous(job: Job, ask: Callable[[Meter, random.Random], Awaitable[None]], meter: Meter) -> Awaitable[Any]:
    return asyncio.gather(*(ask(meter, random.Random(user)) for user in range(job.users)))


def asyncpg_pool(job: Job) -> dict[str, float]:
    """asyncpg's pool on uvloop, one task per user."""
    import asyncpg
    import uvloop
    from psycopg.conninfo import conninfo_to_dict

    async def main() -> dict[str, float]:
        known = conninfo_to_dict(job.conninfo)
        pool = await asyncpg.create_pool(
            host=known["host"],
            port=int(known["port"]),
            user=known["user"],
            password=known.get("password"),
            database=known["dbname"],
            min_size=job.connections,
            max_size=job.connections,
        )

        async def user(meter: Meter, numbers: random.Random) -> None:
            while True:
                async with pool.acquire() as connection:
                    found = await connection.fetch(job.statement, str(numbers.randrange(job.rows)))
                if len(found) != 1:
                    raise SystemExit("wrong answer")
                if not meter.answered():
                    return

        meter = Meter(job.seconds)
        await _asynchronous(job, user, meter)
        await pool.close()
        return meter.result()

    return uvloop.run(main())


def psycopg_pool(job: Job) -> dict[str, float]:
    """psycopg's AsyncConnectionPool on uvloop, one task per user."""
    import uvloop
    from psycopg_pool import AsyncConnectionPool

    statement = job.statement.replace("$1", "%s::text")

    async def main() -> dict[str, float]:
        async with AsyncConnectionPool(
            job.conninfo,
            min_size=job.connections,
            max_size=job.connections,
            timeout=60,
            kwargs={"autocommit": True, "prepare_threshold": 0},
        ) as pool:
            await pool.wait()

            async def user(meter: Meter, numbers: random.Random) -> None:
                while True:
                    async with pool.connection() as connection:
                        cursor = await connection.execute(statement, [str(numbers.randrange(job.rows))], binary=True)
                        found = await cursor.fetchall()
                    if len(found) != 1:
                        raise SystemExit("wrong answer")
                    if not meter.answered():
                        return

            meter = Meter(job.seconds)
            await _asynchronous(job, user, meter)
            return meter.result()

    return uvloop.run(main())


def locust_users(job: Job) -> dict[str, float]:
    """Locust: one greenlet per user, psycopg connections shared through a queue."""
    from gevent import monkey

    monkey.patch_all()
    import gevent
    import psycopg
    from gevent.queue import Queue
    from locust import User, constant, task
    from locust.env import Environment

    statement = job.statement.replace("$1", "%s::text")
    free: Queue[psycopg.Connection[Any]] = Queue()
    for _ in range(job.connections):
        free.put(psycopg.connect(job.conninfo, autocommit=True, prepare_threshold=0))
    meter = Meter(job.seconds)
    numbers = random.Random(job.seed)

    class Reader(User):
        wait_time = constant(0)

        @task
        def get_user(self) -> None:
            began = time.perf_counter()
            connection = free.get()
            found = connection.execute(statement, [str(numbers.randrange(job.rows))], binary=True).fetchall()
            free.put(connection)
            self.environment.events.request.fire(
                request_type="sql",
                name="get-user",
                response_time=1000 * (time.perf_counter() - began),
                response_length=len(found),
                exception=None if len(found) == 1 else AssertionError("wrong answer"),
            )
            meter.answered()

    environment = Environment(user_classes=[Reader])
    runner = environment.create_local_runner()
    runner.start(job.users, spawn_rate=job.users)
    gevent.sleep(meter.until - time.perf_counter() + 0.05)
    result = meter.result()
    runner.quit()
    if environment.stats.total.num_failures:
        raise SystemExit("wrong answer")
    return result


CONTENDERS = {f.__name__: f for f in (labkit, asyncpg_pool, psycopg_pool, locust_users)}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](Job(**json.load(sys.stdin)))))
