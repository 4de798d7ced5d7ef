"""One embedded server: start, stop, kill, pause and measure it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from labkit import project
from labkit.errors import BadInput, ClusterError
from labkit.providers import processes, usage
from labkit.providers.account import Account
from labkit.providers.base import KillScope, StopMode, Usage
from labkit.providers.state import NodeState

HOST = "127.0.0.1"
STOP_DEADLINE_S = 60.0
NODE_FACTS = (
    "port",
    "listen_addresses",
    "unix_socket_directories",
    "cluster_name",
    "config_file",
    "hba_file",
    "data_directory",
)
"""Settings that stand on each node's command line; an experiment cannot name them."""

_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class EmbeddedServer:
    """NodeControl, Killable and Measurable for one server on this machine."""

    not_measured: Mapping[str, str] = usage.NOT_MEASURED

    def __init__(self, state: NodeState, binaries: Path, account: Account, settings: Mapping[str, str]) -> None:
        self.state, self.binaries, self.account, self.settings = state, binaries, account, settings
        self._meter: usage.UsageMeter | None = None

    @property
    def data_directory(self) -> Path:
        return self.state.data

    @property
    def log_file(self) -> Path:
        return self.state.log

    @property
    def is_primary_by_data(self) -> bool:
        """What the server would be if it started now; a running one is asked instead."""
        return not (self.state.data / "standby.signal").exists()

    def pid(self) -> int | None:
        """The postmaster's pid; None if it is not running."""
        process = processes.postmaster(self.state.data)
        return process.pid if process else None

    def running(self) -> bool:
        return self.pid() is not None

    def start(self) -> None:
        """Start the server process, as whatever its data says; Node.wait_ready waits for it to answer.

        No error if it runs already. Raises ClusterError if its port is taken.
        """
        if self.running():
            return
        self._clear_remains()
        check_port(self.state.name, self.state.port)
        self.write_settings()
        folder = self.state.folder
        options = {
            "config_file": folder / "postgresql.conf",
            "hba_file": folder / "pg_hba.conf",
            "port": self.state.port,
            "listen_addresses": HOST,
            # Socket paths have a length limit that a deep data folder would exceed.
            "unix_socket_directories": "",
            "cluster_name": self.state.name,
        }
        arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        pid = processes.launch(
            [str(self.binaries / "postgres"), "-D", str(self.state.data), *arguments],
            self.account,
            self.state.log,
            folder,
        )
        # The pid file appears a moment after the process. Until then `running` would say no.
        give_up = time.monotonic() + 30.0
        while processes.recorded_pid(self.state.data) != pid:
            processes.collect()
            if not psutil.pid_exists(pid) or time.monotonic() > give_up:
                raise ClusterError("the server did not start", node=self.state.name, log_tail=self.log_tail())
            time.sleep(0.002)

    def write_settings(self) -> None:
        """Put configs/postgresql/ and the experiment's settings where the server reads them."""
        source = project.configs() / "postgresql" / ("primary" if self.is_primary_by_data else "replica")
        for name in ("postgresql.conf", "pg_hba.conf"):
            self._own(shutil.copyfile(source / name, self.state.folder / name))
        experiment = self.state.folder / "experiment.conf"
        lines = [f"{name} = '{value}'\n" for name, value in quoted(self.settings).items()]
        experiment.write_text("".join(lines), encoding="utf-8")
        self._own(experiment)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and wait for its end. Raises WaitTimeout."""
        process = processes.postmaster(self.state.data)
        if process is None:
            return
        members = processes.tree(process)
        processes.signal_all([process], _SIGNALS[mode])
        # A paused process gets its signal when it continues.
        processes.signal_all(members, signal.SIGCONT)
        processes.wait_gone([process], STOP_DEADLINE_S, f"{self.state.name} (stop mode {mode})")

    def kill(self, scope: KillScope = "tree") -> None:
        """SIGKILL to the whole process tree, or to the postmaster alone, and wait until it is dead.

        `postmaster` leaves the backends alive for a moment, until each notices. Raises ClusterError if the server
        is not running.
        """
        process = self._process()
        if scope == "postmaster":
            processes.signal_all([process], signal.SIGKILL)
            processes.wait_gone([process], 10.0, self.state.name)
            return
        members = processes.kill_tree(process)
        processes.wait_gone(members, 10.0, self.state.name)

    def pause(self) -> None:
        """SIGSTOP to the whole tree: connections stay open and nothing answers. Raises ClusterError."""
        process = self._process()
        processes.signal_all([process], signal.SIGSTOP)
        processes.signal_all(processes.tree(process), signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to the whole tree. Raises ClusterError if the server is not running."""
        processes.signal_all(processes.tree(self._process())[::-1], signal.SIGCONT)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the server wrote; empty if it has written none."""
        try:
            with self.state.log.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - 400 * lines))
                return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
        except FileNotFoundError:
            return ""

    def usage(self) -> Usage:
        """What the process tree has used so far. Raises ClusterError if the server is not running."""
        # Reading the pid file and checking the process each time would double the cost.
        if self._meter is None or not self._meter.process.is_running():
            self._meter = usage.UsageMeter(self._process())
        try:
            return self._meter.read()
        except psutil.NoSuchProcess:
            self._meter = None
            raise self._not_running() from None

    def disk_usage(self) -> Mapping[str, int]:
        return usage.disk_usage(self.state.data)

    def _process(self) -> psutil.Process:
        process = processes.postmaster(self.state.data)
        if process is None:
            raise self._not_running()
        return process

    def _not_running(self) -> ClusterError:
        return ClusterError("the server is not running", node=self.state.name, log_tail=self.log_tail(5))

    def _clear_remains(self) -> None:
        """End what a crashed server left behind, then remove its pid file, which would block the start."""
        pid_file = self.state.data / "postmaster.pid"
        if pid_file.exists():
            left = processes.within(self.state.data)
            processes.signal_all(left, signal.SIGKILL)
            processes.wait_gone(left, 10.0, f"what is left of {self.state.name}")
            pid_file.unlink(missing_ok=True)

    def _own(self, path: Path) -> None:
        path.chmod(0o600)
        self.account.give(path)


def quoted(settings: Mapping[str, str]) -> dict[str, str]:
    """Values as they stand between quotes in a configuration file."""
    return {name: str(value).replace("\\", "\\\\").replace("'", "''") for name, value in settings.items()}


def check_settings(settings: Mapping[str, str]) -> list[str]:
    """What is wrong with an experiment's settings by their form alone, one sentence each."""
    problems = []
    for name, value in settings.items():
        if not name.replace("_", "").replace(".", "").isalnum() or not name.isascii():
            problems.append(f"settings: {name!r} is no name of a PostgreSQL setting")
        elif name.lower() in NODE_FACTS:
            problems.append(f"settings: {name} is given by labkit to each node and cannot be set")
        if any(character in str(value) for character in "\n\r\0"):
            problems.append(f"settings: the value of {name} must be one line")
    return problems


