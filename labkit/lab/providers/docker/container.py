"""One server in a container: start, stop, kill, pause, isolate, limit and measure it."""

from __future__ import annotations

import time
from collections.abc import Mapping

from labkit.errors import ClusterError, WaitTimeout
from labkit.lab.cluster.powers import KillScope, StopMode, Usage
from labkit.lab.providers.docker import engine, stats
from labkit.lab.providers.docker.engine import Container, Engine
from labkit.remedies import advice
from labkit.units import MIB

VOLUME = "/var/lib/postgresql"
DATA = f"{VOLUME}/labkit"
PASSFILE = "/run/labkit/pgpass"
"""Where configs/postgresql/node.sh puts the passwords that the node gets as a secret."""
EXPERIMENT_FILE = "experiment.conf"
REBUILD_FILE = "rebuild"
"""Its presence tells configs/postgresql/node.sh to copy the data from the primary again."""
STOP_DEADLINE_S = 60.0
_SIGNALS = {"smart": "SIGTERM", "fast": "SIGINT", "immediate": "SIGQUIT"}
_POSTGRES = 999  # user and group of the server in the official image
_SIGKILLED = 137  # 128 + SIGKILL


class ContainerServer:
    """NodeControl, Killable, Isolatable, Limitable, Measurable, Repairable and Damageable for one node of
    docker-compose.yaml."""

    def __init__(self, source: Engine, cluster: str, name: str) -> None:
        self._engine, self.cluster, self.name = source, cluster, name
        self._stats = stats.StatsStream(
            lambda: self._engine.stats(self.container()), lambda: self._engine.stats_stream(self.container())
        )
        self._cpu_limit: float | None = None
        self._limit_of = ""

    def container(self) -> Container:
        """The node's container as it is now. Raises ClusterError if it is gone."""
        return self._engine.container(self.cluster, self.name)

    @property
    def network(self) -> str:
        return f"labkit-{self.cluster}_cluster"

    # --- NodeControl ----------------------------------------------------------------------------------------------

    def running(self) -> bool:
        """Whether the container runs; a paused one does."""
        found = self._engine.containers(self.cluster).get(self.name)
        return found is not None and found.status in ("running", "paused")

    def start(self) -> None:
        """Start the container, as whatever its data says; no error if it runs. Raises ClusterError."""
        container = self.container()
        with engine.refusals(self.name):
            if container.status == "paused":
                container.unpause()
            elif container.status != "running":
                container.start()

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and wait until its container has ended. Raises WaitTimeout, ClusterError."""
        container = self.container()
        if container.status not in ("running", "paused"):
            return
        try:
            with engine.refusals(self.name):
                if container.status == "paused":
                    container.unpause()
                container.kill(signal=_SIGNALS[mode])
        except ClusterError:
            if self.running():  # else it has ended by itself meanwhile
                raise
        self._wait_ended(STOP_DEADLINE_S, f"the server to stop ({mode})")

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the node wrote; before them why its container ended, if it was killed."""
        found = self._engine.containers(self.cluster).get(self.name)
        if found is None:
            return ""
        with engine.refusals(self.name):
            text = found.logs(tail=lines).decode("utf-8", "replace")
        return "\n".join([*_end(found), *text.splitlines()])

    def describe(self) -> Mapping[str, str | int | None]:
        found = self._engine.containers(self.cluster).get(self.name)
        return {
            "container": found.name if found else None,
            "pid": found.attrs["State"]["Pid"] or None if found else None,
            "data_directory": f"volume labkit-{self.cluster}_{self.name}",
            "log": f"docker logs {found.name}" if found else None,
        }

    # --- Killable -------------------------------------------------------------------------------------------------

    def kill(self, scope: KillScope = "tree") -> None:
        """SIGKILL to the whole container, or to the postmaster alone, and wait until the container has ended.

        A container ends with its postmaster, and the kernel then kills the backends: they outlive it for
        milliseconds only. Raises ClusterError if the node is not running.
        """
        container = self._running()
        if scope == "postmaster":
            engine.execute(container, ["sh", "-c", f'kill -KILL "$(head -n 1 {DATA}/postmaster.pid)"'])
        else:
            with engine.refusals(self.name):
                container.kill(signal="SIGKILL")
        self._wait_ended(10.0, "the container to end")

    def pause(self) -> None:
        """Freeze every process of the container: connections stay open and nothing answers. Raises ClusterError."""
        container = self._running()
        with engine.refusals(self.name):
            if container.status != "paused":
                container.pause()

    def resume(self) -> None:
        """Undo `pause`. Raises ClusterError if the node is not running."""
        container = self._running()
        with engine.refusals(self.name):
            if container.status == "paused":
                container.unpause()

    # --- Isolatable, Limitable ------------------------------------------------------------------------------------

    def isolate(self) -> None:
        """Cut the node off from the other nodes and from clients; the server runs on. Raises ClusterError."""
        self._engine.disconnect(self._running(), self.network)

    def rejoin_network(self) -> None:
        """Undo `isolate`. Raises ClusterError."""
        self._engine.connect(self._running(), self.network, [self.name, "nodes"])

    def limit(self, cpus: float | None) -> None:
        """Let the node use at most so many CPUs from now on; None: as many as the engine has. Raises ClusterError."""
        available = self._engine.capacity().cpus
        if cpus is not None and not 0.01 <= cpus <= available:
            raise ClusterError(f"it cannot be limited to {cpus:g} CPUs: the engine has {available}", node=self.name)
        self._engine.limit_cpus(self.container(), float(available) if cpus is None else cpus)
        self._limit_of = ""

    # --- Measurable -----------------------------------------------------------------------------------------------

    @property
    def not_measured(self) -> Mapping[str, str]:
        if self.running() and stats.block_bytes(self._stats.newest(), "write") is None:
            return {"read_bytes": stats.NO_BLOCK_IO, "written_bytes": stats.NO_BLOCK_IO}
        return {}

    def usage(self) -> Usage:
        """What the container has used since it started. Raises ClusterError if it is not running."""
        try:
            reading, read_at_ns = self._stats.newest_at()
        except ClusterError as error:
            error.node = error.node or self.name
            raise
        if self._limit_of != reading.get("id"):
            nano = int(self.container().attrs["HostConfig"].get("NanoCpus") or 0)
            self._cpu_limit = nano / 1e9 if nano else float(self._engine.capacity().cpus)
            self._limit_of = str(reading.get("id"))
        return stats.usage(reading, self._cpu_limit, read_at_ns)

    def disk_usage(self) -> Mapping[str, int]:
        """Bytes allocated on disk, counted inside the container. Raises ClusterError if it is not running."""
        # Files that the server removes while they are being counted make du complain and exit with 1.
        count = f"for folder in {DATA} {DATA}/pg_wal; do du -s --block-size=1 $folder 2>/dev/null || true; done"
        counted = engine.execute(self._running(), ["sh", "-c", count]).splitlines()
        if len(counted) != 2:
            raise ClusterError(f"its data directory cannot be counted: {' '.join(counted)}", node=self.name)
        data, wal = (int(line.split()[0]) for line in counted)
        return {"data_directory_bytes": data, "pg_wal_bytes": wal}

    # --- Repairable -----------------------------------------------------------------------------------------------

    @property
    def data(self) -> str:
        return DATA

    def put(self, name: str, text: str, *, append: bool = False) -> None:
        """Write a file of the data directory, as the server's user. Raises ClusterError."""
        container = self.container()
        before = (engine.read(container, f"{DATA}/{name}") or "") if append else ""
        engine.write(container, DATA, name, before + text, owner=_POSTGRES)

    def names(self, folder: str) -> list[str]:
        """What lies in a folder of the data directory. Raises ClusterError."""
        return engine.execute_beside(self.container(), self.network, ["ls", f"{DATA}/{folder}"], {}).split()

    def program(self, name: str, *arguments: str, password: str = "") -> str:
        """Run one of PostgreSQL's programs as the server's user, while the server is down; what it prints.

        Raises ClusterError with its words if it fails.
        """
        environment = {"PGPASSWORD": password} if password else {}
        return engine.execute_beside(self.container(), self.network, [name, *arguments], environment)

    def clear(self) -> None:
        """Delete the data directory. Raises ClusterError if the server runs."""
        if self.running():
            raise ClusterError("the server runs", node=self.name, remedy=advice("stop it before its data is deleted"))
        engine.execute_beside(self.container(), self.network, ["rm", "-rf", DATA], {})

    # --- Damageable -----------------------------------------------------------------------------------------------

    @property
    def owner(self) -> int:
        return _POSTGRES

    def as_root(self, script: str) -> None:
        """Run a shell script as root in the data directory, running or not. Raises ClusterError if it fails."""
        engine.execute_as_root(self.container(), DATA, script)

    # --- what the provider asks -----------------------------------------------------------------------------------

    def is_primary_by_data(self) -> bool | None:
        """What the server would be if it started now; None if it has no data yet."""
        container = self.container()
        if not engine.exists(container, f"{DATA}/PG_VERSION"):
            return None
        return not engine.exists(container, f"{DATA}/standby.signal")

    def settings_text(self) -> str:
        """The experiment's settings that the node has now, as its configuration file holds them."""
        return engine.read(self.container(), f"{VOLUME}/{EXPERIMENT_FILE}") or ""

    def write_settings(self, text: str) -> None:
        """Give the node the experiment's settings; a running server reads them on reload."""
        engine.write(self.container(), VOLUME, EXPERIMENT_FILE, text)

    def check_settings(self) -> None:
        """Have the server check its whole configuration. Raises ClusterError with its words if it would refuse it."""
        try:
            engine.execute(self._running(), ["postgres", "-D", DATA, "-C", "max_connections"])
        except ClusterError as error:
            raise ClusterError("the server refuses its settings", node=self.name, log_tail=str(error)) from error

    def discard_data(self) -> None:
        """Stop the node, and have its next start replace its data by a copy of the primary's."""
        self.stop("immediate")
        engine.write(self.container(), VOLUME, REBUILD_FILE, "")

    def _running(self) -> Container:
        container = self.container()
        if container.status not in ("running", "paused"):
            raise ClusterError("the server is not running", node=self.name, log_tail=self.log_tail(5))
        return container

    def _wait_ended(self, deadline_s: float, what: str) -> None:
        give_up = time.monotonic() + deadline_s
        while self.running():
            if time.monotonic() >= give_up:
                raise WaitTimeout(
                    f"timed out after {deadline_s:g} s waiting for {what}", node=self.name, log_tail=self.log_tail()
                )
            time.sleep(0.02)


def _end(container: Container) -> list[str]:
    """Why a container that was killed is not running, in words."""
    state = container.attrs["State"]
    if state["Running"]:
        return []
    limit = int(container.attrs["HostConfig"].get("Memory") or 0)
    if state.get("OOMKilled"):
        of = f" of {limit // MIB}m" if limit else ""
        again = "raise LABKIT_NODE_MEMORY and bring the cluster up again"
        return [f"the kernel killed it: out of memory, beyond its limit{of}; {again}"]
    return ["the container was killed (exit 137)"] if state["ExitCode"] == _SIGKILLED else []
