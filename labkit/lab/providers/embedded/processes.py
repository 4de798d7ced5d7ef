"""Server processes: find one again by its data directory, start it, signal its tree.

A process is taken for a server only if its command line names that data directory: pid numbers get reused. A zombie
counts as dead, because it serves no client, even where its parent never collects it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from labkit.errors import WaitTimeout
from labkit.lab.providers.embedded.account import Account

_PROGRAMS = {"postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_ctl"}
_LAUNCHED: dict[int, subprocess.Popen[bytes]] = {}
"""Servers that are children of this Python process, to be collected when they end."""


def launch(argv: Sequence[str], account: Account, log: Path, folder: Path) -> int:
    """Start a server that outlives this process; its output is appended to `log`. Returns its pid."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **account.process_options,
        )
    _LAUNCHED[process.pid] = process
    return process.pid


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What PostgreSQL's programs get to see: none of the lab's own environment, which may hold secrets, or PG* names
    that would change what they do."""
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "TZ", "TMPDIR")
    # Without LC_ALL a macOS postmaster becomes multithreaded while it reads the locale, and gives up.
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"} | dict(extra or {})


def postmaster(data: Path) -> psutil.Process | None:
    """The live server of a data directory; None if there is none, whatever postmaster.pid says."""
    pid = recorded_pid(data)
    if pid is None:
        return None
    process = _alive(pid)
    with contextlib.suppress(psutil.Error):
        if process is not None and str(data) in process.cmdline():
            return process
    return None


def recorded_pid(data: Path) -> int | None:
    """The pid in postmaster.pid, which may be stale; None without a readable one."""
    try:
        return int((data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def tree(process: psutil.Process) -> list[psutil.Process]:
    """The postmaster and its children as they are now, the postmaster first."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process, *process.children(recursive=True)]
    return []


def signal_all(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each that still exists."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def kill_tree(process: psutil.Process) -> list[psutil.Process]:
    """SIGKILL a postmaster and all its children, and return them. Stopped first, it cannot make more meanwhile."""
    signal_all([process], signal.SIGSTOP)
    members = tree(process)
    signal_all(members, signal.SIGKILL)
    return members


def within(folder: Path) -> list[psutil.Process]:
    """PostgreSQL's programs that work inside `folder`: servers, backends left by a dead postmaster, and whatever a
    killed lab had started there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.name() not in _PROGRAMS or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if Path(process.cwd().removesuffix(" (deleted)")).is_relative_to(folder):
                found.append(process)
    return found


def end_within(folder: Path, deadline_s: float = 10.0) -> None:
    """SIGKILL everything of PostgreSQL that works inside `folder`, until nothing does. Raises WaitTimeout."""
    give_up = time.monotonic() + deadline_s
    # Again and again: one that is killed may have started another since the list was made.
    while left := within(folder):
        signal_all(left, signal.SIGKILL)
        wait_gone(left, give_up - time.monotonic(), f"what works in {folder}")


def wait_gone(processes: Sequence[psutil.Process], deadline_s: float, what: str) -> None:
    """Until none of them is alive. Raises WaitTimeout."""
    give_up = time.monotonic() + deadline_s
    while left := [process.pid for process in processes if not _gone(process)]:
        if time.monotonic() > give_up:
            raise WaitTimeout(f"timed out after {deadline_s:g} s waiting for {what} to end; still there: {left}")
        time.sleep(0.005)


def _gone(process: psutil.Process) -> bool:
    collect()
    with contextlib.suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def collect() -> None:
    """Collect servers of this process that have ended."""
    for pid, process in list(_LAUNCHED.items()):
        if process.poll() is not None:
            _LAUNCHED.pop(pid, None)


def _alive(pid: int) -> psutil.Process | None:
    collect()
    with contextlib.suppress(psutil.Error, ValueError):
        process = psutil.Process(pid)
        if process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None
