"""What a run was made with and on: versions, the commit, the machine. Noted once in run.json."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess

import psutil
import psycopg

from labkit import paths
from labkit.run.schema import Facts, Git, Host


def versions() -> dict[str, str]:
    """Versions of what takes part in measuring; libpq's as its number."""
    packages = ("labkit", "psycopg", "numpy", "pandas", "pyarrow")
    found = {name: importlib.metadata.version(name) for name in packages}
    return found | {
        "python": platform.python_version(),
        "libpq": str(psycopg.pq.version()),
        "libpq_impl": psycopg.pq.__impl__,
    }


def commit() -> Git | None:
    """The checkout's commit and whether it was changed since; None outside a git checkout."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(paths.home()), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return Git(commit=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return None


def host() -> Host:
    """The machine; nothing that names it."""
    return Host(
        cores=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        cpu=_processor(),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def place(path: str) -> str:
    """A path as a run may keep it: from the project's folder where it lies inside."""
    return path.removeprefix(f"{paths.home()}/")


def facts() -> Facts:
    """All of it, to be noted in run.json."""
    return {"versions": versions(), "git": commit(), "host": host()}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  (a kernel file, not a path to compose)
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
