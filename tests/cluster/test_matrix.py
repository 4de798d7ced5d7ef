"""The durability matrix on real servers: a slice of it, interrupted in the middle and resumed."""

from __future__ import annotations

import pytest
from fix_cli import invoke

import labkit
from labkit import paths
from labkit.checkers import audit
from labkit.errors import BadInput, ClusterError, LabkitError
from labkit.experiments.durability_matrix import drive as failover
from labkit.experiments.durability_matrix import findings as durability
from labkit.experiments.durability_matrix.parameters import DurabilityMatrix
from labkit.lab import procfs
from labkit.lab.providers.embedded.provider import EmbeddedProvider
from labkit.run.store import RunStore

SMALL = {
    "modes": "async,ANY 1",
    "levels": "on",
    "faults": "kill-all-behind",
    "kills": 1,
    "writers": 4,
    "before_s": 0.3,
    "after_s": 0.1,
    "cluster": "matrix-test",
}


def test_cut_off_after_the_first_trial_it_is_resumed_behind_it(
    provider: EmbeddedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asynchronous commits are lost when no replica receives them; under ANY 1 no commit is acknowledged then."""
    drive = failover.run_trial

    def one_only(trial, *rest):  # type: ignore[no-untyped-def]
        if trial.block > 0:
            raise KeyboardInterrupt
        return drive(trial, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(failover, "run_trial", one_only)
        with pytest.raises(KeyboardInterrupt):
            failover.durability_matrix(DurabilityMatrix.build(SMALL))
    cut_off = RunStore(paths.runs()).latest("durability-matrix")
    assert (cut_off.status, len(cut_off.blocks)) == ("failed", 1)
    assert "matrix-test" not in provider.names()
    half_written = cut_off.path / "ops" / "block-00001.partial"
    half_written.write_bytes(b"half")

    run = failover.durability_matrix(DurabilityMatrix.build({"resume": str(cut_off.path)}))

    assert (run.status, run.id, half_written.exists()) == ("complete", cut_off.id, False)
    assert run.blocks[0] == cut_off.blocks[0], "a finished trial is not driven again"
    assert len({block.seed for block in run.blocks}) == 2
    for used in [block.host_cpu for block in run.blocks] if procfs.HERE else []:
        assert used is not None
        assert used.servers is not None
        assert used.servers["pg1"] > 0.02, "what the killed primary had used before is known"
        assert used.generator > 0.02
    cells = durability.cells(run).set_index("mode")
    assert cells.loc["async", "lost_max"] > 0
    assert cells.loc["ANY 1", "lost_max"] == 0
    assert [audit.of_run(run, n).verdict for n in (0, 1)] == ["false", "true"]
    with pytest.raises(BadInput, match="is complete"):
        failover.durability_matrix(DurabilityMatrix.build({"resume": run.id}))


def test_a_matrix_under_way_is_neither_resumed_nor_joined_by_another_on_its_cluster(
    provider: EmbeddedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert provider.names() == ["shared"] or provider.names() == []
    refused: list[str] = []
    before = len(RunStore(paths.runs()).ids("durability-matrix"))

    def another(trial, *rest):  # type: ignore[no-untyped-def]
        del trial, rest
        under_way = RunStore(paths.runs()).latest("durability-matrix")
        assert under_way.state == "running"
        for asked in ({"resume": str(under_way.path)}, SMALL):
            with pytest.raises(LabkitError) as error:
                failover.durability_matrix(DurabilityMatrix.build(asked))
            refused.append(str(error.value))
        for purge in (True, False):
            with pytest.raises(ClusterError) as in_use:
                labkit.down("matrix-test", purge=purge)
            words = ["down", "--name", "matrix-test", *(["--purge"] if purge else [])]
            refused.extend([str(in_use.value), invoke(*words).stderr])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(failover, "run_trial", another)
        with pytest.raises(KeyboardInterrupt):
            failover.durability_matrix(DurabilityMatrix.build(SMALL))
    assert all("an experiment uses cluster matrix-test now (process " in words for words in refused)
    assert len(RunStore(paths.runs()).ids("durability-matrix")) == before + 1, "a refusal leaves no run"
