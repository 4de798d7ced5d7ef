"""labkit run, runs, report, compare: what is refused before anything starts, and what is listed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from fix_cli import invoke
from fix_records import a_trial
from fix_runs import Recipe, build

import labkit
from labkit import paths
from labkit.errors import BadInput, RunNotFound
from labkit.experiments import catalogue, stage
from labkit.run.store import Run, RunStore, open_run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    return tmp_path / "runs"


@pytest.fixture
def run(root: Path) -> Run:
    return build(root, Recipe(rounds=2))


def test_every_problem_of_a_command_is_in_one_message(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("duration_s: -1\n")
    done = invoke("run", "read-scaling", "-f", str(file), "-p", "vus=0", "-p", "nonsense", "-p", "userz=5")
    assert done.exit_code == 2
    for problem in ("duration_s: -1", "vus: 0", "'nonsense' is not of the form", "did you mean 'users'"):
        assert problem in done.output
    assert not root.exists()


def test_a_parameter_file_of_the_project_is_found_from_anywhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("run", "failover", "-f", "configs/experiments/quick/failover.yaml", "-p", "vus=1")
    assert done.exit_code == 2
    assert "unknown parameter 'vus'" in done.output
    assert "cannot read" not in done.output
    assert not root.exists()


def test_an_unknown_experiment_and_its_bad_words_are_refused_together(root: Path) -> None:
    done = invoke("run", "read-scale", "-p", "x", "-f", "/nowhere.yaml")
    assert done.exit_code == 2
    for problem in ("did you mean 'read-scaling'", "'x' is not of the form", "/nowhere.yaml"):
        assert problem in done.output
    assert not root.exists()


@pytest.mark.usefixtures("root")
def test_an_arm_without_a_server_is_refused() -> None:
    done = invoke("run", "read-scaling", "-p", "replicas=0")
    assert done.exit_code == 2
    assert "replicas-round-robin without a server" in done.output


def test_runs_lists_id_status_parameters_and_headline(run: Run) -> None:
    done = invoke("runs")
    assert done.exit_code == 0
    assert run.id in done.output
    assert "complete" in done.output
    assert "rounds=2" in done.output
    _, own = done.output.split(run.id)
    assert own.count("requests/s") == 4


def test_runs_as_json(run: Run) -> None:
    (listed,) = [row for row in json.loads(invoke("runs", "--json").output) if not row["sample"]]
    assert (listed["id"], listed["status"]) == (run.id, "complete")
    assert listed["parameters"]["vus"] == 50
    assert {row["workload"] for row in listed["headline"]} == {"get-user", "search-users"}


def test_a_damaged_run_is_listed_with_its_reason_beside_the_others(run: Run, root: Path) -> None:
    broken = RunStore(root).create("read-scaling", {})
    (broken.path / "run.json").write_text("{")
    done = invoke("runs")
    assert done.exit_code == 0
    assert run.id in done.output
    assert f"{broken.id}  unreadable" in done.output


def test_no_damaged_or_empty_run_keeps_the_others_from_being_listed(run: Run, root: Path) -> None:
    for name in catalogue.EXPERIMENTS:
        RunStore(root).create(name, {}).mark("complete")
    twice = RunStore(root).create("durability-matrix", {})
    twice.update(blocks=[a_trial(block=0), a_trial(block=1)])
    file = twice.path / "run.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"block": 1', '"block": 0'), encoding="utf-8")
    other = build(root, Recipe(rounds=2))
    other.record.digests = None  # as runs of before, of which only the columns can show it
    other.mark("complete")
    part = next((other.path / "ops").iterdir())
    pd.DataFrame({"block": [0]}).to_parquet(part)
    rows = json.loads(invoke("runs", "--json").output)
    said = {row["id"]: row["problem"] for row in rows if not row["sample"]}
    assert len(said) == len(catalogue.EXPERIMENTS) + 3
    assert said[other.id].startswith(f"{part} cannot be read as a part of ops: column block is int64, not int32")
    assert said[run.id] is None
    assert said[twice.id] == f"{file} cannot be read as a run: blocks: there is more than one block 0"


@pytest.mark.usefixtures("root")
def test_runs_lists_the_samples_that_come_with_labkit_first_and_marked(run: Run) -> None:
    samples = RunStore(paths.sample_runs()).ids()
    for last, listed in ((1, [run.id]), (2, [samples[-1], run.id]), (1 + len(samples), [*samples, run.id])):
        rows = json.loads(invoke("runs", "-n", str(last), "--json").output)
        assert [row["id"] for row in rows] == listed
        assert [row["sample"] for row in rows] == [True] * (last - 1) + [False]
    one = invoke("runs", "-n", "1").output
    assert not any(sample in one for sample in samples)
    assert f"{len(samples)} more; `labkit runs -n {1 + len(samples)}` lists them too" in one
    shown = invoke("runs").output
    assert "more; " not in shown
    assert all(f"{name}  complete (sample)" in shown for name in samples)
    assert f"{run.id}  complete  " in shown


def test_a_run_that_does_not_exist_is_answered_with_those_of_the_experiment_that_was_meant(run: Run) -> None:
    """Asked of a notebook, that is its own experiment; asked of a command, the one that the name begins with."""
    with pytest.raises(RunNotFound) as refused:
        stage.recorded(labkit.Failover(run_id="yesterday"))
    sample = RunStore(paths.sample_runs()).ids("failover")[-1]
    assert f"among the samples of failover:\n  {sample.split('/')[0]}/" in str(refused.value)
    done = invoke("report", "failover/yesterday")
    for said in (done.output, str(refused.value)):
        assert sample in said
        assert "read-scaling" not in said, "there are only runs of another experiment"
        assert "there is none of failover; " in said
    assert "`labkit run failover` makes one" in done.output
    with pytest.raises(BadInput, match="is a run of read-scaling, not of failover") as other:
        stage.recorded(labkit.Failover(run_id=run.id))
    assert sample in str(other.value)


@pytest.mark.usefixtures("root")
def test_where_there_is_no_run_at_all_the_samples_are_named_and_how_to_make_one() -> None:
    for words in (("report", "nosuch"), ("audit", "nosuch"), ("compare", "nosuch", "latest")):
        done = invoke(*words)
        assert done.exit_code == 2
        assert "there is no run 'nosuch'; among the samples:" in done.output
        assert all(sample in done.output for sample in RunStore(paths.sample_runs()).ids())
        assert "there is none; `labkit run read-scaling` makes one" in done.output


@pytest.mark.usefixtures("root")
def test_the_columns_of_a_list_are_apart_however_long_their_words() -> None:
    kinds = catalogue.EXPERIMENTS.values()
    arms = {arm for kind in kinds for arm in kind.findings.headline(open_run(f"{kind.name}/latest"))["arm"]}
    shown = invoke("runs").output
    assert {arm for arm in arms if len(arm) >= 22}, "or this shows nothing"
    for arm in arms:
        assert re.search(rf"^    \S.*?  +{re.escape(arm)}(  |$)", shown, re.MULTILINE), arm


def test_a_run_is_found_by_its_path_from_the_project_s_folder_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a notebook writes it, which runs in a folder of its own."""
    assert not root.exists()
    monkeypatch.chdir(tmp_path)
    sample = RunStore(paths.sample_runs()).ids("failover")[0]
    assert labkit.open_run(f"data/sample/{sample}").id == sample


