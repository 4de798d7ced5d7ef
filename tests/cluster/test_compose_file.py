"""docker-compose.yaml alone, as its head says to use it: no labkit is involved."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from labkit import paths
from labkit.lab.providers import checks

pytestmark = pytest.mark.docker
Compose = Callable[..., str]
NAME = f"alone-{os.getpid()}"
READY_S = 60


@pytest.fixture(scope="module")
def compose(docker_engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """Run docker compose on the project's file, under a name, passwords and ports of its own."""
    passwords = tmp_path_factory.mktemp("secret") / "passwords"
    subprocess.run(["sh", str(paths.configs() / "postgresql" / "passwords.sh"), str(passwords)], check=True, timeout=30)
    ports = checks.free_ports(9, 0, [])
    environment = os.environ | {f"LABKIT_PORT_{i + 1}": str(port) for i, port in enumerate(ports)}
    environment |= {"LABKIT_CLUSTER": NAME, "LABKIT_PASSWORDS": str(passwords), "LABKIT_PG_IMAGE": docker_engine}

    def run(*words: str) -> str:
        return compose_in(environment, *words)

    yield run
    run("--profile", "*", "down", "--volumes", "--timeout", "0")


def compose_in(environment: Mapping[str, str], *words: str) -> str:
    """What docker compose says of the project's file."""
    command = ["docker", "compose", *words]
    done = subprocess.run(
        command, cwd=paths.home(), env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def query(compose: Compose, node: str, text: str) -> str:
    connection = "PGPASSFILE=/run/labkit/pgpass psql -XAt -h /tmp -U labkit_admin -d labkit"
    return compose("exec", "-T", "--user", "postgres", node, "sh", "-c", f'{connection} -c "{text}"')


def test_the_file_is_valid_without_anything_in_the_environment(docker_engine: str) -> None:
    assert docker_engine
    bare = {name: value for name, value in os.environ.items() if not name.startswith("LABKIT_")}
    services = json.loads(compose_in(bare, "config", "--format", "json"))["services"]
    assert list(services) == ["pg1", "pg2", "pg3"]
    assert {service["image"] for service in services.values()} == {"postgres:18"}
    assert {port["host_ip"] for service in services.values() for port in service["ports"]} == {"127.0.0.1"}


def test_up_with_wait_gives_streaming_replicas_and_a_number_gives_more(compose: Compose) -> None:
    compose("--profile", "3-replicas", "up", "-d", "--wait")
    assert [query(compose, f"pg{i}", "SELECT pg_is_in_recovery()") for i in (1, 2, 3, 4)] == ["f", "t", "t", "t"]
    streaming = query(compose, "pg1", "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
    assert sorted(streaming.splitlines()) == ["pg2", "pg3", "pg4"]
    assert query(compose, "pg2", "SHOW hba_file") == "/etc/labkit/replica/pg_hba.conf"


def test_a_killed_container_started_by_hand_comes_back_in_its_role(compose: Compose) -> None:
    """Deadline for its health check: 60 s."""
    for node, recovering in (("pg1", "f"), ("pg2", "t")):
        compose("kill", node)
        subprocess.run(["docker", "start", f"{NAME}-{node}"], check=True, capture_output=True, timeout=60)
        wait_healthy(node)
        assert query(compose, node, "SELECT pg_is_in_recovery()") == recovering


def wait_healthy(node: str) -> None:
    give_up = time.monotonic() + READY_S
    health = ["docker", "inspect", "--format", "{{.State.Health.Status}}", f"{NAME}-{node}"]
    while subprocess.run(health, capture_output=True, text=True, check=True, timeout=30).stdout.strip() != "healthy":
        assert time.monotonic() < give_up, f"{node} was not healthy after {READY_S} s"
        time.sleep(0.2)


def test_a_stop_is_clean(compose: Compose) -> None:
    compose("stop", "pg1")
    assert "database system is shut down" in compose("logs", "pg1")


def test_passwords_that_exist_are_kept(tmp_path: Path) -> None:
    script = ["sh", str(paths.configs() / "postgresql" / "passwords.sh"), str(tmp_path / "passwords")]
    subprocess.run(script, check=True, timeout=30)
    before = (tmp_path / "passwords").read_text()
    subprocess.run(script, check=True, timeout=30)
    assert (tmp_path / "passwords").read_text() == before
    assert len(set(before.split())) == 3
    assert (tmp_path / "passwords").stat().st_mode & 0o077 == 0
