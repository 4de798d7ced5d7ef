"""Parameters are scalars outside and values inside: each is parsed once, and written again as it was."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest
import yaml
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from labkit.errors import BadInput
from labkit.experiments.catalogue import EXPERIMENTS
from labkit.experiments.concurrency_sweep.parameters import ConcurrencySweep
from labkit.experiments.cpu_budget.parameters import CpuBudget
from labkit.experiments.durability_matrix.parameters import DurabilityMatrix
from labkit.experiments.failover.parameters import Failover
from labkit.experiments.parameters import Parameters
from labkit.experiments.quorum_commit.parameters import QuorumCommit
from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.lab.failover.fault import Fault
from labkit.lab.routing.arms import ALL_NODES, PRIMARY_ONLY, REPLICAS, some_replicas
from labkit.replication import LEVELS, Replication

KINDS = {name: experiment.parameters for name, experiment in EXPERIMENTS.items()}
WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_./", max_size=20)


def listed(items: st.SearchStrategy[Any], **how: Any) -> st.SearchStrategy[str]:
    return st.lists(items, **how).map(lambda values: ",".join(map(str, values)))


def scalars(kind: type[Parameters], name: str) -> st.SearchStrategy[Any]:
    """Scalars that are in range for one parameter."""
    field, several = kind.model_fields[name], str(kind.model_fields[name].annotation).startswith("tuple")
    if words := kind.choices().get(name):
        chosen = st.sampled_from(words)
        return listed(chosen, min_size=1, unique=True) if several else chosen
    low, high = (
        next((getattr(each, bound) for each in field.metadata if hasattr(each, bound)), None) for bound in ("ge", "le")
    )
    if field.annotation is bool:
        return st.booleans()
    if field.annotation is int:
        return st.integers(low, None if high is None else int(high))
    if field.annotation is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False)
    if name == "mode":
        return st.just("async") | st.builds("{} {}".format, st.sampled_from(("FIRST", "ANY")), st.integers(1, 8))
    if name == "stages":
        amounts = st.floats(0, 1, allow_subnormal=False) | st.integers(0, 3)
        return listed(st.builds("{}:{}".format, amounts, amounts), max_size=4)
    if several:
        return st.lists(st.integers(1, 10**6), min_size=4, unique=True).map(sorted).map(lambda n: ",".join(map(str, n)))
    return WORDS


def built(kind: type[Parameters], values: dict[str, Any]) -> tuple[Parameters | None, list[str]]:
    """The parameters, or why they cannot be."""
    try:
        return kind.build(values), []
    except BadInput as error:
        return None, error.problems


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_what_is_written_down_is_read_as_the_same(name: str, data: st.DataObject) -> None:
    kind = KINDS[name]
    names = data.draw(st.sets(st.sampled_from(sorted(kind.model_fields)), min_size=1, max_size=4), "which")
    asked = {each: data.draw(scalars(kind, each), each) for each in sorted(names)}
    made, problems = built(kind, asked)
    assert not [problem for problem in problems if "out of range" in problem or "is not" in problem]
    if made is None:
        reject()
    written = made.as_dict()
    assert list(written) == list(kind.model_fields)
    assert all(type(value) in (str, int, float, bool) for value in written.values())
    assert kind.build(written) == made
    assert kind.build(json.loads(json.dumps(written))) == made
    assert kind.build(yaml.safe_load(yaml.safe_dump(written))) == made
    assert kind.build({each: str(value) for each, value in written.items()}) == made
    assert kind.build(written).as_dict() == written
    assert made.replace() == made


@pytest.mark.parametrize("name", KINDS)
def test_every_choice_round_trips_alone_and_with_all_others(name: str) -> None:
    kind = KINDS[name]
    for parameter, words in kind.choices().items():
        several = isinstance(getattr(kind(), parameter), tuple)
        for text in (*words, ",".join(words)) if several else words:
            made, problems = built(kind, {parameter: text})
            assert not [problem for problem in problems if "is not among" in problem]
            if made is not None:
                assert made.as_dict()[parameter] == text
                assert kind.build(made.as_dict()) == made


def test_inside_there_are_values() -> None:
    reads = ReadScaling.build({"arms": "replicas-round-robin, primary-only", "stages": "100:1,0:0.5"})
    assert reads.arms == (REPLICAS, PRIMARY_ONLY)
    assert reads.workloads == ("get-user", "search-users")
    assert [(stage.value, stage.seconds) for stage in reads.stages] == [(100, 1), (0, 0.5)]
    assert CpuBudget().arms == (PRIMARY_ONLY, some_replicas(1), REPLICAS, ALL_NODES)
    assert ConcurrencySweep.build({"levels": "1,2,4,8"}).levels == (1, 2, 4, 8)
    lost = Failover.build({"mode": "first  2", "level": "remote_apply", "fault": "kill-one-behind"})
    assert lost.replication == Replication("FIRST", 2, "remote_apply")
    assert lost.fault == Fault("kill", "one")
    matrix = DurabilityMatrix.build({"modes": "ANY 1", "levels": "local,on", "faults": "pause"})
    assert matrix.cells == [(Replication("ANY", 1, level), Fault("pause")) for level in ("local", "on")]


def test_without_a_replica_to_wait_for_only_levels_of_the_primary_itself_are_measured() -> None:
    arms = QuorumCommit().arms
    assert [arm.level for arm in arms if arm.mode == "off"] == ["off", "local"]
    assert [arm.level for arm in arms if arm == Replication("ANY", 1, arm.level)] == list(LEVELS[2:])
    assert len(arms) == len(set(arms)) == 2 + 3 * 3


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (
            ConcurrencySweep,
            {"levels": "1,x,0,1.5"},
            ["'x' is not a whole number", "levels: 0 is out of range", "'1.5'"],
        ),
        (ConcurrencySweep, {"levels": ""}, ["levels: '' names nothing"]),
        (ConcurrencySweep, {"levels": "1,2,3"}, ["levels: '1,2,3' must be at least four numbers that ascend"]),
        (ReadScaling, {"arms": "nowhere,primary-only,there"}, ["'nowhere' is not among primary-only,", "'there'"]),
        (ReadScaling, {"users": "1e30"}, ["users: 1e30 is out of range, it must be between 100 and 100,000,000"]),
        (
            DurabilityMatrix,
            {"modes": "ANY 3,async,off"},
            ["'ANY 3' is not among async, FIRST 1, ANY 1, ANY 2", "'off'"],
        ),
        (Failover, {"level": "x", "mode": "ANY 3"}, ["level: 'x' is not among off, local", "mode: k: ANY 3 asks"]),
    ],
)
def test_one_of_several_that_is_wrong_is_named(kind: type[Parameters], values: dict[str, str], said: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        kind.build(values)
    assert len(caught.value.problems) == len(said)
    for problem, words in zip(caught.value.problems, said, strict=True):
        assert words in problem


def test_however_they_are_made_they_are_checked_and_do_not_change() -> None:
    with pytest.raises(BadInput, match="vus: -1 is out of range"):
        ReadScaling(vus=-1)
    with pytest.raises(BadInput, match="exclude each other"):
        ReadScaling().replace(rate=5)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        ReadScaling().vus = 5
    with pytest.raises(TypeError):
        ReadScaling().arms[0] = REPLICAS
