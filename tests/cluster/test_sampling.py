"""The samples against what is known to happen on real servers."""

import os
import time

import psutil
import pytest
from fix_cluster import shared_cluster

from labkit.lab.cluster.powers import Killable
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.sampling import Sampler
from labkit.run.store import RunStore

MB = 1_000_000
ANSWER_S = 20.0  # the deadline of every wait

USAGE = {"cpu_seconds_total", "memory_bytes", "read_bytes_total", "written_bytes_total"}
NOT_BY_PROCESS = {
    "cpu_limit_cores",
    "cached_bytes",
    "received_bytes_total",
    "sent_bytes_total",
    "throttled_seconds_total",
}
DISK = {"data_directory_bytes", "pg_wal_bytes"}
CONNECTIONS = {f"connections_{state}" for state in ("active", "idle", "idle_in_transaction", "other")}
LAG = {"lag_bytes", "lag_s"}


@pytest.fixture(scope="module")
def lab_data(disk_data):
    return disk_data  # for what is said of bytes written


@pytest.fixture(scope="module")
def cluster(lab_data):
    assert lab_data
    with shared_cluster() as made:
        yield made


@pytest.fixture
def run(tmp_path):
    return RunStore(tmp_path).create("sampling", {})


@pytest.fixture
def primary(cluster):
    return cluster.primary()


@pytest.fixture
def replica(cluster):
    """A replica that runs and has caught up again after the test."""
    node = cluster.replicas()[-1]
    yield node
    node.control.start()
    node.wait_ready(ANSWER_S)
    streaming = lambda: node.name in [row["application_name"] for row in cluster.replication()]  # noqa: E731
    wait_until(streaming, ANSWER_S, "streaming", node)
    cluster.wait_for_catchup(ANSWER_S)


def ticks(sampler, more):
    """Wait until `more` ticks have begun: what happened before is sampled by then."""
    until = sampler.ticks + more
    wait_until(lambda: sampler.ticks >= until, ANSWER_S, f"tick {until}")


def series(run, node, metric):
    samples = run.table("samples")
    return samples[(samples.node == node.name) & (samples.metric == metric)].set_index("t_ns").value.sort_index()


def rise(run, node, metric):
    values = series(run, node, metric)
    return values.iloc[-1] - values.iloc[0]


def test_every_metric_is_there_or_named_as_not_measured(cluster, run, primary):
    with Sampler(cluster.nodes, run, 0.2) as sampler:
        ticks(sampler, 3)
    samples = run.table("samples")
    for node in cluster.nodes:
        measured = set(samples[samples.node == node.name].metric)
        expected = USAGE | DISK | CONNECTIONS | (set() if node is primary else LAG)
        assert measured == expected
        assert set(sampler.not_measured[node.name]) == NOT_BY_PROCESS
        assert all(sampler.not_measured[node.name].values())
    assert run.events().empty


def test_a_second_of_cpu_on_the_primary_is_a_second_more_there_and_nowhere_else(cluster, run, primary):
    burn = "DO $$ BEGIN PERFORM count(*) FROM generate_series(1, 500000); END $$"
    with Sampler(cluster.nodes, run, 0.2) as sampler, primary.connect() as connection:
        ticks(sampler, 1)  # the first sample is taken before any CPU is used
        backend = psutil.Process(connection.info.backend_pid)
        while (burnt_s := sum(backend.cpu_times()[:2])) < 1.0:
            connection.execute(burn)
        ticks(sampler, 2)
    # Ended backends are counted too, so nothing is lost when the connection closes before the last sample.
    assert rise(run, primary, "cpu_seconds_total") == pytest.approx(burnt_s, abs=0.4)
    for node in cluster.nodes:
        assert series(run, node, "cpu_seconds_total").is_monotonic_increasing
        if node is not primary:
            assert rise(run, node, "cpu_seconds_total") < 0.4


def test_fifty_megabytes_written_show_up_on_every_node(cluster, run, primary):
    # Half of it uncompressible, so that neither TOAST nor the file system makes it smaller.
    write = "CREATE TABLE fifty AS SELECT i, md5(i::text) || md5((-i)::text) FROM generate_series(1, 600000) i"
    with primary.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS fifty")
        connection.execute("CHECKPOINT")
        try:
            with Sampler(cluster.nodes, run, 0.2):
                connection.execute(write)
                connection.execute("CHECKPOINT")
                cluster.wait_for_catchup(ANSWER_S)
                size = connection.execute("SELECT pg_table_size('fifty')").fetchone()[0]
                assert size > 50 * MB
            wal = connection.execute("SELECT sum(size) FROM pg_ls_waldir()").fetchone()[0]
        finally:
            connection.execute("DROP TABLE IF EXISTS fifty")
    # The primary has written its table and its WAL; a replica has at least the WAL.
    assert rise(run, primary, "written_bytes_total") > 1.8 * size
    assert rise(run, primary, "data_directory_bytes") > 0.9 * size
    assert series(run, primary, "pg_wal_bytes").iloc[-1] == pytest.approx(float(wal), abs=40 * MB)
    for node in cluster.nodes:
        assert rise(run, node, "written_bytes_total") > 0.9 * size, node.name
        values = run.table("samples")
        assert (values[values.metric == "pg_wal_bytes"].value > 0).all()


