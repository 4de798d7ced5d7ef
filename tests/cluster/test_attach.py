"""Servers that labkit did not start: made here as an owner makes them, then known by their connection strings only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
import yaml
from click.testing import Result
from fix_cli import invoke, shell
from fix_driven import with_parameters
from psycopg.sql import SQL, Literal

import labkit
from labkit.analysis import frames
from labkit.errors import BadInput, ClusterError
from labkit.lab import dataset
from labkit.lab.cluster import sql
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.powers import Isolatable, Killable, Limitable, Measurable, Repairable, ReplicaKeeper
from labkit.lab.dataset import DatasetSpec
from labkit.lab.failover.steps import FailoverSteps
from labkit.lab.providers.attach.provider import AttachProvider
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.lab.providers.protocol import ClusterSpec
from labkit.lab.sampling.node import DISK_METRICS, USAGE_METRICS
from labkit.run.store import Run, read_run

CATCHUP_S = 30
PASSWORD = "p@ss/word: of a guest"
GUEST, DATABASE = "guest", "guests"
HOSTS = ("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def owned(lab_data: Path) -> Iterator[Cluster]:
    """A primary and two replicas of another owner, with a database and a user with the least rights labkit needs."""
    assert lab_data
    made = EmbeddedProvider().up(ClusterSpec(name="owned"))
    with made.primary().connect() as connection:
        connection.execute(SQL("CREATE ROLE guest LOGIN PASSWORD {}").format(Literal(PASSWORD)))
        connection.execute("GRANT pg_monitor, pg_checkpoint TO guest")
        connection.execute("CREATE DATABASE guests OWNER guest")
    for node in made.nodes:
        # The lab's own servers accept only labkit's users.
        with (made_folder(made, node.name) / "pg_hba.conf").open("a", encoding="utf-8") as file:
            file.write("host all all samehost scram-sha-256\n")
        node.reload()
    made.wait_for_catchup(CATCHUP_S)
    yield made
    EmbeddedProvider().down("owned", purge=True)


@pytest.fixture(scope="module")
def stranger(lab_data: Path) -> Iterator[Cluster]:
    """A primary of its own, made by another initdb."""
    assert lab_data
    yield EmbeddedProvider().up(ClusterSpec(name="stranger", replicas=0))
    EmbeddedProvider().down("stranger", purge=True)


def made_folder(cluster: Cluster, node: str) -> Path:
    return Path(str(cluster.node(node).control.describe()["log"])).parent


def uri(owned: Cluster, node: str, *, password: str = PASSWORD, database: str = DATABASE, user: str = GUEST) -> str:
    found = owned.node(node)
    return f"postgresql://{user}:{quote(password, safe='')}@{found.host}:{found.port}/{database}"


def own_uri(cluster: Cluster, node: str) -> str:
    """As the owner of the servers connects."""
    return uri(
        cluster,
        node,
        user="labkit_admin",
        password=psycopg.conninfo.conninfo_to_dict(cluster.node(node).conninfo())["password"],  # type: ignore[arg-type]
        database="labkit",
    )


@pytest.fixture
def attached(owned: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The three servers, named by connection strings."""
    monkeypatch.setenv("LABKIT_ATTACH", " ".join(uri(owned, node.name) for node in owned.nodes))
    return AttachProvider().up(ClusterSpec())


def refusal(monkeypatch: pytest.MonkeyPatch, *strings: str, **spec: object) -> BadInput:
    """The message of `up` for these connection strings."""
    monkeypatch.setenv("LABKIT_ATTACH", " ".join(strings))
    asked = ClusterSpec(**({"replicas": len(strings) - 1} | spec))  # type: ignore[arg-type]
    with pytest.raises(BadInput) as refused:
        AttachProvider().up(asked)
    return refused.value


def processes(owned: Cluster) -> list[object]:
    return [node.control.describe()["pid"] for node in owned.nodes]


