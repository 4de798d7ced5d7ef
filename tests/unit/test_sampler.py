"""The sampler's thread: fixed times, failures that are events, parts that are flushed, errors that are not hidden."""

import asyncio
import os
import time

import psutil
import pytest

from labkit.errors import ClusterError
from labkit.lab.sampling import Sampler, sampler
from labkit.lab.sampling.probe import Dated
from labkit.run.store import RunStore


class Probe:
    """A probe of the test's own, whose answer the test decides."""

    name, not_measured = "fake", {}

    def __init__(self, answer, node="pg9"):
        self.node, self.answer, self.calls, self.closed = node, answer, 0, False

    async def read(self):
        self.calls += 1
        value = self.answer()
        return [(self.node, "value", await value if asyncio.iscoroutine(value) else value)]

    def close(self):
        self.closed = True


@pytest.fixture
def run(tmp_path):
    return RunStore(tmp_path).create("sampling", {})


def sampling(run, *probes, interval_s=0.05):
    made = Sampler([], run, interval_s)
    made._every_tick += probes
    return made


def wait_until(condition, deadline_s=10.0):
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up, f"not within {deadline_s} s"
        time.sleep(0.005)


def values(run, node="pg9"):
    samples = run.table("samples")
    return samples[samples.node == node]


def events(run, kind):
    found = run.events()
    return found[found.kind == kind]


def test_samples_are_due_at_multiples_of_the_interval(run):
    with sampling(run, Probe(lambda: 1.0)) as made:
        wait_until(lambda: made.ticks >= 20)
    times_s = values(run).t_ns.to_numpy() / 1e9
    offsets = (times_s[:-1] - times_s[0]) / 0.05  # the last one is taken on exit, at any time
    assert len(times_s) >= 20
    assert (abs(offsets - offsets.round()) < 0.5).all()
    assert offsets[-1].round() == made.summary().ticks + made.missed - 2


def test_a_sample_that_is_asked_for_comes_at_once_and_counts_as_none_of_the_others(run):
    with sampling(run, Probe(lambda: 1.0), interval_s=60.0) as made:
        asked = time.monotonic()
        made.sample_now()
        made.sample_now()
        assert time.monotonic() - asked < 5.0
    assert len(values(run)) == made.summary().ticks == 4  # the first and the last are taken anyway
    assert made.summary().missed == 0
    made.sample_now()  # nothing samples any more, and nothing waits


def test_a_reading_of_an_earlier_moment_is_recorded_at_that_moment(run):
    at_ns = run.epoch_ns + 123

    class Earlier(Probe):
        async def read(self):
            return Dated(await super().read(), at_ns)

    with sampling(run, Earlier(lambda: 1.0)) as made:
        wait_until(lambda: made.ticks >= 3)
    assert set(values(run).t_ns) == {123}


def test_ticks_that_were_not_kept_are_counted_not_made_up_for(run):
    stalls = iter([0.0, 0.4])

    def stall():
        time.sleep(next(stalls, 0.0))  # a probe that blocks the whole thread
        return 1.0

    with sampling(run, Probe(stall)) as made:
        wait_until(lambda: made.ticks >= 5)
    assert 7 <= made.summary().missed <= 12


def test_a_failing_probe_is_one_event_absent_values_and_no_harm_to_others(run):
    failing = [False]

    def sometimes():
        if failing[0]:
            raise ClusterError("the server is not running", node="pg9", log_tail="not for the event")
        return 1.0

    broken, sound = Probe(sometimes), Probe(lambda: 2.0, node="pg8")
    with sampling(run, broken, sound) as made:
        for failing[0] in (False, True, False):
            wait_until(lambda until=made.ticks + 5: made.ticks >= until)
    failed, recovered = events(run, "probe_failed"), events(run, "probe_recovered")
    assert failed[["node", "probe", "reason"]].values.tolist() == [["pg9", "fake", "the server is not running"]]
    assert len(recovered) == 1
    between = values(run).t_ns.between(failed.t_ns.iloc[0], recovered.t_ns.iloc[0] - 50_000_000)
    assert not between.any()
    assert len(values(run)) <= len(values(run, "pg8")) - 4
    assert set(values(run).value) == {1.0}


