"""Who used the machine's CPU: an account that adds up, and what it takes to call a block disturbed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from fix_records import a_host_cpu
from fix_runs import SECOND
from hypothesis import given
from hypothesis import strategies as st

from labkit.analysis import frames
from labkit.analysis.report import tables
from labkit.checkers.host_cpu import BUSY, IDLE, PROCESSES, STOLEN, Account, pooled
from labkit.experiments.read_scaling import findings
from labkit.lab import procfs
from labkit.lab.cluster.waiting import wait_until
from labkit.lab.sampling import Sampler
from labkit.lab.sampling.host import HostProbe, KernelProbe, LabProbe, ProcessProbe, docker_proxies, on_this_machine
from labkit.run.store import Run, RunStore

MakeRun = Callable[..., Run]


def rising(cores: float, until_s: int = 10) -> tuple[list[int], list[float]]:
    """A counter of a process that uses so many cores, sampled once a second."""
    return [second * SECOND for second in range(until_s + 1)], [cores * second for second in range(until_s + 1)]


def machine(busy: float, idle: float, stolen: float = 0.0, **processes: float) -> dict:
    counters = {("host", BUSY): rising(busy), ("host", IDLE): rising(idle), ("host", STOLEN): rising(stolen)}
    return counters | {(name, PROCESSES): rising(cores) for name, cores in processes.items()}


def test_what_nobody_of_the_lab_used_is_others() -> None:
    account = Account(machine(1.8, 0.1, 0.1, pg1=0.4, pg2=0.01, generator=0.3, lab=0.04, kernel=0.1), cores=2)
    used = account.of(2 * SECOND, 5 * SECOND)
    assert used is not None
    assert used.servers == pytest.approx({"pg1": 0.4, "pg2": 0.01})
    assert (used.generator, used.lab, used.idle, used.stolen) == pytest.approx((0.3, 0.04, 0.1, 0.1))
    assert used.kernel == pytest.approx(0.1), "disks and network, whoever uses them: no other program"
    assert used.others == pytest.approx(0.95)
    assert used.disturbed


@given(
    parts=st.lists(st.floats(0, 1), min_size=6, max_size=6).filter(lambda parts: sum(parts) > 0.1),
    begin=st.floats(0, 8),
    length=st.floats(0.5, 10),
)
def test_the_parts_are_all_cores_whenever_one_asks(parts: list[float], begin: float, length: float) -> None:
    servers, generator, lab, others, idle, stolen = parts
    counters = machine(servers + generator + lab + others, idle, stolen, pg1=servers, generator=generator, lab=lab)
    used = Account(counters, cores=4).of(int(begin * SECOND), int((begin + length) * SECOND))
    if begin + length / 2 > 10:
        assert used is None, "less than half of that time was sampled"
        return
    assert used is not None
    whole = sum((used.servers or {}).values()) + used.generator + used.idle
    assert whole + (used.lab or 0) + (used.others or 0) + (used.stolen or 0) == pytest.approx(4)


@pytest.mark.parametrize(
    ("others", "stolen", "disturbed"), [(0.19, 0.0, False), (0.21, 0.0, True), (0.15, 0.1, True), (0.0, 0.3, True)]
)
def test_a_tenth_of_the_cores_is_what_others_may_use(others: float, stolen: float, disturbed: bool) -> None:
    assert a_host_cpu(others=others, stolen=stolen).disturbed is disturbed


def test_a_server_that_was_restarted_counts_on() -> None:
    counters = machine(1.0, 1.0, pg1=0.5)
    times, values = counters["pg1", PROCESSES]
    counters["pg1", PROCESSES] = times, [*values[:5], *(value - values[5] for value in values[5:])]
    used = Account(counters, cores=2).of(0, 10 * SECOND)
    assert used is not None
    assert used.servers == pytest.approx({"pg1": 0.45})  # what it used within the second of its restart is not known


@pytest.mark.parametrize("metric", [BUSY, IDLE])
def test_a_counter_of_the_machine_that_falls_by_a_little_did_not_begin_again(metric: str) -> None:
    counters = machine(0.3, 1.7, generator=0.2, lab=0.1)
    times, values = counters["host", metric]
    counters["host", metric] = times, [40_000 + value - 1e-6 * (second == 5) for second, value in enumerate(values)]
    used = Account(counters, cores=2).of(0, 10 * SECOND)
    assert used is not None
    assert (used.others, used.idle) == pytest.approx((0.0, 1.7), abs=1e-3)


@given(
    busy=st.lists(st.integers(0, 10**8).map(lambda ticks: ticks / 100), min_size=5, max_size=5),
    idle=st.lists(st.integers(0, 10**8).map(lambda ticks: ticks / 100), min_size=2, max_size=9).map(sorted),
)
def test_what_a_machine_used_stays_while_it_is_idle(busy: list[float], idle: list[float]) -> None:
    probe = HostProbe()
    probe.accounts = True
    fields = dict(zip(("user", "nice", "system", "irq", "softirq"), busy, strict=True))
    read = [probe._cpu(SimpleNamespace(**fields, idle=idle_s, iowait=0.25, steal=0.5)) for idle_s in idle]
    assert {values[BUSY] for values in read} == {read[0][BUSY]}
    assert all(0 <= values.get("cpu_percent", 0) < 1e-6 for values in read)


def test_servers_here_that_cannot_be_measured_leave_others_unknown() -> None:
    used = Account(machine(1.5, 0.5, generator=0.4, lab=0.1), cores=2, blind=True).of(0, 10 * SECOND)
    assert used is not None
    assert (used.servers, used.others, used.disturbed) == (None, None, None)
    assert used.idle == pytest.approx(0.5)


def test_servers_elsewhere_have_no_part_in_this_machine() -> None:
    used = Account(machine(0.6, 1.4, generator=0.5, lab=0.05), cores=2).of(0, 10 * SECOND)
    assert used is not None
    assert used.servers == {}
    assert used.others == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *((host, True) for host in ("", "/var/run/postgresql", "localhost", "127.0.0.1", "::1", "no-such.invalid")),
        ("192.0.2.1", False),
    ],
)
def test_which_addresses_are_of_this_machine(host: str, here: bool) -> None:
    assert on_this_machine(host) is here


def test_a_count_that_is_some_time_old_goes_on_as_before() -> None:
    """The engine counts containers once a second, which is not when the block ended."""
    counters = machine(1.5, 0.5, pg1=0.8, generator=0.5, lab=0.2)
    times, values = counters["pg1", PROCESSES]
    counters["pg1", PROCESSES] = times[:-1], values[:-1]
    used = Account(counters, cores=2).of(7 * SECOND, 10 * SECOND)
    assert used is not None
    assert used.servers == pytest.approx({"pg1": 0.8})
    assert used.others == pytest.approx(0.0, abs=1e-9)


def test_what_an_engine_has_not_counted_yet_is_no_other_program_s() -> None:
    """A block shorter than its second: the container's CPU would look like somebody else's."""
    counters = machine(1.5, 0.5, pg1=0.8, generator=0.5, lab=0.2)
    for kept in (slice(0, 8), slice(0, 1)):
        times, values = counters["pg1", PROCESSES]
        counted = counters | {("pg1", PROCESSES): (times[kept], values[kept])}
        used = Account(counted, cores=2, late={"pg1"}).of(8 * SECOND, 9 * SECOND)
        assert used is not None
        assert (used.servers, used.others, used.disturbed) == (None, None, None)
    known = Account(counters, cores=2, late={"pg1"}).of(8 * SECOND, 9 * SECOND)
    assert known is not None
    assert known.others == pytest.approx(0.0, abs=1e-9)


def test_what_carries_the_load_to_containers_is_found_by_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def process(pid: int, name: str, *words: str) -> SimpleNamespace:
        return SimpleNamespace(pid=pid, info={"name": name, "cmdline": [f"/usr/bin/{name}", *words]})

    there = [
        process(1, "docker-proxy", "-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "5433"),
        process(2, "docker-proxy", "-proto", "tcp", "-host-ip", "127.0.0.1", "-host-port", "8080"),
        process(3, "postgres", "-host-port", "5433"),
        process(4, "docker-proxy"),
    ]
    monkeypatch.setattr("psutil.process_iter", lambda _: there)
    assert docker_proxies({5433, 5434}) == [1]


def test_without_samples_of_the_machine_there_is_no_account() -> None:
    assert Account({("pg1", PROCESSES): rising(0.5)}, cores=2).of(0, SECOND) is None
    assert Account(machine(0.0, 0.0), cores=2).of(0, SECOND) is None, "some sandboxes show nothing but zeros"


def test_several_accounts_are_one_by_their_length() -> None:
    one = pooled([(a_host_cpu(others=0.0, idle=0.5), 1.0), (a_host_cpu(others=0.4, idle=0.1), 3.0)])
    assert (one.others, one.idle, one.servers) == pytest.approx((0.3, 0.2, {"pg1": 0.8, "pg2": 0.05, "pg3": 0.05}))
    assert pooled([(a_host_cpu(), 1.0), (a_host_cpu(others=None), 1.0)]).disturbed is None


def test_a_system_that_does_not_say_who_used_its_cpu_says_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "HERE", False)
    probe = HostProbe()
    assert {BUSY, IDLE, STOLEN} <= probe.not_measured.keys()
    assert "other programs" in probe.not_measured[BUSY]
    assert not {BUSY, IDLE, STOLEN} & {metric for _, metric, _ in asyncio.run(probe.read())}


def burning() -> subprocess.Popen[bytes]:
    """A child that uses half a second of CPU and then waits to be ended."""
    burn = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True)\ntime.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


@pytest.mark.skipif(not procfs.HERE, reason="/proc says it")
def test_the_lab_is_this_process_and_its_children_until_after_their_end() -> None:
    generators: list[int] = []
    lab, generator = LabProbe([generators]), ProcessProbe("generator", generators)

    def used() -> float:
        ((_, _, value),) = asyncio.run(lab.read())
        return value - sum(os.times()[:2])

    before = used()
    child = burning()
    try:
        assert used() - before == pytest.approx(0.5, abs=0.1)
        generators.append(child.pid)
        without = used()
        assert asyncio.run(generator.read())[0][2] == pytest.approx(0.5, abs=0.1)
    finally:
        child.kill()
        child.wait()
    # It has become a generator: what it used from now on is not the lab's.
    assert used() == pytest.approx(without, abs=0.1)


@pytest.mark.skipif(not KernelProbe.can_see(), reason="the kernel's own threads can be seen")
def test_the_kernels_threads_are_counted_from_the_first_look_on_and_not_too_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = {2: 5, 10: 100, 11: 7}
    looks: list[int] = []

    def stat(pid: int) -> tuple[str, list[bytes]]:
        looks.append(pid)
        return "", [b""] * 11 + [b"%d" % ticks[pid], b"0"]

    monkeypatch.setattr(procfs, "stat", stat)
    monkeypatch.setattr(procfs, "children", lambda _: [pid for pid in ticks if pid != 2])
    probe = KernelProbe()

    def used() -> float:
        ((node, metric, value),) = asyncio.run(probe.read())
        assert (node, metric) == ("kernel", PROCESSES)
        return value * procfs.TICKS_PER_S

    assert used() == 0
    ticks.update({10: 103, 12: 4})  # one that works, and a new one
    del ticks[11]
    seen = len(looks)
    probe._due_s += 60
    assert (used(), len(looks)) == (0, seen), "not yet"
    probe._due_s -= 61
    assert used() == pytest.approx(7)


@pytest.mark.skipif(not procfs.HERE, reason="/proc says it")
def test_a_busy_program_is_found_among_the_others(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The account of this very machine while a process that is not the lab's keeps one core busy."""
    run = RunStore(tmp_path).create("sampling", {})
    # A session of its own and an end of its parent make it a program of its own.
    burn = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\n"
    burn += "end = time.monotonic() + 20\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            with Sampler([], run, 0.2) as sampler:
                began = run.now_ns()
                wait_until(lambda: run.now_ns() - began > 2 * SECOND, 20.0, "two seconds")
                sampler.sample_now()
                used = sampler.account().of(began, began + 2 * SECOND)
            fields = procfs.stat(pid)[1]
        finally:
            os.kill(pid, 9)
    assert used is not None
    parts = (used.lab, used.kernel, used.others, used.stolen)
    whole = used.generator + used.idle + sum(part or 0.0 for part in parts)
    assert whole == pytest.approx(used.cores, rel=0.05)
    # As much as it got: a machine that is busy anyway does not give it a whole core.
    assert procfs.own_ticks(fields) > 0
    assert used.others is not None
    assert used.others > 0.3