def test_connections_are_counted_by_state_without_the_samplers_own(cluster, run, replica):
    with Sampler(cluster.nodes, run, 0.2) as sampler:
        ticks(sampler, 2)
        opened = [replica.connect("app") for _ in range(7)]
        opened[0].execute("BEGIN")
        opened[0].execute("SELECT 1")
        opened[1].pgconn.send_query(b"SELECT pg_sleep(60)")
        opened[1].pgconn.flush()
        open_ns = run.now_ns()  # before, a connection that starts up has another state
        ticks(sampler, 3)
        for connection in opened:
            connection.close()
    for state, more in (("idle", 5), ("idle_in_transaction", 1), ("active", 1), ("other", 0)):
        counts = series(run, replica, f"connections_{state}")
        assert counts[counts.index > open_ns].max() - counts.iloc[0] == more, state
    for node in cluster.nodes:
        if node is not replica:
            assert series(run, node, "connections_idle").max() == 0


def test_lag_grows_while_replay_is_paused_and_goes_back_to_zero(cluster, run, primary, replica):
    with Sampler(cluster.nodes, run, 0.2) as sampler:
        with replica.connect() as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
            paused = lambda: connection.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",)  # noqa: E731
            wait_until(paused, ANSWER_S, "replay to pause", replica)
            try:
                with primary.connect() as writing:
                    for _ in range(5):
                        writing.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))")
                ticks(sampler, 4)
            finally:
                connection.execute("SELECT pg_wal_replay_resume()")
        cluster.wait_for_catchup(ANSWER_S)
        # A replica reports its position at least every wal_receiver_status_interval, and when it has replayed.
        caught_up = lambda: cluster.lag()[-1].lag_bytes == 0  # noqa: E731
        wait_until(caught_up, ANSWER_S, "the primary to know", replica)
        ticks(sampler, 3)
    lag_bytes, lag_s = series(run, replica, "lag_bytes"), series(run, replica, "lag_s")
    assert 5 * MB <= lag_bytes.max() < 7 * MB
    assert lag_bytes.iloc[-1] == 0
    assert lag_bytes.index[-1] == lag_s.index[-1]
    assert (lag_s >= 0).all()
    assert lag_s.max() > 0.1


def test_a_stopped_replica_is_absent_values_and_one_event_a_probe_until_it_is_back(cluster, run, primary, replica):
    with Sampler(cluster.nodes, run, 0.2) as sampler:
        ticks(sampler, 3)
        replica.control.stop()
        stopped_ns = run.now_ns()
        ticks(sampler, 8)
        starting_ns = run.now_ns()
        replica.control.start()
        replica.wait_ready(ANSWER_S)
        streaming = lambda: cluster.lag()[-1].lag_bytes is not None  # noqa: E731
        wait_until(streaming, ANSWER_S, "streaming", replica)
        ticks(sampler, 4)
    events = run.events()
    for kind in ("probe_failed", "probe_recovered"):
        found = events[events.kind == kind]
        assert sorted(found.probe) == ["server", "usage"], kind
        assert set(found.node) == {replica.name}
    assert all(events[events.kind == "probe_failed"].reason)
    for metric in ("cpu_seconds_total", "connections_idle", "lag_bytes"):
        times = series(run, replica, metric).index
        assert not ((times > stopped_ns) & (times < starting_ns)).any(), metric
        assert (times < stopped_ns).any(), metric
        assert (times > starting_ns).any(), metric
    others = series(run, primary, "connections_idle").index
    assert ((others > stopped_ns) & (others < starting_ns)).sum() >= 7


def test_a_server_that_hangs_keeps_only_its_own_probe_waiting(cluster, run, primary, replica):
    if not isinstance(replica.control, Killable):
        pytest.skip("this provider cannot pause a server")
    with Sampler(cluster.nodes, run, 0.2) as sampler:
        ticks(sampler, 2)
        replica.control.pause()
        paused_ns = run.now_ns()
        failed = lambda: (run.events().kind == "probe_failed").any()  # noqa: E731
        try:
            wait_until(failed, ANSWER_S, "the sampler to notice")
            ticks(sampler, 3)
            resumed_ns = run.now_ns()
        finally:
            replica.control.resume()
        recovered = lambda: (run.events().kind == "probe_recovered").any()  # noqa: E731
        wait_until(recovered, ANSWER_S, "the sampler to recover")
        replica.control.pause()
        ticks(sampler, 2)
        leaving = time.monotonic()
    left_s = time.monotonic() - leaving
    replica.control.resume()
    assert left_s < 6.0, "leaving waited for a server that does not answer"
    failures = run.events().query("kind == 'probe_failed'")
    assert failures.iloc[0][["node", "probe", "reason"]].tolist() == [replica.name, "server", "no answer within 2 s"]
    others = series(run, primary, "connections_idle").index
    ticks_meant = (resumed_ns - paused_ns) / 0.2e9
    assert ((others > paused_ns) & (others < resumed_ns)).sum() >= 0.7 * ticks_meant


@pytest.mark.alone
def test_sampling_three_nodes_with_sixty_backends_costs_less_than_a_hundredth_of_a_core(cluster, run):
    opened = [node.connect("app") for node in cluster.nodes for _ in range(20)]
    try:
        with Sampler(cluster.nodes, run, 1.0, pids={"generator": [os.getpid()]}) as sampler:
            ticks(sampler, 1)
            before, began = sampler.summary().cpu_s, time.monotonic()
            ticks(sampler, 10)
            cost = (sampler.summary().cpu_s - before) / (time.monotonic() - began)
    finally:
        for connection in opened:
            connection.close()
    assert cost < 0.01
    assert sampler.missed == 0
    assert sampler.cost_fraction < 0.02  # with connecting, and writing the file