def test_latest_is_the_newest_of_the_experiment_that_is_asked_for(root: Path, run: Run) -> None:
    RunStore(root).create("failover", {})
    assert stage.recorded(labkit.ReadScaling(run_id="latest")).id == run.id


def test_a_run_directory_is_its_owner_s_alone(run: Run) -> None:
    assert run.path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("text", ["vus: 5\nrounds: 2\nvus: 7\n", "{vus: 5, vus: 7}"])
def test_a_parameter_that_is_given_twice_is_refused_with_all_else(root: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    done = invoke("run", "read-scaling", "-f", str(file), "-p", "cluster=../lab", "-p", "rounds=0")
    assert done.exit_code == 2
    for problem in (f"{file}: 'vus' is given twice, in line", "cluster: '../lab' must be made of letters", "rounds: 0"):
        assert problem in done.output
    assert not root.exists()


def test_an_option_that_is_given_twice_is_refused_with_all_else(root: Path) -> None:
    twice = ["-p", "users=10", "-p", "vus=0", "-p", "users=20", "-p", "nonsense", "-p", "nonsense"]
    done = invoke("run", "read-scaling", *twice)
    assert done.exit_code == 2
    for problem in ("'users' is given twice: users=10, users=20", "vus: 0", "'nonsense' is not of the form"):
        assert problem in done.output
    assert not root.exists()
    assert "'work_mem' is given twice" in invoke("up", "--set", "work_mem=1MB", "--set", "work_mem=2MB").output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vus: 5\nrounds: [1, 2\n", "not valid YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("vus: 5\nusers: a: b\n", "not valid YAML: mapping values are not allowed here in line 2, column 9"),
        ("vus: 5\nusers: \x00\n", "not valid YAML: special characters are not allowed (#x0000) in line 2"),
        ("users: 2026-13-01\n", "not valid YAML: month must be in 1..12"),
    ],
)
def test_what_is_no_yaml_is_told_by_file_and_line(root: Path, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    done = invoke("run", "read-scaling", "-f", str(file))
    assert done.exit_code == 2
    assert f"{file}: {said}" in done.output
    assert "unicode string" not in done.output
    assert not root.exists()


@pytest.mark.usefixtures("root")
def test_no_runs_says_how_to_make_one() -> None:
    done = invoke("runs")
    assert done.exit_code == 0
    assert "labkit run read-scaling" in done.output


@pytest.mark.parametrize("words", [("report", "nowhere"), ("compare", "nowhere", "latest")])
def test_an_unknown_run_is_answered_with_the_newest(run: Run, words: tuple[str, ...]) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert "there is no run 'nowhere'" in done.output
    assert run.id in done.output


def test_a_run_cut_off_before_it_was_measured_has_no_report(root: Path) -> None:
    empty = RunStore(root).create("read-scaling", {})
    empty.mark("failed", "interrupted")
    empty.update(planned={"get-user, primary-only": 2})
    done = invoke("report", empty.id)
    assert done.exit_code == 1
    assert "holds no finished block (interrupted)" in done.output
    assert "2 of 2 planned blocks are missing: get-user, primary-only (2 of 2)" in done.output
    summary = empty.summary()
    assert summary is not None
    assert not summary.valid
    assert not empty.page.exists()


def test_runs_without_anything_in_common_are_not_compared(root: Path) -> None:
    a, b = (build(root, Recipe(rounds=1, workloads=(name,), seed=len(name))) for name in ("get-user", "search-users"))
    done = invoke("compare", a.id, b.id)
    assert done.exit_code == 2
    assert "no workload and arm in common" in done.output


def test_copies_of_one_run_are_not_compared_as_several(run: Run) -> None:
    """Three runs a side give an interval; a run that was copied to other folders is still one."""
    other = build(run.path.parents[1], Recipe(rounds=1, seed=2))
    copies = [shutil.copytree(run.path, run.path.with_name(f"20200101T00000{i}Z-copied")) for i in range(2)]
    done = invoke("compare", ",".join(map(str, [run.path, *copies])), other.id)
    assert done.exit_code == 2
    assert all(str(path) in done.output for path in (run.path, *copies))
    assert "copies of one run" in done.output
    assert "%" not in done.output


def test_a_damaged_table_is_named(run: Run) -> None:
    part = next((run.path / "ops").iterdir())
    part.write_bytes(part.read_bytes()[:100])
    other = build(run.path.parents[1], Recipe(rounds=1, seed=2))
    done = invoke("compare", run.id, other.id)
    assert done.exit_code == 1
    assert f"{part} is not what was recorded, by its sha256; what rests on it is unknown" in done.output


def test_a_run_is_not_compared_with_itself(run: Run) -> None:
    done = invoke("compare", run.id, "latest")
    assert done.exit_code == 2
    assert f"{run.id} is named twice" in done.output
