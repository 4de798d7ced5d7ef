"""What the engine's statistics mean, on cgroup v1 and v2; limits; connection strings of attached servers."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.errors import BadInput, ClusterError, ProviderUnavailable
from labkit.lab.providers.attach.connection_strings import connection_strings
from labkit.lab.providers.docker import compose_cli, limits, stats
from labkit.lab.providers.docker.engine import Engine
from labkit.lab.providers.docker.limits import Capacity

GIB = 2**30


def reading(memory: dict[str, int], blkio: Any, throttled_ns: int = 0) -> dict[str, Any]:
    return {
        "id": "c0ffee",
        "cpu_stats": {
            "cpu_usage": {"total_usage": 2_500_000_000},
            "throttling_data": {"throttled_time": throttled_ns},
        },
        "memory_stats": {"usage": 10**8, "stats": memory},
        "blkio_stats": {"io_service_bytes_recursive": blkio},
        "networks": {"eth0": {"rx_bytes": 5, "tx_bytes": 7}, "eth1": {"rx_bytes": 1, "tx_bytes": 2}},
    }


V1 = reading(
    {
        "inactive_anon": 1, "active_anon": 1, "inactive_file": 1, "active_file": 1,
        "total_inactive_anon": 30, "total_active_anon": 7, "total_inactive_file": 4, "total_active_file": 2,
    },
    [
        {"major": 254, "minor": 0, "op": "Read", "value": 100},
        {"major": 254, "minor": 0, "op": "Write", "value": 200},
        {"major": 254, "minor": 0, "op": "Sync", "value": 300},
        {"major": 7, "minor": 0, "op": "Write", "value": 50},
        {"major": 254, "minor": 0, "op": "Discard", "value": 1000},
    ],
    throttled_ns=1_500_000_000,
)  # fmt: skip
V2 = reading(
    {"anon": 20, "file": 50, "shmem": 17, "inactive_anon": 30, "active_anon": 7, "inactive_file": 4, "active_file": 2},
    [
        {"major": 254, "minor": 0, "op": "read", "value": 100},
        {"major": 254, "minor": 0, "op": "write", "value": 250},
    ],
)


@pytest.mark.parametrize(("given_by", "throttled_s"), [(V1, 1.5), (V2, 0.0)], ids=["cgroup v1", "cgroup v2"])
def test_both_cgroup_versions_say_the_same(given_by: dict[str, Any], throttled_s: float) -> None:
    usage = stats.usage(given_by, cpu_limit=0.25)
    assert usage.cpu_s == 2.5
    assert (usage.memory_bytes, usage.cached_bytes) == (37, 6)
    assert (usage.read_bytes, usage.written_bytes) == (100, 250)
    assert (usage.received_bytes, usage.sent_bytes) == (6, 9)
    assert (usage.throttled_s, usage.cpu_limit) == (throttled_s, 0.25)


@pytest.mark.parametrize("blkio", [None, []])
def test_block_io_that_is_not_counted_is_unknown_not_zero(blkio: Any) -> None:
    assert stats.usage(reading({}, blkio)).written_bytes is None
    assert stats.usage(reading({}, blkio)).memory_bytes is None


def test_a_container_that_does_not_run_has_no_statistics() -> None:
    ended = {"cpu_stats": {"cpu_usage": {"total_usage": 0}}}
    with pytest.raises(ClusterError, match="does not run"):
        stats.StatsStream(lambda: ended, lambda: (each for each in [])).newest()


def test_one_stream_serves_every_reader_and_ends_with_the_container() -> None:
    asked = []

    def ask() -> dict[str, Any]:
        asked.append(1)
        return V2

    stream = stats.StatsStream(ask, lambda: (each for each in [V1]))
    assert stream.newest() is V2
    assert stream._thread is not None
    stream._thread.join(timeout=5)
    assert stream.newest() is V1
    assert len(asked) == 1
    reading, at_ns = stream.newest_at()
    assert reading is V1
    assert stream.newest_at()[1] == at_ns < time.monotonic_ns(), "when it came, not when it is asked for"


def test_all_limits_that_cannot_be_given_are_told_at_once() -> None:
    wrong = {limits.CPUS: "3", limits.MEMORY: "64m"}
    with pytest.raises(BadInput) as refused:
        limits.check(wrong, Capacity(cpus=2, memory_bytes=8 * GIB))
    assert [problem.split(":")[0] for problem in refused.value.problems] == [limits.CPUS, limits.MEMORY]
    with pytest.raises(BadInput, match="CFS quota"):
        limits.check({limits.CPUS: "1"}, Capacity(2, GIB, limits_cpus=False))
    for words in ("a lot", "1x", "nan", "-1g"):
        with pytest.raises(BadInput):
            limits.check({limits.MEMORY: words}, Capacity(2, 8 * GIB))


@pytest.mark.parametrize(
    "fine", [{}, {limits.CPUS: "0", limits.MEMORY: "0"}, {limits.CPUS: "0.25", limits.MEMORY: "1g"}]
)
def test_limits_that_can_be_given_pass(fine: dict[str, str]) -> None:
    limits.check(fine, Capacity(cpus=2, memory_bytes=8 * GIB))


@given(st.integers(0, 2**40))
def test_memory_in_every_unit(amount: int) -> None:
    assert limits.memory_bytes(str(amount)) == limits.memory_bytes(f"{amount}b") == amount
    assert limits.memory_bytes(f"{amount}k") * 1024 == limits.memory_bytes(f"{amount}m")


def test_attached_servers_are_named_in_order_or_by_a_file(tmp_path: Path) -> None:
    two = connection_strings({"LABKIT_ATTACH": "postgresql://a@h1/db postgresql://a@h2:5433/db"})
    assert two == {"pg1": "postgresql://a@h1/db", "pg2": "postgresql://a@h2:5433/db"}
    file = tmp_path / "servers.yaml"
    file.write_text("lead: postgresql://a@h1/db\ncopy: host=h2 user=a\n")
    assert connection_strings({"LABKIT_ATTACH": str(file)}) == {
        "lead": "postgresql://a@h1/db",
        "copy": "host=h2 user=a",
    }


def test_a_broken_connection_string_is_refused_without_showing_it() -> None:
    with pytest.raises(BadInput) as refused:
        connection_strings(
            {"LABKIT_ATTACH": "postgresql://a:secret@h1:port:x/db postgresql://[h1/db postgresql://h1,h2/db"}
        )
    assert len(refused.value.problems) == 3
    assert "secret" not in str(refused.value)
    with pytest.raises(BadInput, match="no servers to attach"):
        connection_strings({})
    # Split at its blanks, each part of it would be a connection string of its own.
    with pytest.raises(BadInput, match="takes URIs with blanks between them") as refused:
        connection_strings({"LABKIT_ATTACH": "host=h1 port=5432 password=secret"})
    assert "secret" not in str(refused.value)
    with pytest.raises(BadInput, match="pg1 and pg3 are one server, h1:5432; name each once"):
        connection_strings({"LABKIT_ATTACH": "postgresql://a@h1/db postgresql://a@h2/db postgresql://b@h1:5432/other"})


class _OldEngine(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"ApiVersion": "1.40", "Version": "19.03"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_an_engine_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server = HTTPServer(("127.0.0.1", 0), _OldEngine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
    with pytest.raises(ProviderUnavailable, match=r"speaks API 1\.40, labkit needs 1\.41.*upgrade"):
        Engine()
    server.shutdown()
    server.server_close()


def test_without_compose_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProviderUnavailable, match="docker-compose-plugin"):
        compose_cli.command()