# --- what it does ------------------------------------------------------------------------------------------------


def test_roles_and_lag_are_asked_of_the_servers(attached: Cluster) -> None:
    assert attached.roles() == {"pg1": "primary", "pg2": "replica", "pg3": "replica"}
    assert attached.version.split(".")[0].isdigit()
    assert [(lag.name, lag.state) for lag in attached.lag()] == [("pg2", "streaming"), ("pg3", "streaming")]


def test_the_order_of_the_names_does_not_matter_and_lag_goes_by_application_name(
    owned: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "servers.yaml"
    listed = {"copy": "pg3", "lead": "pg1", "other": "pg2"}
    file.write_text(yaml.safe_dump({name: uri(owned, node) for name, node in listed.items()}))
    monkeypatch.setenv("LABKIT_ATTACH", str(file))
    found = AttachProvider().up(ClusterSpec())
    assert found.primary().name == "lead"
    assert [(lag.name, lag.state) for lag in found.lag()] == [("copy", "streaming"), ("other", "streaming")]


def test_seeding_puts_every_user_on_every_server_and_nothing_twice(attached: Cluster) -> None:
    spec = DatasetSpec(users=1000)
    assert not dataset.seed(attached, spec).already_there
    assert dataset.seed(attached, spec).already_there
    for node in attached.nodes:
        with node.connect() as connection:
            assert connection.execute("SELECT count(*), current_database() FROM users").fetchone() == (1000, DATABASE)


def drive(**parameters: object) -> Run:
    quick = {"users": 1000, "vus": 8, "connections": 2, "duration_s": 1, "rounds": 2, "warmup_s": 0}
    quick |= {"sample_interval_s": 0.2, "workloads": "get-user", "provider": "attach"}
    quick |= {"repeat_disturbed": 0, "interventions_s": 0}
    return labkit.read_scaling(labkit.ReadScaling.build(quick | parameters))


def test_a_read_load_is_measured_and_the_run_says_what_cannot_be(attached: Cluster, owned: Cluster) -> None:
    assert attached.nodes
    before = processes(owned)
    run = drive()
    assert run.status == "complete"
    assert processes(owned) == before, "labkit does not stop servers that it does not own"
    assert {block.arm: block.connections for block in run.blocks} == {
        "primary-only": {"pg1": 2},
        "replicas-round-robin": {"pg2": 1, "pg3": 1},
        "primary-only-more-connections": {"pg1": 4},
    }
    assert all(block.nodes == list(block.connections) for block in run.blocks)
    headline = labkit.headline(run)
    assert (headline["requests_per_s"] > 0).all()
    assert (headline["errors"] == 0).all()
    # Servers of others on this machine cannot be told from other programs.
    assert {(block.host_cpu.servers, block.host_cpu.others, block.disturbed) for block in run.blocks} == {(None,) * 3}
    assert not labkit.bottleneck(run)["reason"].str.contains("nan").any()
    seen = {pair for batch in run.batches("samples", ["node", "metric"]) for pair in batch.itertuples(index=False)}
    for node in ("pg1", "pg2", "pg3"):
        assert {(node, "connections_active"), (node, "connections_idle")} <= seen
        missing = run.record.not_measured[node]
        assert set(missing) == {*USAGE_METRICS.values(), *DISK_METRICS}
        assert all("sees what SQL shows" in reason for reason in missing.values())
        assert not {metric for where, metric in seen if where == node} & set(missing)
    assert {(node, metric) for node in ("pg2", "pg3") for metric in ("lag_bytes", "lag_s")} <= seen
    assert PASSWORD not in (run.path / "run.json").read_text(encoding="utf-8")


def test_replicas_of_one_application_name_are_told_apart_in_all_but_lag(owned: Cluster, attached: Cluster) -> None:
    """The name is PostgreSQL's default; deadline to stream again: 30 s."""
    assert attached.nodes
    kept = {}
    for name in ("pg2", "pg3"):
        node = owned.node(name)
        kept[name] = node.settings(["primary_conninfo"])["primary_conninfo"]
        node.configure({"primary_conninfo": f"{kept[name]} application_name=walreceiver"})
    try:
        labkit.lab.cluster.cluster.wait_until(
            lambda: [row["application_name"] for row in owned.replication()] == ["walreceiver"] * 2, 30, "the new names"
        )
        found = AttachProvider().up(ClusterSpec())
        assert [(lag.name, lag.lag_bytes) for lag in found.lag()] == [("pg2", None), ("pg3", None)]
        run = drive(rounds=1)
        for name in ("pg2", "pg3"):
            assert "application_name" in run.record.not_measured[name]["lag_bytes"]
        assert "lag_bytes" not in run.record.not_measured["pg1"]
    finally:
        for name, conninfo in kept.items():
            owned.node(name).configure({"primary_conninfo": conninfo})
        owned.wait_streaming(30)


# --- what it refuses ---------------------------------------------------------------------------------------------


def test_what_it_does_not_own_it_does_not_change(attached: Cluster, owned: Cluster) -> None:
    replica, before = attached.node("pg2"), processes(owned)
    for refused in (
        replica.promote,
        replica.reload,
        replica.control.stop,
        lambda: replica.repoint(attached.node("pg3")),
        lambda: replica.configure({"work_mem": "8MB"}),
        lambda: AttachProvider().down("lab"),
        lambda: AttachProvider().down("lab", purge=True),
        lambda: attached.synchronous("ANY", 1),
        lambda: FailoverSteps(attached, attached.node("pg1")),
    ):
        with pytest.raises(ClusterError, match=r"(pg1|pg2|lab) is attached, not owned by labkit.*ask its owner"):
            refused()
    for power in (Killable, Limitable, Isolatable, Measurable, Repairable):
        assert not isinstance(replica.control, power)
    assert not isinstance(AttachProvider(), ReplicaKeeper)
    assert processes(owned) == before
    assert owned.roles() == {"pg1": "primary", "pg2": "replica", "pg3": "replica"}
    assert owned.primary().settings(["synchronous_standby_names"]) == {"synchronous_standby_names": ""}


def test_experiments_that_change_servers_are_refused_before_anything_is_touched() -> None:
    for experiment in (labkit.Failover, labkit.MeasuringHonestly, labkit.StreamingReplication):
        with pytest.raises(BadInput, match="provider"):
            experiment.build({"provider": "attach"})
    with pytest.raises(BadInput, match="limited needs provider docker; attach cannot"):
        labkit.CpuBudget.build({"provider": "attach", "budgets": "limited"})


def test_every_server_that_cannot_be_used_is_reported_in_one_message(
    owned: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_port = uri(owned, "pg1").replace(f":{owned.node('pg1').port}/", ":1/")
    wrong, absent = uri(owned, "pg2", password="guessed"), uri(owned, "pg3", database="absent")
    refused = refusal(monkeypatch, closed_port, wrong, absent)
    assert len(refused.problems) == 3
    for problem, node, reason in zip(
        refused.problems,
        ("pg1", "pg2", "pg3"),
        ("127.0.0.1:1: .*refused", "password authentication failed", 'database "absent" does not exist'),
        strict=True,
    ):
        assert re.match(f"{node}: .*{reason}.*check this server", problem), problem
    assert "guessed" not in str(refused)
    unknown = refusal(monkeypatch, "postgresql://somebody@no-such-host.invalid/db")
    assert str(unknown).startswith("pg1: no-such-host.invalid:5432: ")


def test_a_user_without_rights_is_told_every_grant_that_it_needs(
    owned: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with owned.primary().connect() as connection:
        connection.execute(SQL("CREATE ROLE bare LOGIN PASSWORD {}").format(Literal(PASSWORD)))
    owned.wait_for_catchup(CATCHUP_S)
    refused = refusal(monkeypatch, *(uri(owned, node, user="bare") for node in ("pg1", "pg2")))
    told = "\n".join(refused.problems)
    for grant in ("GRANT pg_monitor", "GRANT pg_checkpoint", "GRANT CREATE ON SCHEMA public"):
        assert f'{grant} TO "bare"' in told
    assert [problem.split(":")[0] for problem in refused.problems] == ["pg1", "pg1", "pg1", "pg2"]


def test_no_primary_and_two_primaries_are_refused(
    owned: Cluster, stranger: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = refusal(monkeypatch, uri(owned, "pg2"), uri(owned, "pg3"))
    assert "no primary: pg1, pg2 are in recovery; add the connection string of their primary" in str(none)
    two = refusal(monkeypatch, uri(owned, "pg1"), own_uri(stranger, "pg1"))
    assert "more than one primary: pg1, pg2 are not in recovery" in str(two)
    unrelated = refusal(monkeypatch, own_uri(stranger, "pg1"), uri(owned, "pg2"))
    assert "pg2: it is not a replica of pg1: it was made by another initdb" in str(unrelated)


def test_a_server_under_two_names_is_no_second_server(owned: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a host name and as an address, a replica as well as the primary, also in another database."""
    twice = [uri(owned, node).replace("@127.0.0.1:", f"@{host}:") for node in ("pg2", "pg1") for host in HOSTS]
    twice[-1] = twice[-1].replace(f"/{DATABASE}", "/postgres")
    refused = refusal(monkeypatch, *twice)
    replica, primary = (owned.node(name).port for name in ("pg2", "pg1"))
    assert refused.problems == [
        f"{first} (127.0.0.1:{port}) and {second} (localhost:{port}) are one server under 2 names; name each server "
        "once in LABKIT_ATTACH"
        for first, second, port in (("pg1", "pg2", replica), ("pg3", "pg4", primary))
    ]


def test_a_table_that_is_not_labkit_s_is_not_replaced(stranger: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with stranger.primary().connect() as connection:
        connection.execute("CREATE TABLE users (id int)")
    refused = refusal(monkeypatch, own_uri(stranger, "pg1"))
    assert "pg1: its database has a table `users` that labkit did not make" in str(refused)


def test_what_seeding_created_is_removed_and_nothing_else(attached: Cluster, owned: Cluster) -> None:
    """A table `users` of somebody else that came in its place stays: it is not marked, so it is neither dropped nor
    replaced, though the record of labkit's own dataset is still there."""
    dataset.seed(attached, DatasetSpec(users=1000))
    with attached.primary().connect() as connection:
        connection.execute("CREATE TABLE orders (id int)")
        assert command("dataset", "remove").output == "removed: users, labkit_dataset\n"
        assert connection.execute("SELECT string_agg(relname, ', ') FROM pg_stat_user_tables").fetchone() == ("orders",)
        assert command("dataset", "remove").output == "there is nothing to remove\n"

        dataset.seed(attached, DatasetSpec(users=1000))
        connection.execute("DROP TABLE users")
        connection.execute("CREATE TABLE users (id int)")
        with pytest.raises(ClusterError, match="`users` was not made by labkit, and is not replaced"):
            dataset.seed(attached, DatasetSpec(users=100))
        with pytest.raises(BadInput, match="its database has a table `users` that labkit did not make"):
            AttachProvider().up(ClusterSpec())
        told = json.loads(command("dataset", "remove", "--json").output)
        assert told == [{"table": "users", "removed": False}, {"table": "labkit_dataset", "removed": True}]
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (0,)
        connection.execute("DROP TABLE users, orders")
    owned.wait_for_catchup(CATCHUP_S)


def test_what_is_asked_of_a_cluster_must_fit_the_servers(owned: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = refusal(monkeypatch, uri(owned, "pg1"), replicas=2, base_port=6000, settings={"work_mem": "8MB"})
    assert len(refused.problems) == 3
    assert "names a primary and 0 more; ask for 0" in str(refused)


# --- from the command line ---------------------------------------------------------------------------------------


def command(*words: str) -> Result:
    """In this process: starting another one for each command would take most of the time."""
    return invoke(*words, "--provider", "attach")


def test_the_commands(attached: Cluster, owned: Cluster) -> None:
    assert attached.nodes
    before = processes(owned)
    for verb in ("up", "status"):
        done = command(verb, "--json")
        assert done.exit_code == 0, done.stderr
        nodes = json.loads(done.stdout)[0]["nodes"]
        assert [node["role"] for node in nodes] == ["primary", "replica", "replica"]
        assert [node["replication"] for node in nodes] == [None, "streaming", "streaming"]
    for words, said in (
        (["down"], "lab is attached, not owned by labkit: it cannot be stopped from here; ask its owner"),
        (["down", "--all", "--purge"], "attached is attached, not owned by labkit: it cannot be deleted from here"),
        (["replicas", "rebuild", "pg2"], "provider attach does not own its servers"),
        (["replicas", "stop"], "pg2 is attached, not owned by labkit: it cannot be stopped"),
        (["failover", "--old", "pg1"], "cluster lab is attached, not owned by labkit: it cannot be failed over"),
        (["logs", "pg1"], "pg1: there is no log to show"),
    ):
        done = command(*words)
        assert done.exit_code == 2, words
        assert said in done.stderr
    asked = shell("psql", "pg2", "--provider", "attach", "-Atc", "SELECT pg_is_in_recovery(), current_database()")
    assert asked.stdout.strip() == f"t|{DATABASE}"
    assert processes(owned) == before


def test_status_says_why_servers_do_not_answer(owned: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_ATTACH", uri(owned, "pg1", password="guessed"))
    shown = command("status").stdout
    assert "password authentication failed" in shown
    assert "labkit up" not in shown
    monkeypatch.delenv("LABKIT_ATTACH")
    assert "`labkit up --provider attach` finds or makes one" in command("status").stdout
    unnamed = command("up")
    assert unnamed.exit_code == 2
    assert "set LABKIT_ATTACH to their connection strings" in unnamed.stderr


def test_a_replica_that_is_fed_by_other_means_than_streaming_is_its_owner_s_business(
    owned: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_ATTACH", " ".join(uri(owned, name) for name in ("pg1", "pg3")))
    pg3 = owned.node("pg3")
    with pg3.session() as connection:
        sql.configure(connection, {"primary_conninfo": ""})
    try:
        helps = owned.detached_replicas()["pg3"].remedy
        assert helps == owned.remedy("rejoin", "makes it a replica", node="pg3"), "labkit's own needs it"
        shown = command("status").stdout
        assert "replica" in shown
        assert "rejoin" not in shown
    finally:
        with pg3.session() as connection:
            pg3.follow(owned.node("pg1"), connection)
        owned.wait_streaming(CATCHUP_S)


def test_a_report_from_the_command_line(owned: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "servers.yml"
    file.write_text(yaml.safe_dump({"lead": uri(owned, "pg1"), "left": uri(owned, "pg2"), "right": uri(owned, "pg3")}))
    monkeypatch.setenv("LABKIT_ATTACH", str(file))
    quick = ["users=1000", "vus=8", "connections=2", "duration_s=1", "rounds=2", "warmup_s=0", "workloads=get-user"]
    quick += ["repeat_disturbed=0", "interventions_s=0"]
    done = shell("run", "read-scaling", "--json", *with_parameters(*quick, "provider=attach"))
    assert done.returncode == 0, done.stderr
    page = Path(json.loads(done.stdout)["report"])
    run = read_run(page.parent.parent)
    assert run.record.provider == "attach"
    assert set(frames.not_measured(run)["node"]) == {"lead", "left", "right"}
    assert PASSWORD not in page.read_text(encoding="utf-8")
