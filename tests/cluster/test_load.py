"""The load generator against real servers: nothing is lost, nothing hangs, trouble becomes records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import pytest
from fix_load import DATA, drive, in_background, targets, with_connections
from psycopg.conninfo import make_conninfo

from labkit.errors import LoadError
from labkit.lab import dataset
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.cluster.powers import Killable
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.load import records
from labkit.lab.load.arrivals import Closed, Open
from labkit.lab.load.engine import run_load
from labkit.lab.load.shards import Generators, LoadInterrupted
from labkit.lab.load.spec import LoadResult, LoadSpec, Target, merge
from labkit.lab.routing import nodes_for
from labkit.lab.routing.arms import REPLICAS
from labkit.lab.workloads.get_user import GetUser, GetUserByNumber
from labkit.lab.workloads.search_users import SearchUsers
from labkit.run import layout
from labkit.run.parts import Tables

pytestmark = pytest.mark.alone

INT4_OID = 23


@dataclass(frozen=True)
class Ask:
    """Any statement with one int4 parameter that counts from 0."""

    statement: str
    name: ClassVar[str] = "ask"
    writes: bool = False
    types: ClassVar[tuple[int, ...]] = (INT4_OID,)

    def requests(self, rng: np.random.Generator) -> Iterator[list[bytes]]:
        del rng
        for i in range(2**31):
            yield [i.to_bytes(4, "big")]

    def checker(self) -> Callable[..., bool]:
        return lambda result, _: result.ntuples == 1


def test_times_are_in_order_and_users_wait_their_turn(load: LoadSpec) -> None:
    result, ops = drive(load)
    assert (ops[["start_ns", "wait_ns", "latency_ns"]] >= 0).all(axis=None)
    assert (ops["wait_ns"] <= ops["latency_ns"]).all()
    done = ops["start_ns"] + ops["latency_ns"]
    inside = ops[(done >= result.warm_until_ns) & (done < result.to_ns)]
    assert len(inside) == result.measured
    # Little's law, with 20 users on 4 connections: users = throughput x mean time, and 16 of 20 wait at any moment
    users = len(inside) * inside["latency_ns"].mean() / (result.to_ns - result.warm_until_ns)
    assert users == pytest.approx(20, rel=0.05)
    assert inside["wait_ns"].sum() / inside["latency_ns"].sum() == pytest.approx(16 / 20, rel=0.1)
    assert result.pool_busy_fraction > 0.9


def test_replicas_take_turns(load: LoadSpec, seeded: Cluster) -> None:
    replicas = nodes_for(REPLICAS, seeded)
    _, ops = drive(replace(load, targets=targets(replicas)))
    share = ops["node"].value_counts(normalize=True)
    assert set(share.index) == {node.name for node in replicas}
    assert share.min() == pytest.approx(1 / len(replicas), rel=0.02)


@pytest.mark.parametrize("hit_ratio", [0.0, 0.5, 1.0])
def test_searches_hit_and_miss_as_asked(load: LoadSpec, hit_ratio: float) -> None:
    result, ops = drive(replace(load, workload=SearchUsers(DATA, hit_ratio)))
    assert not result.sqlstates
    assert (ops["rows"] > 0).mean() == pytest.approx(hit_ratio, abs=0.05)


def test_the_server_computes_the_same_ids(load: LoadSpec) -> None:
    result, _ = drive(replace(load, workload=GetUserByNumber(DATA)))
    assert result.requests > 100
    assert not result.sqlstates


def test_a_wrong_answer_is_a_failed_request(load: LoadSpec) -> None:
    twice = dataset.DatasetSpec(2 * DATA.users, DATA.locale)  # half of these users were never seeded
    result, ops = drive(replace(load, workload=GetUser(twice)))
    wrong = ops["sqlstate"] == records.WRONG_ANSWER
    assert wrong.mean() == pytest.approx(0.5, abs=0.05)
    assert set(ops[wrong]["outcome"]) == {"fail"}
    assert records.WRONG_ANSWER in result.problems


def test_an_error_of_the_server_is_a_record_and_the_run_goes_on(load: LoadSpec) -> None:
    result, ops = drive(replace(load, workload=Ask("SELECT 1 / ($1::int4 % 2)")))
    refused = ops["sqlstate"] == "22012"
    assert refused.mean() == pytest.approx(0.5, abs=0.02)
    assert result.sqlstates["22012"] == refused.sum()
    assert "division by zero" in result.problems["22012"]
    assert result.measured > 100


def test_a_request_has_a_deadline_and_others_go_on(load: LoadSpec) -> None:
    slow_seventh = Ask("SELECT pg_sleep(CASE WHEN $1::int4 % 7 = 3 THEN 30 ELSE 0.001 END)")
    began = time.monotonic()
    result, ops = drive(replace(load, workload=slow_seventh, timeout_s=0.3))
    assert time.monotonic() - began < 10
    late = ops[ops["sqlstate"] == records.DEADLINE]
    assert len(late) > 3
    assert late["latency_ns"].between(0.3e9, 0.6e9).all()
    assert (ops["outcome"] == "ok").sum() > 10
    assert result.requests == len(ops)


def test_a_write_whose_answer_never_came_is_unknown(load: LoadSpec) -> None:
    forever = Ask("SELECT pg_sleep(30 + $1::int4 * 0)", writes=True)
    _, ops = drive(replace(load, workload=forever, timeout_s=0.3, arrivals=Closed(4)))
    assert set(ops["outcome"]) == {"unknown"}


def test_an_open_load_counts_from_when_a_request_was_due(load: LoadSpec) -> None:
    result, ops = drive(replace(load, arrivals=Open(500, "constant"), warmup_s=0, duration_s=2))
    assert len(ops) == pytest.approx(1000, abs=2)
    due = np.sort(ops["start_ns"].to_numpy()) - result.from_ns
    assert np.allclose(np.diff(due), 2e6, atol=10)  # ns


def test_what_may_not_be_in_flight_is_dropped_and_counted(load: LoadSpec) -> None:
    arrivals = Open(200, "constant", max_in_flight=3)
    result, ops = drive(replace(load, workload=Ask("SELECT pg_sleep(0.1 + 0 * $1::int4)"), arrivals=arrivals))
    dropped = ops["sqlstate"] == records.DROPPED
    assert result.dropped == dropped.sum() > 100
    assert len(ops) == pytest.approx(240, abs=3)
    assert (ops["outcome"] == "ok").sum() > 20


def test_users_come_and_go_by_stages(load: LoadSpec) -> None:
    stages = ((10, 0.0), (10, 0.5), (1, 0.0), (1, 0.5))
    spec = replace(load, arrivals=Closed(10, stages=stages), workload=Ask("SELECT pg_sleep(0.01 + 0 * $1::int4)"))
    result, ops = drive(replace(spec, warmup_s=0, targets=with_connections(spec, 10)))
    first = ops["start_ns"].sub(result.from_ns).lt(0.5e9).sum()
    second = len(ops) - first
    assert 5 < first / second < 15


def test_thinking_users_ask_less(load: LoadSpec) -> None:
    result, ops = drive(replace(load, arrivals=Closed(10, think_s=0.1), warmup_s=0))
    assert 50 <= len(ops) <= 10 * 11
    assert result.requests == len(ops)


def test_a_node_that_is_not_there_is_named_before_anything_starts(load: LoadSpec) -> None:
    with pytest.raises(LoadError, match="pg9: connection 1 of 4"):
        run_load(replace(load, targets=(Target("pg9", "host=127.0.0.1 port=1 dbname=labkit", 4),)))


def test_too_many_connections_say_how_many_would_do(load: LoadSpec, seeded: Cluster) -> None:
    allowed = int(seeded.primary().settings(["max_connections"])["max_connections"])
    with pytest.raises(LoadError, match=rf"max_connections to at least {allowed + 50 + 20}"):
        run_load(replace(load, targets=with_connections(load, allowed + 50)))


def test_an_order_to_stop_ends_the_load_and_keeps_what_was_measured(
    load: LoadSpec, seeded: Cluster, tmp_path: Path
) -> None:
    stop = layout.stop(tmp_path)
    spec = replace(load, duration_s=60, warmup_s=0, stop_file=stop)
    ended = in_background(spec)
    asked = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE indexrelname = 'users_pkey'"
    with seeded.primary().connect() as connection:
        before = connection.execute(asked).fetchone()[0]
        wait_until(lambda: connection.execute(asked).fetchone()[0] > before, 20, "the first requests", seeded.primary())
    stop.touch()
    result, ops = ended()
    assert result.interrupted
    assert result.measured > 0
    assert result.requests == len(ops)


def test_an_interrupt_reaches_the_generators_and_their_records_are_kept(load: LoadSpec, tmp_path: Path) -> None:
    def interrupt_after_a_second() -> None:
        if time.monotonic() - began > 1:
            raise KeyboardInterrupt

    with Generators() as generators:
        began = time.monotonic()
        spec = replace(load, duration_s=60, stop_file=layout.stop(tmp_path))
        with pytest.raises(LoadInterrupted) as caught:
            generators.run([spec], interrupt_after_a_second)
        assert time.monotonic() - began < 15
    assert caught.value.results[0].interrupted
    assert len(Tables(load.part.parent.parent).table("ops")) == caught.value.results[0].requests


def test_two_generators_work_at_the_same_time(load: LoadSpec) -> None:
    specs = [replace(load, part=load.part.with_name(f"part-{i}.parquet"), seed=i) for i in range(2)]
    with Generators(processes=2) as generators:
        results = generators.run(specs)
    assert len(set(generators.pids)) == 2
    assert len(Tables(load.part.parent.parent).table("ops")) == sum(result.requests for result in results)


def on_replicas(cluster: Cluster, load: LoadSpec, connections: int = 4) -> tuple[LoadSpec, Node]:
    """The load on the replicas, with a short deadline and no warm-up, and the replica that gets into trouble."""
    dataset.seed(cluster, DATA)
    cluster.wait_for_catchup(20)
    replicas = nodes_for(REPLICAS, cluster)
    assert isinstance(replicas[-1].control, Killable)
    return replace(load, targets=targets(replicas, connections), warmup_s=0, timeout_s=2), replicas[-1]


def test_a_node_killed_and_started_again_under_load(own_cluster: Cluster, load: LoadSpec) -> None:
    """200 users on two replicas; one is killed and comes back: no hang, no lost record, connections return."""
    spec, victim = on_replicas(own_cluster, replace(load, arrivals=Closed(200), duration_s=6))
    ended = in_background(spec)
    time.sleep(1.5)  # the load's own course, not a wait for a condition
    victim.control.kill("tree")
    killed_ns = time.monotonic_ns() - spec.epoch_ns
    time.sleep(1)
    victim.control.start()
    victim.wait_ready(20)
    back_ns = time.monotonic_ns() - spec.epoch_ns
    result, ops = ended()
    assert result.requests == len(ops)
    at = ops["start_ns"] + ops["latency_ns"]
    failed = ops[ops["outcome"] == "fail"]
    assert set(failed["node"]) == {victim.name}
    assert at[failed.index].between(killed_ns - 0.1e9, back_ns + 2e9).all()
    assert (ops[(ops["node"] == victim.name) & (at > back_ns + 1.5e9)]["outcome"] == "ok").sum() > 50
    other = ops[(ops["node"] != victim.name) & at.between(killed_ns, back_ns)]
    assert len(other) > 50
    assert set(failed["sqlstate"]) <= {records.CONNECTION_LOST, records.CANNOT_CONNECT, records.DEADLINE, "57P03"}


def test_a_paused_node_costs_its_users_the_deadline_only(own_cluster: Cluster, load: LoadSpec) -> None:
    dataset.seed(own_cluster, DATA)
    primary = own_cluster.primary()
    assert isinstance(primary.control, Killable)
    spec = replace(load, targets=targets([primary]), warmup_s=0, duration_s=3, timeout_s=0.5)
    ended = in_background(spec)
    time.sleep(1)
    primary.control.pause()
    try:
        time.sleep(1)
    finally:
        primary.control.resume()
    resumed_ns = time.monotonic_ns() - spec.epoch_ns
    _, ops = ended()
    assert (ops["sqlstate"] == records.DEADLINE).sum() >= 20
    assert ops["latency_ns"].max() < 1.5e9
    at = ops["start_ns"] + ops["latency_ns"]
    assert (ops[at > resumed_ns + 0.3e9]["outcome"] == "ok").sum() > 50


def test_a_load_in_two_processes_is_one_load(load: LoadSpec) -> None:
    """Users, connections and the rate are shared out, shards begin together, and no record is lost."""
    with Generators(processes=2) as generators:
        shards = generators.load(replace(load, arrivals=Open(400, "constant"), warmup_s=0.5, duration_s=2))
    ops = Tables(load.part.parent.parent).table("ops")
    whole = merge(shards)
    assert len(generators.pids) == len(shards) == 2
    assert whole.requests == len(ops) == pytest.approx(1000, abs=2)
    assert max(s.from_ns for s in shards) - min(s.from_ns for s in shards) < 0.1e9
    assert whole.warm_until_ns == max(s.warm_until_ns for s in shards)
    due = np.sort(ops["start_ns"].to_numpy())
    # the second shard's clock reading at its start is a little later than the first's; the rate is even all the same
    assert np.median(np.diff(due)) == pytest.approx(2.5e6, rel=0.2)


def test_shards_that_did_not_run_together_are_no_load() -> None:
    def result(begins_s: float) -> LoadResult:
        return LoadResult(
            from_ns=int(begins_s * 1e9), warm_until_ns=int(begins_s * 1e9), to_ns=int(begins_s * 1e9 + 5e9)
        )

    assert merge([result(0), result(0.1)]).to_ns == 5e9
    with pytest.raises(LoadError, match=r"began 2\.0 s after"):
        merge([result(0), result(2)])


def test_the_pure_python_libpq_wrapper_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psycopg.pq.__impl__", "python")
    with pytest.warns(UserWarning, match=r"psycopg\[binary\]"), Generators():
        pass


@pytest.mark.slow
def test_a_thousand_users_outlive_a_node_that_is_killed_paused_and_restarted(
    own_cluster: Cluster, load: LoadSpec
) -> None:
    """Within a minute, on two replicas: no hang, no record lost, no socket left open."""
    spec, victim = on_replicas(own_cluster, replace(load, arrivals=Closed(1000), duration_s=12), connections=16)
    before = psutil.Process().num_fds()
    ended = in_background(spec)
    for trouble in (
        lambda: victim.control.kill("tree"),
        victim.control.start,
        victim.control.pause,
        victim.control.resume,
        victim.control.stop,
        victim.control.start,
    ):
        time.sleep(1)  # the load's own course, not a wait for a condition
        trouble()
    victim.wait_ready(20)
    back_ns = time.monotonic_ns() - spec.epoch_ns
    result, ops = ended()
    assert result.requests == len(ops)
    assert psutil.Process().num_fds() <= before
    at = ops["start_ns"] + ops["latency_ns"]
    assert ops["latency_ns"].max() < 5e9
    assert set(ops[ops["outcome"] != "ok"]["node"]) == {victim.name}
    assert (ops[ops["outcome"] != "ok"]["sqlstate"] != "").all()
    assert (ops[(ops["node"] == victim.name) & (at > back_ns + 1.5e9)]["outcome"] == "ok").sum() > 50
    # Every user is there to the end: Little's law over the last second of the load.
    last = ops[at.between(result.to_ns - 1e9, result.to_ns)]
    assert len(last) * last["latency_ns"].mean() / 1e9 == pytest.approx(1000, rel=0.25)


def test_a_shard_that_cannot_begin_keeps_no_other_waiting(load: LoadSpec) -> None:
    """The reason is that shard's, it comes at once, and the generators are of use afterwards."""
    target = load.targets[0]
    nowhere = replace(load, targets=(replace(target, conninfo=make_conninfo(target.conninfo, port=1)),))
    with Generators(processes=2) as generators:
        began = time.monotonic()
        with pytest.raises(LoadError, match="could not be opened"):
            generators.run([nowhere if i == 1 else spec for i, spec in enumerate(load.split(2))])
        assert time.monotonic() - began < 30
        again = replace(load, part=load.part.with_name("again.parquet"), duration_s=0.5)
        assert len(generators.load(again)) == 2
