"""One embedded server: start, stop, kill, pause and measure it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from labkit import paths
from labkit.errors import ClusterError
from labkit.lab.cluster.powers import KillScope, StopMode, Usage
from labkit.lab.providers.checks import HOST, check_port
from labkit.lab.providers.embedded import processes, shared_memory, usage
from labkit.lab.providers.embedded.account import Account
from labkit.lab.providers.embedded.state import NodeState
from labkit.remedies import advice

STOP_DEADLINE_S = 60.0
_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


class EmbeddedServer:
    """NodeControl, Killable, Measurable, Repairable and Damageable for one server on this machine."""

    not_measured: Mapping[str, str] = usage.NOT_MEASURED

    def __init__(self, state: NodeState, binaries: Path, account: Account, settings: Mapping[str, str]) -> None:
        self.state, self.binaries, self.account, self.settings = state, binaries, account, settings
        self._meter: usage.UsageMeter | None = None

    @property
    def data_directory(self) -> Path:
        return self.state.data

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

        No error if it runs already; if it is paused, it is resumed. Raises ClusterError if its port is taken or its
        settings are refused.
        """
        running = processes.postmaster(self.state.data)
        if running is not None:
            if running.status() == psutil.STATUS_STOPPED:
                self.resume()
            return
        self._clear_remains()
        check_port(self.state.name, self.state.port)
        self.write_settings()
        pid = processes.launch(self._command(), self.account, self.state.log, self.state.folder)
        # The pid file appears a moment after the process. Until then `running` would say no.
        give_up = time.monotonic() + 30.0
        while processes.recorded_pid(self.state.data) != pid:
            processes.collect()
            if not psutil.pid_exists(pid) or time.monotonic() > give_up:
                raise ClusterError("the server did not start", node=self.state.name, log_tail=self.log_tail())
            time.sleep(0.002)

    def write_settings(self) -> None:
        """Put configs/postgresql/ and the experiment's settings where the server reads them, and have them checked.

        Raises ClusterError with the server's own words if it would refuse them.
        """
        source = paths.configs() / "postgresql" / ("primary" if self.is_primary_by_data else "replica")
        for name in ("postgresql.conf", "pg_hba.conf"):
            self._own(shutil.copyfile(source / name, self.state.folder / name))
        experiment = self.state.folder / "experiment.conf"
        lines = [f"{name} = '{value}'\n" for name, value in quoted(self.settings).items()]
        experiment.write_text("".join(lines), encoding="utf-8")
        self._own(experiment)
        # With -C the server reads and checks its whole configuration, prints one value and ends.
        checked = subprocess.run(
            [*self._command(), "-C", "max_connections"],
            cwd=self.state.folder,
            env=processes.environment(),
            capture_output=True,
            text=True,
            check=False,
            **self.account.process_options,
        )
        if checked.returncode:
            raise ClusterError("the server refuses its settings", node=self.state.name, log_tail=checked.stderr)

    def _command(self) -> list[str]:
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
        return [str(self.binaries / "postgres"), "-D", str(self.state.data), *arguments]

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

    def describe(self) -> Mapping[str, str | int | None]:
        """Where to find the server: its process, its directories and its log."""
        return {"pid": self.pid(), "data_directory": str(self.state.data), "log": str(self.state.log)}

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

    # --- Repairable -----------------------------------------------------------------------------------------------

    @property
    def data(self) -> str:
        return str(self.state.data)

    def put(self, name: str, text: str, *, append: bool = False) -> None:
        """Write a file of the data directory, as the server's user. Raises ClusterError."""
        path = self.state.data / name
        try:
            with path.open("a" if append else "w", encoding="utf-8") as file:
                file.write(text)
            self._own(path)
        except OSError as error:
            raise ClusterError(f"{path} cannot be written ({error.strerror})", node=self.state.name) from error

    def names(self, folder: str) -> list[str]:
        """What lies in a folder of the data directory. Raises ClusterError."""
        try:
            return [path.name for path in (self.state.data / folder).iterdir()]
        except OSError as error:
            raise ClusterError(f"{self.state.data / folder}: {error.strerror}", node=self.state.name) from error

    def program(self, name: str, *arguments: str, password: str = "") -> str:
        """Run one of PostgreSQL's programs as the server's user; what it prints. Raises ClusterError."""
        command = [str(self.binaries / name), *arguments]
        extra = {"PGPASSWORD": password} if password else None
        ran: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            cwd=self.state.folder,
            env=processes.environment(extra),
            capture_output=True,
            text=True,
            check=False,
            **self.account.process_options,
        )
        if ran.returncode:
            raise ClusterError(
                f"{name} failed (exit {ran.returncode})", node=self.state.name, log_tail=ran.stderr or ran.stdout
            )
        return ran.stdout

    def clear(self) -> None:
        """Delete the data directory. Raises ClusterError if the server runs."""
        if self.running():
            raise ClusterError(
                "the server runs", node=self.state.name, remedy=advice("stop it before its data is deleted")
            )
        processes.end_within(self.state.data)
        shared_memory.release(self.state.data)
        if self.state.data.exists():
            shutil.rmtree(self.state.data)

    # --- Damageable -----------------------------------------------------------------------------------------------

    @property
    def owner(self) -> int:
        return self.account.uid

    def as_root(self, script: str) -> None:
        """Run a shell script as the lab's own user in the data directory. Raises ClusterError if it fails."""
        command = ["/bin/sh", "-ec", script]
        ran = subprocess.run(command, cwd=self.state.data, capture_output=True, text=True, check=False, timeout=20)
        if ran.returncode:
            raise ClusterError(ran.stderr.strip() or f"exit {ran.returncode}", node=self.state.name)

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
            processes.end_within(self.state.data)
            pid_file.unlink(missing_ok=True)

    def _own(self, path: Path) -> None:
        path.chmod(0o600)
        self.account.give(path)


def quoted(settings: Mapping[str, str]) -> dict[str, str]:
    """Values as they stand between quotes in a configuration file."""
    return {name: str(value).replace("\\", "\\\\").replace("'", "''") for name, value in settings.items()}
