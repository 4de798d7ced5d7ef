"""Files that are replaced whole, and files that are locks."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import files
from labkit.errors import LabkitError, WaitTimeout
from labkit.lab.providers import checks


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_replaced_is_the_new_whole_with_nothing_left_beside_it(tmp_path: Path, durable: bool) -> None:
    file = tmp_path / "record.json"
    (tmp_path / "record.json.tmp").write_text("cut off", encoding="utf-8")
    files.replace(file, "eins, zwei, drei: ä\n", durable=durable)
    files.replace(file, b"\x00\xff", durable=durable)
    assert file.read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [file]


def test_its_mode_is_the_one_asked_for_less_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.replace(tmp_path / "open", "x")
        files.replace(tmp_path / "closed", "x", mode=0o600)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("open", "closed")]
    assert modes == [0o640, 0o600]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    files.replace(file, "old")
    with pytest.raises(UnicodeEncodeError):
        files.replace(file, "\udc80")
    assert file.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_second_to_come_waits_for_the_lock_until_its_deadline(tmp_path: Path) -> None:
    with (
        checks.alone_on(tmp_path, "lab", 0),
        checks.alone_on(tmp_path, "another", 0),
        pytest.raises(WaitTimeout, match=r"timed out after 0\.2 s waiting for another labkit \(process \d+\)"),
        checks.alone_on(tmp_path, "lab", 0.2),
    ):
        pytest.fail("two hold one lock")
    with checks.alone_on(tmp_path, "lab", 0.2):
        pass


def test_a_holder_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    """Nor does a file that it left: whether it is there says nothing."""
    lock = tmp_path / "a folder" / ".lock"
    assert not files.is_locked(lock)
    script = (
        "import os, sys, time; from pathlib import Path; from labkit import files\n"
        f"with files.locked(Path({str(lock)!r}), lambda _: SystemExit(1)): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert files.is_locked(lock)
        with pytest.raises(LabkitError, match=str(process.pid)), files.locked(lock, LabkitError):
            pytest.fail("two hold one lock")
        process.kill()
    assert lock.exists()
    assert not files.is_locked(lock)
    with files.locked(lock, LabkitError):
        assert lock.read_text(encoding="utf-8") == f"{os.getpid()}\n"
