"""Run `labkit failover` on cluster `own` in a process of its own and end it by a signal, inside a step; for tests.

For each line `PLACE<tab>SIGNAL` on stdin it forks such a process, and prints how that ended: its exit code, or the
signal's number below zero. The signal comes in the middle of the step, not at its ends: the call that PLACES names
is made or left out, and then the process signals itself.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from labkit.cli import main
from labkit.lab.cluster import promotion, sql
from labkit.lab.cluster.node import Node
from labkit.lab.failover import FailoverSteps, candidates, faults, survivors
from labkit.lab.providers.embedded.server import EmbeddedServer

PLACES: dict[str, tuple[Any, str, bool]] = {
    # what stands for the step in the tests: whose attribute, its name, whether it is still called
    "survey": (survivors, "look_at", True),
    "survey, one receiver stopped": (faults, "stop_receiving", True),
    "decide": (candidates, "decide", False),
    "preflight": (promotion, "_standby_signal", True),
    "fence, not marked": (EmbeddedServer, "put", False),
    "fence, marked": (EmbeddedServer, "put", True),
    "promote, not asked": (sql, "begin_promotion", False),
    "promote, asked": (sql, "begin_promotion", True),  # from then on it is promoted: this works but once
    "repair": (sql, "reload", False),
    "route": (FailoverSteps, "run", True),
    "repoint, slot made": (sql, "create_slot", True),
    "repoint, one told": (Node, "follow", True),
    "repoint, one streams": (Node, "wait_following", True),
}


def cut_off(place: str, number: signal.Signals) -> None:
    owner, name, called = PLACES[place]
    original: Callable[..., Any] = getattr(owner, name)

    def end() -> None:
        os.kill(os.getpid(), number)

    def replaced(*args: Any, **kwargs: Any) -> None:
        if called:
            original(*args, **kwargs)
        end()

    def routed(steps: FailoverSteps) -> Node:
        return original(steps, on_promoted=lambda _: end())  # type: ignore[no-any-return]

    setattr(owner, name, routed if place == "route" else replaced)
    main(["failover", "--name", "own", "--old", "pg1"])


def serve() -> None:
    for line in sys.stdin:
        place, name = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
                cut_off(place, signal.Signals[name])
            except SystemExit as ended:
                code = int(ended.code or 0)
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
