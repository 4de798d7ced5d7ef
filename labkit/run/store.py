"""Runs on disk. data/README.md describes each file.

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
from typing import Any, TypeVar, Unpack

import numpy as np
import pandas as pd

from labkit import files, paths
from labkit.errors import RunDamaged, RunError, RunNotFound, RunUnreadable
from labkit.remedies import Remedy, advice
from labkit.run import digests, layout, reading, unknown
from labkit.run.event_log import EventLog
from labkit.run.layout import Table, View
from labkit.run.parts import PartWriter, Tables
from labkit.run.reading import P
from labkit.run.schema import (
    BLOCKS,
    SCHEMA_VERSION,
    STATUSES,
    Block,
    Epoch,
    Event,
    Facts,
    RunRecord,
    Scalar,
    State,
    Status,
    Summary,
    record_of,
)

_RESERVE_BYTES = 128 * 1024
RUN_MIME = "application/vnd.labkit.run+json"
"""The type of what an executed notebook holds to say which run it made."""
B = TypeVar("B", bound=Block)
E = TypeVar("E", bound=Event)


class Run:
    """One run directory. Made by `RunStore.create`, found again by `RunStore.open`.

    `record` holds what run.json does; `update`, `note_block` and `mark` change both. `tables` is what was recorded in
    bulk, as Parquet.
    """

    def __init__(self, path: Path, record: RunRecord[Any]) -> None:
        self.path, self.record, self.tables = path, record, Tables(path, record)
        self._log = EventLog(path / layout.EVENTS, record)

    @property
    def id(self) -> str:
        """`<experiment>/<utc time>-<short id>`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def experiment(self) -> str:
        return self.record.experiment

    @property
    def status(self) -> Status:
        return self.record.status

    @property
    def problem(self) -> str | None:
        """Why it failed."""
        return self.record.problem

    @property
    def parameters(self) -> dict[str, Scalar]:
        """What was asked for, defaults included: scalars by the names of the experiment's parameters."""
        return dict(self.record.parameters)

    def parameter(self, name: str, kind: type[P]) -> P:
        """One of the parameters, of the type that it must have. Raises RunUnreadable if run.json has none of that."""
        return reading.parameter(self.path / layout.RECORD, self.record, name, kind)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The parts that were driven to their end, in order."""
        return tuple(self.record.blocks)

    def blocks_of(self, kind: type[B]) -> list[B]:
        """The blocks, which are of that type. Raises RunUnreadable if those of this experiment are of another."""
        known = BLOCKS.get(self.experiment, Block)
        if not issubclass(known, kind):
            what = kind.__name__.removesuffix("Block").lower()
            raise RunUnreadable(f"{self.id} is a run of {self.experiment}, which has no {what} blocks")
        return list(self.record.blocks)

    @property
    def derived(self) -> Path:
        """The folder for what can be rebuilt; made on first use."""
        folder = self.path / layout.DERIVED
        folder.mkdir(exist_ok=True)
        return folder

    # --- while it is driven ---------------------------------------------------------------------------------------

    @property
    def epoch_ns(self) -> int:
        """The run's epoch on the monotonic clock of the machine that drives it."""
        return self.record.epoch.monotonic_ns

    def now_ns(self) -> int:
        """Nanoseconds since the run's epoch, on this machine's monotonic clock. Only while driving."""
        return time.monotonic_ns() - self.epoch_ns

    def update(self, **facts: Unpack[Facts]) -> None:
        """Note facts in run.json, in the place of those of these names."""
        for name, value in facts.items():
            setattr(self.record, name, value)  # checked by its type
        self._write()

    def note_block(self, block: Block) -> None:
        """Note one more block in run.json, or in the place of the one with its number.

        Raises TypeError if it is not a block of this experiment, or holds what its type does not document.
        """
        if not isinstance(block, BLOCKS.get(self.experiment, Block)):
            raise TypeError(f"{type(block).__name__} is not a block of {self.experiment}")
        if block.model_extra:
            raise TypeError(f"{type(block).__name__} has no {', '.join(block.model_extra)}")
        place = next((i for i, known in enumerate(self.record.blocks) if known.block == block.block), None)
        if place is None:
            self.record.blocks.append(block)
        else:
            self.record.blocks[place] = block
        self._seal()
        self._write()

    def mark(self, status: Status, problem: str | None = None) -> None:
        """Move to `status`; `problem` says why a run failed."""
        if status not in STATUSES:
            raise ValueError(f"{status!r} is no status: {STATUSES}")
        if status in ("complete", "failed"):
            (self.path / layout.RESERVE).unlink(missing_ok=True)
        self._seal()
        self.record.status, self.record.problem = status, problem
        self._write()

    def _seal(self) -> None:
        """Take the digests of what is whole by now: between two loads, as it reads that."""
        if self.record.digests is not None:
            self.record.digests = self.tables.sealed()
            self.record.events = self._log.sealed()

    def _write(self) -> None:
        content = self.record.model_dump_json(indent=1, by_alias=True, exclude_unset=True, exclude={"seal"})
        self.record.seal = digests.of_record(content)
        sealed = f'{content.removesuffix("}").rstrip()},\n "seal": "{self.record.seal}"\n}}'
        files.replace(self.path / layout.RECORD, sealed)

    @contextlib.contextmanager
    def driven(self) -> Iterator[None]:
        """Hold the run for this process, which drives it, however that ends. Raises RunError if another one does."""
        helps = advice("wait for its end, or end it")
        busy = RunError(f"{self.id} is under way in another process", remedy=helps)
        with files.locked(self.path / layout.DRIVEN, lambda _: busy):
            try:
                reading.mend(self.path / layout.EVENTS)
                yield
            finally:
                (self.path / layout.DRIVEN).unlink(missing_ok=True)

    @property
    def state(self) -> State:
        """What has become of it: without an end it is running as long as a process drives it, else it was cut off."""
        if self.status == "complete" or self.status == "failed":
            return self.status
        return "running" if files.is_locked(self.path / layout.DRIVEN) else "cut off"

    def note(self, event: Event) -> None:
        """Append an event to events.jsonl, stamped with the run's clock."""
        self._log.append(event, self.now_ns())

    # --- what happened --------------------------------------------------------------------------------------------

    def events_of(self, kind: type[E]) -> list[E]:
        """The events of a type, in order. Raises RunUnreadable."""
        return [event for event in self._log.read() if isinstance(event, kind)]

    def events(self) -> pd.DataFrame:
        """One row per event: t_ns, kind and what it carried. Empty with those two columns if none was recorded."""
        found = self._log.read()
        if not found:
            return pd.DataFrame({"t_ns": pd.Series(dtype="int64"), "kind": pd.Series(dtype="str")})
        return pd.DataFrame([event.as_json() for event in found])

    @property
    def events_are_torn(self) -> bool:
        """Whether the last event was cut off while it was written: it is left out of all that is read."""
        return self._log.is_torn

    def damaged(self) -> list[RunDamaged]:
        """What is not as it was recorded, one error each, not raised; empty if all is, or if it carries no digests."""
        return [*self.tables.damaged(), *self._log.damaged()]

    # --- tables ---------------------------------------------------------------------------------------------------

    def writer(self, table: Table, part: int | str | None = None, view: View | None = None) -> PartWriter:
        """A writer for one new part of `table`: of a block and a view, or of that name, or the next by number."""
        return PartWriter(self.tables.new(table, part, view), table)

    def has(self, table: Table, block: int | None = None, view: View | None = None) -> bool:
        """Whether anything of a table is there, or should be; of one block's part of it, or of one view of that."""
        return self.tables.has(table, block, view)

    def table(
        self, table: Table, columns: Sequence[str] | None = None, block: int | None = None, view: View | None = None
    ) -> pd.DataFrame:
        """A table, or one block's part of it, as one frame; text columns are categories. Raises RunUnreadable."""
        return self.tables.table(table, columns, block, view)

    def batches(self, table: Table, columns: Sequence[str], block: int | None = None) -> Iterator[pd.DataFrame]:
        """The same piece by piece, as it was written: memory stays that of one row group."""
        return self.tables.batches(table, columns, block)

    def drop_unfinished(self) -> None:
        """Remove what was written of blocks that run.json does not hold: they are done again from the start.

        Raises RunUnreadable if a block that it holds lacks its part of `writes`, RunDamaged if one is damaged.
        """
        finished = {block.block for block in self.blocks}
        unfinished = [file for file in layout.blocks_in(self.path) if layout.block_of(file) not in finished]
        if self.record.digests is not None:
            self.record.digests = self.tables.sealed(without=unfinished)
            self._write()  # first: a part that is gone and has a digest would be damage
        for file in unfinished:
            file.unlink()
        if damaged := self.damaged():
            raise damaged[0]
        if any(not self.has("writes", number) for number in finished):
            raise RunUnreadable(f"{self.id} lacks the ledger of a finished trial; it cannot be resumed")

    # --- files beside them ----------------------------------------------------------------------------------------

    def keep_log(self, server: str, text: str) -> None:
        """Keep a server's log."""
        (file := layout.log(self.path, server)).parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def keep_summary(self, summary: Summary) -> None:
        """Keep what scripts want to know of the run, beside its report."""
        text = json.dumps(summary.as_json(), indent=1, ensure_ascii=False)
        (self.derived / layout.SUMMARY).write_text(text, encoding="utf-8")

    def summary(self) -> Summary | None:
        """What `keep_summary` kept; None before a report was made. Raises RunUnreadable."""
        return reading.summary(self.path / layout.DERIVED / layout.SUMMARY)

    @property
    def notebook(self) -> Path:
        """Where the executed notebook lies, once there is one."""
        return self.derived / layout.NOTEBOOK

    @property
    def page(self) -> Path:
        """Where the report lies, once there is one."""
        return self.derived / layout.PAGE

    def comparison(self, others: Sequence[Run]) -> tuple[Path, Path]:
        """Where a comparison with other runs lies, once there is one: its notebook and its page."""
        path = layout.comparison(self.derived, [other.path.name for other in others])
        return path.with_suffix(layout.NOTEBOOK_SUFFIX), path.with_suffix(layout.PAGE_SUFFIX)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/plain": f"run {self.id}: {self.state}", RUN_MIME: {"id": self.id, "path": str(self.path)}}


