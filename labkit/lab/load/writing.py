"""Write load in the background: writers append rows, a ledger notes each, and a route says which node they go to."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from labkit.errors import ClusterError, LoadError
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.load import route
from labkit.lab.load.arrivals import Closed
from labkit.lab.load.shards import Generators
from labkit.lab.load.spec import LoadResult, LoadSpec, Target
from labkit.lab.workloads.append_rows import AppendRows
from labkit.remedies import Remedy
from labkit.run import layout, ledger
from labkit.run.store import Run
from labkit.units import count

LONGEST_S = 24 * 3600.0
_ENDING_S = 15.0


@dataclass
class WriteLoad:
    """Writers under way. `result` is there after `stop`."""

    run: Run
    spec: LoadSpec
    future: concurrent.futures.Future[LoadResult]
    serving: str
    result: LoadResult | None = None
    cut_off: int = field(default=0)
    """Transactions without an outcome in the ledger, because their generator was killed."""

    def follow(self, node: Node) -> None:
        """Send the writers to another node; they notice within 10 ms."""
        assert self.spec.route is not None
        route.point(self.spec.route, node.name)
        self.serving = node.name

    def wait_acknowledged(self, transactions: int = 1, deadline_s: float = 40.0) -> None:
        """Until the node that writers are sent to has acknowledged so many more transactions.

        Raises LoadError if the load ended instead, WaitTimeout.
        """
        assert self.spec.ledger is not None
        path, before = self.spec.ledger, ledger.noted(self.spec.ledger)

        def there() -> bool:
            if self.future.done():
                self.stop()
                raise LoadError("the write load ended before its time")
            return ledger.acknowledged(path, self.serving, before) >= transactions

        wait_until(there, deadline_s, f"{count(transactions, 'more acknowledged transaction')} on {self.serving}")

    def stop(self) -> LoadResult:
        """End the load, wait for the last answers and settle the ledger into the run. Raises LoadError."""
        if self.result is not None:
            return self.result
        assert self.spec.stop_file is not None
        assert self.spec.ledger is not None
        self.spec.stop_file.touch()
        try:
            self.result = self.future.result(self.spec.timeout_s + _ENDING_S)
        except concurrent.futures.process.BrokenProcessPool as error:
            helps = Remedy("audit", "reads it", run=self.run.id)
            raise LoadError("the load generator died; its ledger is kept", remedy=helps) from error
        finally:
            self.spec.stop_file.unlink(missing_ok=True)
        assert self.spec.route is not None
        self.spec.route.unlink()
        self.cut_off = ledger.settle_file(self.spec.ledger, self.run, self.spec.block)
        return self.result


def prepare(cluster: Cluster, workload: AppendRows, deadline_s: float = 30.0) -> None:
    """Make the empty table, and wait until every replica has it. Raises ClusterError, WaitTimeout."""
    with cluster.primary().session() as connection:
        for statement in workload.schema:
            connection.execute(statement)
    cluster.wait_for_catchup(deadline_s)


def begin(
    cluster: Cluster,
    run: Run,
    generators: Generators,
    workload: AppendRows,
    *,
    writers: int = 10,
    timeout_s: float = 30.0,
    seed: int = 0,
    block: int = 0,
    duration_s: float = LONGEST_S,
) -> WriteLoad:
    """Begin to write on the primary: each of `writers` waits for its answer before it writes again.

    Connections to every node are opened at once, so that a change of route costs no connecting. The load ends with
    `stop`, or after `duration_s`. Raises ClusterError.
    """
    primary = cluster.primary()
    nodes = [node for node in cluster.nodes if node.control.running()]
    spec = LoadSpec(
        workload=workload,
        targets=tuple(Target(node.name, node.conninfo("app"), writers) for node in nodes),
        arrivals=Closed(writers),
        duration_s=duration_s,
        warmup_s=0.0,
        timeout_s=timeout_s,
        seed=seed,
        part=run.tables.new("ops", block),
        block=block,
        epoch_ns=run.epoch_ns,
        stop_file=layout.stop(run.path),
        ledger=layout.ledger(run.path, block),
        route=layout.route(run.path, block),
    )
    assert spec.route is not None
    spec.route.parent.mkdir(exist_ok=True)
    route.point(spec.route, primary.name)
    return WriteLoad(run, spec, generators.begin(spec), primary.name)


@contextlib.contextmanager
def writing(load: WriteLoad) -> Iterator[WriteLoad]:
    """The load, stopped in any case at the end."""
    try:
        yield load
    except BaseException:
        # The load's own trouble must not hide what went wrong here.
        with contextlib.suppress(LoadError, ClusterError):
            load.stop()
        raise
    load.stop()
