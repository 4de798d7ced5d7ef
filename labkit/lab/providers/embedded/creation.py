"""Making nodes: initdb for the first, pg_basebackup for the others."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from psycopg.conninfo import make_conninfo

from labkit.errors import ClusterError
from labkit.lab.providers.checks import HOST
from labkit.lab.providers.embedded import processes, shared_memory
from labkit.lab.providers.embedded.account import Account
from labkit.lab.providers.embedded.binaries import Binaries
from labkit.lab.providers.embedded.state import NodeState

DEADLINE_S = 1800.0


def make_folder(folder: Path, account: Account) -> None:
    """A folder for one node that belongs to the servers' user."""
    # Any user may enter the folder above, so that the servers' user gets through; only its owner may list it.
    if not folder.parent.exists():
        folder.parent.mkdir(parents=True)
        folder.parent.chmod(0o711)
    folder.mkdir()
    folder.chmod(0o700)
    account.give(folder)


def write_secret(file: Path, text: str, account: Account) -> None:
    """A new file that only the servers' user can read."""
    file.touch(mode=0o600)
    file.write_text(text + "\n", encoding="utf-8")
    account.give(file)


def write_passfile(node: NodeState, account: Account, user: str, password: str) -> None:
    """Put down, where only the node's server reads it, what it needs to follow another node; nothing if it is there."""
    if not node.passfile.exists():
        write_secret(node.passfile, f"*:*:*:{user}:{password}", account)


def initdb(node: NodeState, binaries: Binaries, account: Account, admin: str, password: str) -> None:
    """An empty database cluster with data checksums and SCRAM for every role. Raises ClusterError."""
    make_folder(node.folder, account)
    secret = node.folder / "initdb.password"
    try:
        write_secret(secret, password, account)
        command = [
            binaries.program("initdb"),
            f"--pgdata={node.data}",
            f"--username={admin}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--data-checksums",
            "--encoding=UTF8",
            # Bytes decide the order: the same in every version and on every system, and LIKE 'prefix%' can use a
            # plain index. Other locales depend on what the operating system has.
            "--locale=C",
        ]
        finish([(node.name, begin(command, account, node.folder))])
    finally:
        secret.unlink(missing_ok=True)


def base_backup(
    nodes: Sequence[NodeState], source_port: int, user: str, password: str, binaries: Binaries, account: Account
) -> None:
    """Copy a running server into each node, at the same time; each gets a slot of its own. Raises ClusterError."""
    running = []
    for node in nodes:
        make_folder(node.folder, account)
        write_passfile(node, account, user, password)
        # -R writes these into primary_conninfo.
        source = make_conninfo(
            host=HOST,
            port=source_port,
            user=user,
            passfile=str(node.passfile),
            application_name=node.name,
            sslmode="disable",
            gssencmode="disable",
        )
        command = [
            binaries.program("pg_basebackup"),
            f"--pgdata={node.data}",
            f"--dbname={source}",
            "--write-recovery-conf",
            "--create-slot",
            f"--slot={node.name}",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-password",
        ]
        running.append((node.name, begin(command, account, node.folder)))
    finish(running)


def begin(command: Sequence[str], account: Account, folder: Path) -> subprocess.Popen[str]:
    """Start one of PostgreSQL's programs as the servers' user, inside `folder`."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=processes.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **account.process_options,
    )


def finish(running: Sequence[tuple[str, subprocess.Popen[str]]]) -> None:
    """Wait for every program; on any failure or interruption end the others. Raises ClusterError with its output."""
    try:
        for node, process in running:
            try:
                output, _ = process.communicate(timeout=DEADLINE_S)
            except subprocess.TimeoutExpired as error:
                raise ClusterError(f"{_name(process)} did not end within {DEADLINE_S:g} s", node=node) from error
            if process.returncode:
                raise ClusterError(f"{_name(process)} failed (exit {process.returncode})", node=node, log_tail=output)
    finally:
        for _, process in running:
            if process.poll() is None:
                process.kill()
            process.wait()


def remove(folder: Path) -> None:
    """End whatever of PostgreSQL still works inside `folder`, of one server or of several, then delete it."""
    if not folder.exists():
        return
    processes.end_within(folder)
    for pid_file in [*folder.glob("data/postmaster.pid"), *folder.glob("*/data/postmaster.pid")]:
        shared_memory.release(pid_file.parent)
    shutil.rmtree(folder)


def _name(process: subprocess.Popen[str]) -> str:
    assert isinstance(process.args, list)
    return Path(str(process.args[0])).name
