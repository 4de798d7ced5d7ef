"""In every comparison that is stated one thing differs; where it is not so, that is said."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fix_records import a_load
from fix_runs import ARMS, MORE_ARMS
from hypothesis import given
from hypothesis import strategies as st

from labkit import paths
from labkit.analysis.report import sentences, tables
from labkit.analysis.statistics import compare
from labkit.checkers.comparisons import CLOSED, OPEN, SELF, comparisons
from labkit.errors import BadInput, RunUnreadable
from labkit.experiments.catalogue import EXPERIMENTS, experiment
from labkit.experiments.quorum_commit.parameters import QuorumCommit
from labkit.experiments.read_scaling import findings
from labkit.experiments.shared import ReadingUsers
from labkit.lab.routing import Serving
from labkit.lab.routing.arms import PRIMARY_ONLY, PRIMARY_ONLY_MORE, REPLICAS, REPLICAS_MORE
from labkit.run.schema import Block, CostBlock, Difference, LoadBlock
from labkit.run.store import Run, RunStore, read_run

MakeRun = Callable[..., Run]
SAMPLES = sorted(path.parent for path in paths.sample_runs().glob("*/*/run.json"))
FILES = sorted((paths.configs() / "experiments").rglob("*.yaml"))


def planned(p: ReadingUsers, rounds: int = 2) -> list[LoadBlock]:
    """The blocks that a read load with these parameters would note: nodes and connections as `Serving` shares them."""
    pg = [f"pg{i + 1}" for i in range(p.replicas + 1)]
    blocks: list[LoadBlock] = []
    for turn, arm in itertools.product(range(rounds), p.measured):
        last = 1 + (p.replicas if arm.replicas == "all" else arm.replicas)
        names = pg[0 if arm.primary else 1 : last]
        serving = Serving(names, arm.connections(p.connections, p.replicas))  # type: ignore[arg-type]
        facts: dict[str, Any] = {"arm": str(arm), "nodes": names, "vus": 10.0, "block": len(blocks), "round": turn}
        blocks.append(a_load(**facts, connections=dict(serving.by_node)))
    return blocks


def costs(p: QuorumCommit) -> list[Block]:
    facts: dict[str, Any] = {"round": 0, "sync_states": {}, "from_ns": 0, "to_ns": 1, "transactions": {}}
    facts |= {"rate_per_s": 1.0, "commit_p50_ms": 1.0, "commit_p99_ms": 1.0}
    return [CostBlock(block=i, mode=str(arm), level=arm.level, **facts) for i, arm in enumerate(p.arms)]


@pytest.mark.parametrize("kind", EXPERIMENTS.values(), ids=lambda kind: kind.name)
def test_one_thing_differs_in_every_comparison_of_every_experiment(kind: Any) -> None:
    named = [file for file in FILES if f"labkit run {kind.name} -f" in file.read_text(encoding="utf-8")]
    for p in [kind.parameters(), *map(kind.parameters.load, named)]:
        blocks: list[Any] = []
        if isinstance(p, ReadingUsers):
            blocks = planned(p)
        if isinstance(p, QuorumCommit):
            blocks = costs(p)
        found = comparisons(kind.name, blocks)
        assert [len(pair.differs) for pair in found] == [1] * len(found), found
        if kind.name in ("read-scaling", "cpu-budget", "concurrency-sweep"):
            assert len(found) == len(p.arms) - 1  # every arm but one says something


READS = (PRIMARY_ONLY, REPLICAS, PRIMARY_ONLY_MORE, REPLICAS_MORE)


@given(
    arms=st.lists(st.sampled_from(READS), min_size=1, max_size=4, unique=True),
    replicas=st.integers(0, 8),
    connections=st.integers(1, 40),
    processes=st.integers(1, 4),
    name=st.sampled_from(["read-scaling", "concurrency-sweep"]),
)
def test_whatever_is_accepted_compares_one_thing_over_connections_that_add_up(
    arms: list[Any], replicas: int, connections: int, processes: int, name: str
) -> None:
    asked = {"arms": ",".join(map(str, arms)), "replicas": replicas, "connections": connections}
    try:
        p: Any = experiment(name).parameters.build(asked | {"processes": processes} | LEVELS.get(name, {}))
    except BadInput:
        return
    blocks = planned(p)
    assert all(len(pair.differs) == 1 for pair in comparisons(name, blocks))
    for block in blocks:
        more = replicas if block.arm.endswith("more-connections") else 1
        assert sum(block.connections.values()) == connections * more
        assert max(block.connections.values()) - min(block.connections.values()) <= 1
        assert min(block.connections.values()) >= processes


LEVELS = {"concurrency-sweep": {"levels": "4,8,16,32"}}


def test_pools_to_each_node_are_compared_in_two_steps(make_run: MakeRun) -> None:
    run = make_run(arms=(*ARMS, *MORE_ARMS), rounds=2, workloads=("get-user",))
    assert [(pair.arm, pair.against, *map(str, pair.differs)) for pair in compare.comparisons(run)] == [
        ("replicas-round-robin", "primary-only", "nodes that serve reads: pg1 → pg2, pg3"),
        ("primary-only-more-connections", "primary-only", "connections: 4 → 8"),
        (
            "replicas-round-robin-more-connections",
            "primary-only-more-connections",
            "nodes that serve reads: pg1 → pg2, pg3",
        ),
    ]
    compared = compare.arms(run)
    assert list(dict.fromkeys(zip(compared["arm"], compared["against"], strict=True))) == [
        (pair.arm, pair.against) for pair in compare.comparisons(run)
    ]
    assert "the replicas with more connections" in str(findings.verdicts(run))
    assert "the replicas with more connections" not in str(findings.lead(run)), "the two parts are the head"


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ("primary-only,replicas-round-robin-more-connections", "differs from primary-only in 2 things"),
        (
            "replicas-round-robin,primary-only-more-connections",
            "differs from primary-only-more-connections in 2 things",
        ),
    ],
)
def test_arms_that_differ_in_two_things_alone_are_refused(arms: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        experiment("read-scaling").parameters.build({"arms": arms})


def test_the_head_says_what_replicas_change_and_what_connections_change(make_run: MakeRun) -> None:
    rates = {("get-user", "replicas-round-robin"): 950.0, ("get-user", "primary-only-more-connections"): 700.0}
    run = make_run(arms=(*ARMS, MORE_ARMS[0]), rounds=6, rates=rates, workloads=("get-user",))
    (both,) = findings.lead(run)
    replicas, connections = both.split("; ")
    assert replicas.startswith("The replicas answered ")
    assert "fewer get-user requests per second than the primary alone (95 % interval" in replicas
    assert connections.startswith("the primary alone with more connections (8 instead of 4) answered ")
    assert "than the primary alone (95 % interval" in connections
    original = next(sentence for sentence in findings.verdicts(run) if "original report saw −6.6 %" in sentence)
    assert original.endswith("it opened a pool to each node, so its replicas had more connections as well.")
    assert sentences.compared(run) == [
        "Compared: the primary alone → the replicas (nodes that serve reads: pg1 → pg2, pg3).",
        "Compared: the primary alone → the primary alone with more connections (connections: 4 → 8).",
    ]
    assert tables.comparisons(run)["what differs"].tolist() == [
        "nodes that serve reads: pg1 → pg2, pg3",
        "connections: 4 → 8",
    ]


def test_a_run_from_before_says_that_two_things_differ(make_run: MakeRun) -> None:
    run = make_run(pools_to_each_node=True, rounds=3, workloads=("get-user",))
    said = (
        "2 things differ between the replicas and the primary alone (nodes that serve reads: pg1 → pg2, pg3; "
        "connections: 4 → 8), so no difference between them can be laid to one of these."
    )
    assert said in findings.lead(run)
    assert said in findings.verdicts(run)


def test_a_run_from_before_and_one_from_now_differ_in_connections_though_as_many_were_asked_for(
    make_run: MakeRun,
) -> None:
    before, now = (make_run(pools_to_each_node=pools, rounds=1, workloads=("get-user",)) for pools in (True, False))
    assert before.parameters["connections"] == now.parameters["connections"]
    (row,) = compare.parameters([before], [now]).to_dict("records")
    assert row == {"parameter": "connections of replicas-round-robin", "A": 8, "B": 4}
    assert compare.parameters([now], [now]).empty


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_shipped_run_states_what_differs_or_says_so_in_its_head(path: Path) -> None:
    run = read_run(path)
    several = [pair for pair in compare.comparisons(run) if len(pair.differs) > 1]  # nothing, of a server with itself
    if several:
        head = str(EXPERIMENTS[run.experiment].findings.lead(run))
        assert all(f"{len(pair.differs)} things differ between" in head for pair in several)


def test_a_matrix_says_that_held_writes_lengthen_the_outages_of_waiting_commits_too() -> None:
    for path in (path for path in SAMPLES if path.parent.name == "durability-matrix"):
        said = str(EXPERIMENTS["durability-matrix"].findings.verdicts(read_run(path)))
        assert "(`hold_writes`): two things differ between these outages and the others" in said


def test_what_run_json_says_is_not_derived_again(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("read-scaling", {})
    run.note_block(a_load())
    run.note_block(a_load(block=1, arm="replicas-round-robin", nodes=["pg2"], connections={"pg2": 4}))
    (derived,) = compare.comparisons(run)
    noted = Difference(thing="mood", before="good", after="bad")
    run.update(comparisons=[derived.changed(differs=[noted])])
    assert compare.comparisons(read_run(run.path))[0].differs == [noted]


def test_what_was_noted_as_one_text_is_read_in_its_parts(tmp_path: Path) -> None:
    run = RunStore(tmp_path).create("read-scaling", {})
    file = run.path / "run.json"
    noted = json.loads(file.read_text(encoding="utf-8"))
    del noted["seal"]
    pair = {"arm": "primary-only-more-connections", "against": "primary-only", "differs": ["connections: 1 → 2 or 4"]}
    file.write_text(json.dumps(noted | {"comparisons": [pair]}), encoding="utf-8")
    (found,) = compare.comparisons(read_run(run.path))
    assert found.differs == [Difference(thing="connections", before="1", after="2 or 4")]
    assert found.in_words == "connections: 1 → 2 or 4"
    file.write_text(json.dumps(noted | {"comparisons": [pair | {"differs": ["fewer"]}]}), encoding="utf-8")
    with pytest.raises(RunUnreadable, match=r"comparisons.0.differs.0.*'fewer' is not written"):
        read_run(run.path)


def test_the_parts_of_a_difference_are_fields_of_the_record_whatever_words_they_hold() -> None:
    node, other = "pg: 1 → old", {"block": 1, "arm": "replicas-round-robin", "nodes": ["pg2"]}
    (pair,) = comparisons("read-scaling", [a_load(nodes=[node]), a_load(**other)])
    (found,) = pair.as_json()["differs"]
    assert found == {"thing": "nodes that serve reads", "before": node, "after": "pg2"}


def test_a_budget_is_compared_with_the_primary_alone_which_cannot_be_left_out() -> None:
    with pytest.raises(BadInput, match="arms: primary-only is missing, the others are compared with it"):
        experiment("cpu-budget").parameters.build({"arms": "replicas-round-robin"})


def test_anything_else_that_differs_is_found() -> None:
    base = {"vus": 10.0}
    other = {"block": 1, "arm": "replicas-round-robin", "nodes": ["pg2"], "connections": {"pg2": 4}}

    def differs(**facts: Any) -> list[str]:
        (pair,) = comparisons("read-scaling", [a_load(**base), a_load(**base | other | facts)])
        return [str(each) for each in pair.differs[1:]]

    figures = {"from_ns": 0, "warm_until_ns": 0, "to_ns": 1, "requests": 0}
    figures |= {"generator_cpu_percent": 1.0, "pool_busy_fraction": 0.5}
    assert differs() == []
    assert differs(vus=10.05) == []  # a mean over a ramp
    assert differs(vus=20.0) == ["load: 10 users → 20 users"]
    assert differs(vus=None, offered_per_s=1500.0, arrival="poisson") == ["load: 10 users → 1,500 requests/s, poisson"]
    assert differs(shards=[figures, figures]) == ["load generators: 1 → 2"]
    assert differs(node_cpus=0.25) == ["CPUs of a node: no limit → 0.25"]


def test_the_levels_of_a_round_are_compared_with_the_same_levels() -> None:
    blocks = []
    for turn, levels in enumerate(((1, 2, 4), (4, 2, 1))):
        for vus, (arm, node) in itertools.product(levels, (("primary-only", "pg1"), ("replicas-round-robin", "pg2"))):
            facts = {"block": len(blocks), "round": turn, "arm": arm, "vus": float(vus)}
            blocks.append(a_load(**facts, nodes=[node], connections={node: 4}))
    (pair,) = comparisons("concurrency-sweep", blocks[:-1])  # the last was cut off
    assert [*map(str, pair.differs)] == ["nodes that serve reads: pg1 → pg2"]


def test_a_stall_is_seen_by_users_and_by_a_rate_and_a_server_is_compared_with_itself() -> None:
    closed, opened = {"vus": 16.0, "think_s": 0.01}, {"vus": None, "offered_per_s": 1500.0, "arrival": "constant"}
    blocks = [a_load(arm=CLOSED, **closed), a_load(block=1, arm=OPEN, **opened)]
    blocks += [a_load(block=2 + i, arm=arm, vus=16.0) for i, arm in enumerate(SELF)]
    first, second = comparisons("measuring-honestly", blocks)
    assert [*map(str, first.differs)] == ["load: 1,500 requests/s, constant → 16 users who think 10 ms"]
    assert (second.arm, second.against, second.differs) == ("A again", "A", [])


def test_a_step_of_safety_from_off_to_a_replica_is_two_and_is_not_stated() -> None:
    found = comparisons("quorum-commit", costs(QuorumCommit.build({"levels": "off,on,remote_apply"})))
    assert ("FIRST 1/on", "async/off") not in [(pair.arm, pair.against) for pair in found]
    assert [(pair.arm, pair.against) for pair in found if pair.arm.startswith("FIRST")] == [
        ("FIRST 1/remote_apply", "FIRST 1/on")
    ]
    (local,) = [
        pair for pair in comparisons("quorum-commit", costs(QuorumCommit())) if pair.arm == "ANY 1/remote_write"
    ]
    assert local.against == "async/local"
    assert local.in_words == "replicas that commits wait for: async → ANY 1"