class RunStore:
    """A folder of runs: `<root>/<experiment>/<utc time>-<short id>/`."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def create(self, experiment: str, parameters: Mapping[str, Any], **facts: Unpack[Facts]) -> Run:
        """A new run directory with status `started`; `latest` links to it."""
        wall = dt.datetime.now(dt.UTC)
        folder = self.root / experiment
        path = folder / f"{wall:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        folder.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)  # parameters, logs and rows are their owner's
        (path / layout.RESERVE).write_bytes(bytes(_RESERVE_BYTES))
        epoch = Epoch(utc=wall.isoformat(timespec="milliseconds"), monotonic_ns=time.monotonic_ns())
        record = record_of(experiment)(
            schema=SCHEMA_VERSION,
            experiment=experiment,
            status="started",
            problem=None,
            epoch=epoch,
            parameters={name: _plain(value) for name, value in parameters.items()},
            blocks=[],
            digests={},
        )
        run = Run(path, record)
        run.update(**facts)
        link = folder / layout.LATEST
        fresh = folder / f".latest-{path.name}"
        with contextlib.suppress(OSError):  # a file system without links has no `latest` and loses nothing else
            fresh.symlink_to(path.name)
            fresh.replace(link)
        return run

    def paths(self) -> Iterator[Path]:
        """Every run directory, oldest first."""
        found = (p.parent for p in self.root.glob(f"*/*/{layout.RECORD}") if not p.parent.is_symlink())
        return iter(sorted(found, key=lambda path: path.name))

    def latest(self, experiment: str | None = None) -> Run:
        """The newest run, of one experiment or of any. Raises RunNotFound."""
        found = [p for p in self.paths() if experiment in (None, p.parent.name)]
        if not found:
            what = f"run of {experiment}" if experiment else "run"
            helps = Remedy("run", "makes one", experiment=experiment or unknown.FIRST)
            raise RunNotFound(f"no {what} in {self.root}", remedy=helps)
        return read_run(found[-1])

    def ids(self, experiment: str | None = None) -> list[str]:
        """The ids of all runs, or of one experiment's, oldest first."""
        return [f"{p.parent.name}/{p.name}" for p in self.paths() if experiment in (None, p.parent.name)]

    def open(self, name: str | Path, experiment: str | None = None) -> Run:
        """A run by id, by a unique part of its id, by directory, or `latest`; of an experiment, if one is named.

        A directory may be given from the project's folder on, wherever this process runs. Raises RunNotFound,
        RunUnreadable.
        """
        if (path := self.find(name, experiment)) is not None:
            return read_run(path)
        kind = unknown.meant(str(name), experiment)
        raise unknown.not_found(str(name), self.root, kind, self.ids(kind))

    def find(self, name: str | Path, experiment: str | None = None) -> Path | None:
        """The directory of the run that `open` opens; None if there is none.

        Raises RunNotFound if the name fits several, RunUnreadable if it is a directory of something else.
        """
        text = str(name)
        for path in (Path(text).expanduser(), self.root / text):
            if (path / layout.RECORD).exists():
                return path.resolve()
            if path.is_dir() and text not in ("", "."):
                raise RunUnreadable(f"{path} is a directory without run.json, so it is not a run")
        if (from_project := paths.home() / text / layout.RECORD).exists():
            return from_project.parent
        if text == layout.LATEST or text.endswith(f"/{layout.LATEST}"):
            ids = self.ids(experiment if text == layout.LATEST else text.removesuffix(f"/{layout.LATEST}"))
            return self.root / ids[-1] if ids else None
        near = [known for known in self.ids() if text and text in known]
        of_it = [known for known in near if known.split("/")[0] == experiment]
        if len(one := of_it or near) == 1:
            return self.root / one[0]
        if near:
            raise RunNotFound(f"more than one run matches {text!r} in {self.root}; these do:{unknown.listed(near)}")
        return None


def read_run(path: Path) -> Run:
    """The run in a directory. Raises RunUnreadable if run.json is damaged or of a newer labkit."""
    return Run(path, reading.record(path / layout.RECORD))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def open_run(name: str | Path = "latest", experiment: str | None = None) -> Run:
    """A recorded run: by id, a unique part of it, its directory, `latest` or `<experiment>/latest`.

    Looks among the runs first, then among the samples that come with labkit. With an `experiment`, `latest` is that of
    it, and runs of it are named where there is no such run. Raises RunNotFound, RunUnreadable.
    """
    own, samples = RunStore(paths.runs()), RunStore(paths.sample_runs())
    for store in (own, samples):
        if (path := store.find(name, experiment)) is not None:
            return read_run(path)
    kind = unknown.meant(str(name), experiment)
    raise unknown.not_found(str(name), own.root, kind, own.ids(kind), samples.ids(kind))


def runs() -> list[Path]:
    """The directories of all runs, oldest first."""
    return list(RunStore(paths.runs()).paths())
