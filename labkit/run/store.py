"""Runs on disk: the only module that knows file formats. data/README.md describes each file.

A run directory has one file that changes, run.json (replaced atomically), and raw files that are written once:
each table is a folder of Parquet parts, so that what was written before a crash stays readable.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from labkit import files, paths
from labkit.errors import RunError, RunNotFound, RunUnreadable
from labkit.run.parts import PartWriter

SCHEMA_VERSION = 1
_RESERVE = ".reserve"  # space for the last run.json: a run that filled the disk can still be marked failed
_DRIVEN = ".driven"  # locked by the process that drives the run, as long as it does
_RESERVE_BYTES = 128 * 1024
STATUSES = ("started", "measured", "complete", "failed")


class Run:
    """One run directory. Made by `RunStore.create`, found again by `RunStore.open`."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path, self.meta = path, meta

    @property
    def id(self) -> str:
        """`<experiment>/<utc time>-<short id>`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def experiment(self) -> str:
        return str(self.meta["experiment"])

    @property
    def status(self) -> str:
        return str(self.meta["status"])

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.meta["parameters"])

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """The measured blocks: block, workload, arm, round, from_ns, warm_until_ns, to_ns and the load's summary."""
        return list(self.meta.get("blocks", []))

    @property
    def derived(self) -> Path:
        """The folder for what can be rebuilt; made on first use."""
        folder = self.path / "derived"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def epoch_ns(self) -> int:
        """The run's epoch on the monotonic clock of the machine that drives it."""
        return int(self.meta["epoch"]["monotonic_ns"])

    def now_ns(self) -> int:
        """Nanoseconds since the run's epoch, on this machine's monotonic clock. Only while driving."""
        return time.monotonic_ns() - self.epoch_ns

    def update(self, **facts: Any) -> None:
        """Set top-level entries of run.json."""
        self.meta |= facts
        _write_json(self.path / "run.json", self.meta)

    def mark(self, status: str, problem: str | None = None) -> None:
        """Move to `status`; `problem` says why a run failed."""
        if status not in STATUSES:
            raise ValueError(f"{status!r} is no status: {STATUSES}")
        if status in ("complete", "failed"):
            (self.path / _RESERVE).unlink(missing_ok=True)
        self.update(status=status, problem=problem)

    @contextlib.contextmanager
    def driven(self) -> Iterator[None]:
        """Hold the run for this process, which drives it, however that ends. Raises RunError if another one does."""
        busy = RunError(f"{self.id} is under way in another process; wait for its end, or end it")
        with files.locked(self.path / _DRIVEN, lambda _: busy):
            try:
                yield
            finally:
                (self.path / _DRIVEN).unlink(missing_ok=True)

    @property
    def abandoned(self) -> bool:
        """Whether the process that drove it was killed: it has not ended, and nobody drives it."""
        driven = self.path / _DRIVEN
        return self.status not in ("complete", "failed") and driven.exists() and not files.is_locked(driven)

    def event(self, kind: str, **details: Any) -> None:
        """Append one line to events.jsonl, stamped with the run's clock."""
        line = json.dumps({"t_ns": self.now_ns(), "kind": kind, **details}, ensure_ascii=False, default=str)
        with (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def events(self) -> pd.DataFrame:
        """One row an event: t_ns, kind and what it carried. Empty with those two columns if none was recorded."""
        file = self.path / "events.jsonl"
        if not file.exists():
            return pd.DataFrame({"t_ns": pd.Series(dtype="int64"), "kind": pd.Series(dtype="str")})
        return pd.DataFrame([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])

    def part(self, table: str, name: str) -> Path:
        """The path of a part of `table` that is not written yet."""
        path = self.path / table / f"{name}.parquet"
        if path.exists():
            raise RunUnreadable(f"{path} is already written; raw files are never reopened")
        return path

    def writer(self, table: str, part: str) -> PartWriter:
        """A writer for one new part of `table`."""
        return PartWriter(self.part(table, part), table)

    def has(self, table: str, prefix: str = "") -> bool:
        """Whether there is a part of a table whose name begins with `prefix`."""
        return any((self.path / table).glob(f"{prefix}*.parquet"))

    def table(self, table: str, columns: Sequence[str] | None = None, prefix: str = "") -> pd.DataFrame:
        """All parts of a table as one frame; text columns are categories. Raises RunUnreadable.

        Only parts whose names begin with `prefix`.
        """
        parts = sorted((self.path / table).glob(f"{prefix}*.parquet"))
        if not parts:
            raise RunUnreadable(f"{self.id} holds no {table}: it was cut off before anything was measured")
        read = []
        for part in parts:
            try:
                read.append(pq.read_table(part, columns=list(columns) if columns else None))
            except (pa.ArrowException, OSError) as error:
                raise RunUnreadable(f"{part} cannot be read: {error}") from error
        frame: pd.DataFrame = pa.concat_tables(read).unify_dictionaries().to_pandas()
        return frame

    def batches(self, table: str, columns: Sequence[str], prefix: str = "") -> Iterator[pd.DataFrame]:
        """A table piece by piece, as it was written: memory stays that of one row group.

        Only parts whose names begin with `prefix`. Raises RunUnreadable if there are none.
        """
        parts = sorted((self.path / table).glob(f"{prefix}*.parquet"))
        if not parts:
            raise RunUnreadable(f"{self.id} holds no {table}: it was cut off before anything was measured")
        for part in parts:
            try:
                with pq.ParquetFile(part) as file:
                    for group in range(file.num_row_groups):
                        yield file.read_row_group(group, columns=list(columns)).to_pandas()
            except (pa.ArrowException, OSError) as error:
                raise RunUnreadable(f"{part} cannot be read: {error}") from error

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        text = f"run {self.id}: {self.status}"
        # The second entry is how `labkit run` learns from an executed notebook which run it made.
        return {
            "text/plain": text,
            "application/vnd.labkit.run+json": {"id": self.id, "path": str(self.path)},
        }


class RunStore:
    """A folder of runs: `<root>/<experiment>/<utc time>-<short id>/`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def create(self, experiment: str, parameters: Mapping[str, Any], **facts: Any) -> Run:
        """A new run directory with status `started`; `latest` links to it."""
        wall = dt.datetime.now(dt.UTC)
        folder = self.root / experiment
        path = folder / f"{wall:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        path.mkdir(parents=True)
        (path / _RESERVE).write_bytes(bytes(_RESERVE_BYTES))
        epoch = {"utc": wall.isoformat(timespec="milliseconds"), "monotonic_ns": time.monotonic_ns()}
        run = Run(path, {})
        run.update(
            schema=SCHEMA_VERSION,
            experiment=experiment,
            status="started",
            problem=None,
            epoch=epoch,
            parameters=dict(parameters),
            blocks=[],
            **facts,
        )
        link = folder / "latest"
        fresh = folder / f".latest-{path.name}"
        with contextlib.suppress(OSError):  # a file system without links has no `latest` and loses nothing else
            fresh.symlink_to(path.name)
            fresh.replace(link)
        return run

    def paths(self) -> Iterator[Path]:
        """Every run directory, oldest first."""
        found = (p.parent for p in self.root.glob("*/*/run.json") if not p.parent.is_symlink())
        return iter(sorted(found, key=lambda path: path.name))

    def latest(self, experiment: str | None = None) -> Run:
        """The newest run, of one experiment or of any. Raises RunNotFound."""
        found = [p for p in self.paths() if experiment in (None, p.parent.name)]
        if not found:
            what = f"run of {experiment}" if experiment else "run"
            raise RunNotFound(f"no {what} in {self.root}; `labkit run {experiment or 'read-scaling'}` makes one")
        return read_run(found[-1])

    def open(self, name: str | Path) -> Run:
        """A run by id, by a unique part of its id, by directory, or `latest`. Raises RunNotFound, RunUnreadable."""
        text = str(name)
        if text == "latest":
            return self.latest()
        for path in (Path(text).expanduser(), self.root / text):
            if (path / "run.json").exists():
                return read_run(path.resolve())
            if path.is_dir() and text not in ("", "."):
                raise RunUnreadable(f"{path} is a directory without run.json, so it is not a run")
        if text.endswith("/latest"):
            return self.latest(text.removesuffix("/latest"))
        near = [p for p in self.paths() if text and text in f"{p.parent.name}/{p.name}"]
        if len(near) == 1:
            return read_run(near[0])
        known = near or list(self.paths())[-5:]
        listed = "".join(f"\n  {p.parent.name}/{p.name}" for p in known)
        kind = "more than one run matches" if near else "there is no run"
        raise RunNotFound(
            f"{kind} {text!r} in {self.root}" + (f"; {'these do' if near else 'the newest'}:{listed}" if listed else "")
        )


def read_run(path: Path) -> Run:
    """The run in a directory. Raises RunUnreadable if run.json is damaged or of a newer labkit."""
    file = path / "run.json"
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        schema, _, _ = meta["schema"], meta["status"], meta["parameters"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunUnreadable(f"{file} cannot be read as a run: {type(error).__name__}: {error}") from error
    if schema > SCHEMA_VERSION:
        raise RunUnreadable(f"{file} has schema {schema}, this labkit reads up to {SCHEMA_VERSION}: update labkit")
    return Run(path, meta)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    files.replace(path, json.dumps(content, indent=1, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def open_run(name: str | Path = "latest") -> Run:
    """A recorded run: by id, a unique part of it, its directory, `latest` or `<experiment>/latest`.

    Looks among the runs first, then among the samples that come with labkit. Raises RunNotFound, RunUnreadable.
    """
    try:
        return RunStore(paths.runs()).open(name)
    except RunNotFound as not_found:
        try:
            return RunStore(paths.sample_runs()).open(name)
        except RunNotFound:
            raise not_found from None


def runs() -> list[Path]:
    """The directories of all runs, oldest first."""
    return list(RunStore(paths.runs()).paths())