def test_a_run_of_an_older_lab_names_those_who_disturbed_it(make_run: MakeRun) -> None:
    run = make_run(host_cpu_percent=100.0, server_cpu_percent=0.0 + 41 / 3, generator_cpu_percent=33.0)
    assert [block.host_cpu for block in run.blocks] == [None] * 12
    found = frames.host_cpu(run)
    assert found["disturbed"].all()
    assert found["others"].to_numpy() == pytest.approx(1.26, abs=0.01)
    assert np.isnan(found["lab"]).all()
    (said,) = frames.disturbances(run)
    assert "12 of 12 blocks other programs, the lab among them, used 1.26 of 2 cores" in said
    assert findings.lead(run)[0] == said
    assert tables.utilisation(run)["lab, cores"].tolist() == ["–"] * 4


def test_a_run_that_was_left_alone_says_nothing_of_others(make_run: MakeRun) -> None:
    run = make_run(host_cpu=a_host_cpu())
    assert frames.disturbances(run) == []
    disturbed = [block.changed(host_cpu=a_host_cpu(others=0.9, idle=0.0)) for block in run.blocks[:3]]
    run.update(blocks=[*disturbed, *run.blocks[3:]])
    (said,) = frames.disturbances(run)
    assert "3 of 12 blocks other programs used 0.90 of 2 cores" in said
    assert findings.verdicts(run)[0] == said
    run.update(blocks=[block.changed(replaced=True) for block in run.blocks[:4]] + list(run.blocks[4:]))
    assert frames.disturbances(run) == [], "others stand in their place"