def test_a_probe_that_never_answers_fails_and_delays_no_other(run, monkeypatch):
    monkeypatch.setattr(sampler, "PATIENCE_S", 0.3)
    silent, sound = Probe(lambda: asyncio.sleep(3600, 1.0)), Probe(lambda: 2.0, node="pg8")
    with sampling(run, silent, sound) as made:
        wait_until(lambda: made.ticks >= 15)
        asked = time.monotonic()
    assert time.monotonic() - asked < 2.0
    assert silent.calls == 1
    assert silent.closed
    assert len(values(run, "pg8")) >= 15
    assert events(run, "probe_failed").reason.tolist() == ["no answer within 0.3 s"]


def test_a_bug_in_a_probe_is_raised_on_exit_and_what_was_read_is_kept(run):
    def broken():
        if made.ticks > 3:
            raise ZeroDivisionError("a bug")
        return 1.0

    made = sampling(run, Probe(broken))
    with pytest.raises(ZeroDivisionError), made:
        wait_until(lambda: not made._thread.is_alive())
    assert len(values(run)) == 3
    assert len(events(run, "sampler_failed")) == 1


def test_an_error_of_the_with_block_is_not_replaced(run):
    with pytest.raises(KeyboardInterrupt), sampling(run, Probe(lambda: 1.0)):
        raise KeyboardInterrupt
    assert len(values(run)) >= 1


def test_parts_are_flushed_as_time_goes_by_and_a_second_sampler_adds_its_own(run, monkeypatch):
    monkeypatch.setattr(sampler, "FLUSH_S", 0.2)
    rows = 0
    for _ in range(2):
        with sampling(run, Probe(lambda: 1.0)) as made:
            wait_until(lambda: made.ticks >= 10)
            assert run.has("samples"), "nothing was written before the end"
        rows += made.summary().rows
    assert len(run.table("samples")) == rows
    assert len(list((run.path / "samples").glob("*.parquet"))) >= 4


def test_the_host_and_the_generator_are_what_psutil_says(run):
    me = psutil.Process(os.getpid())
    with Sampler([], run, 0.1, pids={"generator": [me.pid]}) as made:
        cpu_before = me.cpu_times()
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            sum(range(1000))  # this process burns what the samples have to show
        wait_until(lambda until=made.ticks + 2: made.ticks >= until)
        cpu_after = me.cpu_times()
    generator = values(run, "generator")
    cpu_s = generator[generator.metric == "cpu_seconds_total"].value
    burnt_s = cpu_after.user + cpu_after.system - cpu_before.user - cpu_before.system
    assert cpu_s.iloc[-1] - cpu_s.iloc[0] == pytest.approx(burnt_s, abs=0.1)
    memory = generator[generator.metric == "memory_bytes"].value
    assert memory.iloc[-1] == pytest.approx(me.memory_info().rss, rel=0.2)
    host = values(run, "host").groupby("metric", observed=True).value
    assert host.max()["cpu_percent"] > 0
    assert host.last()["load1"] == pytest.approx(os.getloadavg()[0], abs=1.0)
    available = psutil.virtual_memory().available
    assert host.last()["memory_available_bytes"] == pytest.approx(available, rel=0.2)
    assert set(host.groups) == {
        "load1", "load5", "load15", "cpu_percent", "memory_used_bytes", "memory_available_bytes",
        "received_bytes_total", "sent_bytes_total",
        "cpu_busy_seconds_total", "cpu_idle_seconds_total", "cpu_stolen_seconds_total",
    } | ({"cached_bytes"} - set(made.not_measured.get("host", ())))  # fmt: skip
