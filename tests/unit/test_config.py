"""Parameters: names, types, ranges and combinations are checked at once, whichever way they come in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit import paths
from labkit.errors import BadInput
from labkit.experiments.catalogue import EXPERIMENTS, experiment
from labkit.experiments.failover.parameters import Failover
from labkit.experiments.parameters import Parameters, assignments
from labkit.experiments.quorum_commit.parameters import QuorumCommit
from labkit.experiments.read_scaling.parameters import ReadScaling
from labkit.experiments.shared import SPARE_CONNECTIONS, max_connections
from labkit.replication import Replication


def test_every_problem_is_named_in_one_error() -> None:
    with pytest.raises(BadInput) as caught:
        ReadScaling.build({"vus": -1, "duration_s": -1, "vuss": 5, "hit_ratio": "much", "replicas": 0})
    text = str(caught.value)
    assert len(caught.value.problems) == 6
    for part in (
        "vus: -1 is out of range",
        "duration_s: -1",
        "did you mean 'vus'",
        "'much' is not a number",
        "arm",
        "needs 2",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vus", "ten"),
        ("vus", 1.5),
        ("vus", True),
        ("vus", None),
        ("duration_s", "nan"),
        ("duration_s", "inf"),
        ("keep_cluster", "perhaps"),
        ("keep_cluster", 2),
        ("keep_cluster", 1),
        ("keep_cluster", 0.0),
        ("cluster", b"lab"),
        ("vus", b"5"),
        (5, 1),
        ("provider", "kubernetes"),
        ("workloads", ""),
        ("workloads", "get-user,get-user"),
        ("arms", "primary-only,nowhere"),
        ("users", [1]),
        ("rounds", 1000),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(name: str | int, value: object) -> None:
    with pytest.raises(BadInput, match=str(name)):
        ReadScaling.build({name: value})


@given(vus=st.integers(1, 100_000), duration=st.floats(12, 86_400), keep=st.booleans())
def test_text_from_the_command_line_means_the_same_as_values(vus: int, duration: float, keep: bool) -> None:
    values = {"vus": vus, "duration_s": duration, "keep_cluster": keep}
    assert ReadScaling.build(values) == ReadScaling.build({name: str(value) for name, value in values.items()})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rate": 500}, ["rate: 500 requests per second and vus: 1000 exclude each other"]),
        ({"vus": 0}, ["vus: 0 users and rate: 0"]),
        ({"vus": 0, "rate": 9, "think_s": 1}, ["think_s: 1 s"]),
        ({"vus": 3, "processes": 4}, ["cannot share vus: 3; use at most 3"]),
        (
            {"connections": 2, "processes": 4},
            ["connections: 2 do not give replicas-round-robin one to each node for each of 4 processes", "at least 8"],
        ),
        ({"connections": 1}, ["connections: 1 do not give replicas-round-robin one to each node; use at least 2"]),
        (
            {"connections": 2, "replicas": 3, "rounds": 1000, "arms": "replicas-round-robin-more-connections,nowhere"},
            ["'nowhere' is not among", "connections: 2 do not give replicas-round-robin one", "too short"],
        ),
        ({"replicas": 1}, ["arms: primary-only-more-connections needs 2 replicas"]),
        ({"vus": 0, "rate": 9, "max_in_flight": 1, "processes": 2}, ["cannot share max_in_flight: 1"]),
        ({"stages": "10:1,20:-2"}, ["stage 2: -2 s goes back in time"]),
        ({"stages": "10:1,-20:2,x,5"}, ["stage 2: -20 is below 0", "stage 3: 'x'", "stage 4: '5'"]),
        ({"stages": "10:100"}, ["they take 100 s", "raise duration_s to 594"]),
        (
            {"rate": 500, "stages": "1:-1", "processes": 2000, "think_s": 2},
            ["rate:", "processes:", "stage 1", "think_s"],
        ),
    ],
)
def test_combinations_that_cannot_work_are_all_named(values: dict[str, object], words: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        ReadScaling.build(values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"vus": 0, "rate": 500, "arrival": "constant", "processes": 4, "stages": "100:1,0:0,300:2"},
        {"vus": 4, "processes": 4, "think_s": 0.5, "stages": "1000:3"},
    ],
)
def test_combinations_that_can_work_are_accepted(values: dict[str, object]) -> None:
    assert ReadScaling.build(values).as_dict().items() >= values.items()


def test_master_is_accepted_as_the_word_of_the_original_report() -> None:
    assert ReadScaling.build({"arms": "master-only"}).as_dict()["arms"] == "primary-only"


def test_overrides_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("vus: 7\nusers: 5000\n", encoding="utf-8")
    loaded = ReadScaling.load(file, assignments(("vus=9",)))
    assert (loaded.vus, loaded.users, loaded.seed) == (9, 5000, ReadScaling().seed)


def test_words_that_older_yaml_takes_for_truth_values_are_words_and_parameters_read_what_they_want(
    tmp_path: Path,
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("level: on\nmode: off\nby_hand: yes\nrejoin: off\nkeep_cluster: true\n", encoding="utf-8")
    p = Failover.load(file)
    assert (p.replication, p.by_hand, p.rejoin, p.keep_cluster) == (Replication("off", level="on"), True, False, True)
    file.write_text("levels: [on, off, local]\n", encoding="utf-8")
    assert QuorumCommit.load(file).levels == ("on", "off", "local")
    with pytest.raises(BadInput, match=r"level: True is not among off, .*; YAML takes on and off .*: quote them"):
        Failover.build({"level": True})


@pytest.mark.parametrize("content", ["- 1\n- 2\n", "vus: [1", "just words", "\x00"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=r"broken\.yaml"):
        ReadScaling.load(file)


def test_a_missing_file_and_a_word_without_a_value_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        ReadScaling.load(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="name=value"):
        assignments(("vus",))


def test_a_misspelt_parameter_that_papermill_injected_is_found() -> None:
    cells = ["", "vus = 10", "# Parameters\nvuss = 20\nvus = 30\n"]
    with pytest.raises(BadInput, match="vuss"):
        ReadScaling.from_notebook({"In": cells, "vus": 30, "vuss": 20, "unrelated": object()})
    assert ReadScaling.from_notebook({"In": cells[:2], "vus": 10, "n": 3}).vus == 10


def test_the_table_explains_every_parameter() -> None:
    rows = ReadScaling.table()
    assert [row["name"] for row in rows] == list(ReadScaling().as_dict())
    assert all(row["meaning"] for row in rows)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_a_quick_preset_that_asks_for_less(name: str) -> None:
    kind = experiment(name).parameters
    quick = kind.load(paths.configs() / "experiments" / "quick" / f"{name}.yaml")
    changed = {field: value for field, value in quick.as_dict().items() if value != kind().as_dict()[field]}
    assert changed
    assert not changed.keys() & {"run_id", "provider", "cluster", "replicas", "seed", "keep_cluster"}


@pytest.mark.parametrize("file", sorted((paths.configs() / "experiments").rglob("*.yaml")), ids=lambda f: f.stem)
def test_every_experiment_file_loads_as_the_experiment_that_its_first_lines_name(file: Path) -> None:
    path = file.relative_to(paths.home())
    # Samples are recorded by `make sample`, as data/README.md says.
    words = (
        r"A sample of ([\w-]+) for data/sample\b"
        if file.parent.name == "sample"
        else rf"labkit run ([\w-]+) -f {path}\n"
    )
    named = re.search(words, file.read_text(encoding="utf-8"))
    assert named, f"{file} does not say how to run it"
    assert experiment(named.group(1)).parameters.load(file)


@pytest.mark.parametrize(
    "name", ["read-scaling", "cpu-budget", "max-throughput", "concurrency-sweep", "measuring-honestly"]
)
def test_more_connections_than_the_servers_are_configured_for_are_refused_before_there_is_one(name: str) -> None:
    terms = experiment(name).parameters
    most = max_connections() - SPARE_CONNECTIONS
    alone = {"arms": "primary-only"} if "arms" in terms.model_fields else {}
    assert terms.build(alone | {"connections": most}).connections == most
    with pytest.raises(BadInput, match=rf"max_connections of at least {max_connections() + 1}"):
        terms.build(alone | {"connections": most + 1})
    # What others own is asked of them; a recorded run needs no server.
    assert ReadScaling.build({"connections": most + 1, "provider": "attach"})
    assert terms.build({"connections": most + 1, "run_id": "latest"})


def test_connections_are_checked_as_one_node_has_them() -> None:
    """Two replicas share them; the primary with more has twice as many."""
    most = max_connections() - SPARE_CONNECTIONS
    assert ReadScaling.build({"arms": "replicas-round-robin", "connections": 2 * most})
    with pytest.raises(BadInput, match=f"{most + 1} to a node in replicas-round-robin"):
        ReadScaling.build({"arms": "replicas-round-robin", "connections": 2 * most + 1})
    with pytest.raises(BadInput, match=f"{most + 2} to a node in primary-only-more-connections"):
        ReadScaling.build({"connections": most // 2 + 1})


def problems(kind: type[Parameters], values: dict[str, object]) -> list[str]:
    try:
        kind.build(values)
    except BadInput as error:
        return error.problems
    return []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_choice_of_every_parameter_is_among_the_choices(name: str) -> None:
    """It may be refused because of other parameters, but never for not being one."""
    kind = experiment(name).parameters
    choices = [(parameter, choice) for parameter, words in kind.choices().items() for choice in words]
    for parameter, choice in choices:
        found = problems(kind, {parameter: choice})
        assert not [problem for problem in found if "not among" in problem]
        if not found:
            assert kind.build({parameter: choice}).as_dict()[parameter] == choice