def check_port(node: str, port: int) -> None:
    """Raises ClusterError if something already listens on the port, naming it where the system tells."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As PostgreSQL does: connections of an earlier server that linger in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ClusterError(
                f"port {port} is taken{_holder(port)} ({error.strerror}); end that process, or make the cluster anew "
                "on other ports: `labkit down --purge`, then `labkit up --base-port` with another or no number",
                node=node,
            ) from error


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error):  # macOS tells root only
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                process = psutil.Process(connection.pid) if connection.pid else None
                return f" by process {process.pid} ({process.name()})" if process else ""
    return ""


def spec_problems(name: str, replicas: int, base_port: int, settings: Mapping[str, str]) -> None:
    """Raises BadInput naming everything in a specification that cannot be."""
    problems = []
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or not name[0].isalnum():
        problems.append(f"name: {name!r} must be made of letters, digits, - and _, and begin with a letter or digit")
    elif len(name) > 40:
        problems.append(f"name: {name!r} is longer than 40 characters")
    if not 0 <= replicas <= 8:
        problems.append(f"replicas: {replicas} is out of range, it must be between 0 and 8")
    if base_port and not 1024 <= base_port <= 65535 - 8:
        problems.append(f"base_port: {base_port} is out of range, it must be 0 (any) or between 1024 and 65527")
    if found := problems + check_settings(settings):
        raise BadInput(found, subject="cluster specification")
