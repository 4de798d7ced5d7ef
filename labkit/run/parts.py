"""Tables of a run as Parquet parts: written once, row group by row group. The only module that knows Parquet.

Every page of a part has a checksum, which is compared when it is read. A whole part has a digest, noted in run.json
once its block has ended: a part that is another one by then is damaged, and nothing is concluded from it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from labkit.errors import RunDamaged, RunUnreadable
from labkit.remedies import advice
from labkit.run import layout
from labkit.run.layout import Table, View

# pyarrow loads pandas, for a sixth of a second, with the first array that it takes: here, not in the middle of a load.
pa.array(np.empty(0))

_TEXT = pa.dictionary(pa.int32(), pa.string())


SCHEMAS: dict[Table, pa.Schema] = {
    "ops": pa.schema(
        {
            "block": pa.int32(),  # number of the block in run.json
            "node": _TEXT,
            "start_ns": pa.int64(),  # since the run's epoch: when the user wanted to send (open loop: was due to)
            "wait_ns": pa.int64(),  # from start until a connection was free and the request left
            "latency_ns": pa.int64(),  # from start until the answer was read, so wait is part of it
            "outcome": _TEXT,  # ok, fail, unknown
            "sqlstate": _TEXT,  # "" when ok
            "rows": pa.int32(),
        }
    ),
    "writes": pa.schema(
        {
            "block": pa.int32(),
            "key": pa.int64(),  # of the transaction's first row; the others follow
            "rows": pa.int32(),
            "node": _TEXT,  # where it was sent
            "intent_ns": pa.int64(),  # since the run's epoch: just before it was sent
            "done_ns": pa.int64(),  # when it ended for its writer; -1 if the lab was killed before
            "outcome": _TEXT,  # ok, ok-with-warning, fail, unknown
            "sqlstate": _TEXT,
        }
    ),
    "survivors": pa.schema(
        {
            "block": pa.int32(),
            "node": _TEXT,
            "view": _TEXT,  # promoted: the new primary; other: what the other replica had; old: the dead primary's own
            "key": pa.int64(),
            "xid": pa.int64(),  # the transaction that wrote the row
        }
    ),
    "ghosts": pa.schema(  # rows that only the dead primary had
        {
            "block": pa.int32(),
            "key": pa.int64(),
            "xid": pa.int64(),
            "commit_lsn": pa.int64(),  # -1 where its WAL holds no commit of that transaction
            "commit_utc": _TEXT,
        }
    ),
    "samples": pa.schema({"t_ns": pa.int64(), "node": _TEXT, "metric": _TEXT, "value": pa.float64()}),
}


@dataclass(frozen=True)
class Place:
    """Where some rows of a table lie: a row group of a part."""

    part: Path
    group: int


_DIGEST = "sha256"  # the fastest of hashlib where the processor helps, and `sha256sum` prints the same


class Tables:
    """The tables of a run directory, each a folder of parts. A block has parts of its own, so it can be read alone.

    `digests` are those that the run has noted: part -> digest, as `sealed` gives them; None if it carries none. Each is
    compared once, before anything of its part is read.
    """

    def __init__(
        self, folder: Path, digests: Mapping[str, str] | None = None, compared: set[str] | None = None
    ) -> None:
        self._folder, self._digests = folder, digests or {}
        self._compared = set() if compared is None else compared  # parts that are what was recorded

    def new(self, table: Table, part: int | str | None = None, view: View | None = None) -> Path:
        """The path of a part that is not written yet: of a block and a view, or of that name, or the next number.

        Raises RunUnreadable if it is written already.
        """
        if part is None:
            part = f"{len(layout.parts(self._folder, table)):05d}"
        name = part if isinstance(part, str) else layout.of_block(part, view)
        path = layout.part(self._folder, table, name)
        if path.exists():
            raise RunUnreadable(f"{path} is already written; raw files are never reopened")
        return path

    def has(self, table: Table, block: int | None = None, view: View | None = None) -> bool:
        """Whether there is a part of a table, or of one block of it, or of one view of that."""
        return bool(layout.parts(self._folder, table, layout.beginning(block, view)))

    def table(
        self, table: Table, columns: Sequence[str] | None = None, block: int | None = None, view: View | None = None
    ) -> pd.DataFrame:
        """All parts of a table, or of one block of it, as one frame; text columns are categories.

        Raises RunUnreadable if there are none, RunDamaged if one of them is not what was recorded.
        """
        read = []
        for part in self._parts(table, block, view):
            with _opened(part) as file:
                _check_columns(part, table, file)
                read.append(file.read(columns=list(columns) if columns else None))
        frame: pd.DataFrame = pa.concat_tables(read).unify_dictionaries().to_pandas()
        return frame

    def batches(self, table: Table, columns: Sequence[str], block: int | None = None) -> Iterator[pd.DataFrame]:
        """A table, or one block of it, piece by piece, as it was written: memory stays that of one row group.

        Raises RunUnreadable if there is nothing of it, RunDamaged if a part is not what was recorded.
        """
        return (rows for _, rows in self.pieces(table, columns, block))

    def pieces(
        self, table: Table, columns: Sequence[str], block: int | None = None
    ) -> Iterator[tuple[Place, pd.DataFrame]]:
        """As `batches`, each with its place, where `piece` finds it again."""
        for part in self._parts(table, block):
            with _opened(part) as file:
                _check_columns(part, table, file)
                for group in range(file.num_row_groups):
                    yield Place(part, group), file.read_row_group(group, columns=list(columns)).to_pandas()

    def piece(self, place: Place, columns: Sequence[str]) -> pd.DataFrame:
        """The rows in that place, whose part `pieces` has compared with its digest. Raises RunDamaged."""
        with _opened(place.part) as file:
            frame: pd.DataFrame = file.read_row_group(place.group, columns=list(columns)).to_pandas()
        return frame

    def sealed(self) -> dict[str, str]:
        """The digests that are noted, and those of the parts that have become whole since: part -> digest."""
        known = dict(self._digests)
        for part in (part for table in SCHEMAS for part in layout.parts(self._folder, table)):
            name = part.relative_to(self._folder).as_posix()
            if name not in known:
                known[name] = _digest(part)
                self._compared.add(name)
        return known

    def damaged(self) -> list[RunDamaged]:
        """What is wrong with parts whose digests are noted, one error each, not raised; empty if nothing is."""
        found = []
        for name in self._digests:
            try:
                self._compare(name)
            except RunDamaged as error:
                found.append(error)
        return found

    def _parts(self, table: Table, block: int | None, view: View | None = None) -> list[Path]:
        begins = layout.beginning(block, view)
        noted = [name for name in self._digests if name.startswith(f"{table}/{begins}")]
        for name in noted:
            self._compare(name)
        parts = layout.parts(self._folder, table, begins)
        if not parts:
            why = "they are not kept" if noted else "it was cut off before anything was measured"
            raise RunUnreadable(f"{self._folder.parent.name}/{self._folder.name} holds no {table}: {why}")
        return parts

    def _compare(self, name: str) -> None:
        """Raises RunDamaged if a part is not the one whose digest is noted."""
        part = self._folder / name
        if not part.exists():
            if part.parent.exists():
                raise _damaged(part, "is missing")
            return  # a table that was taken away as a whole, to save space, is not kept: no damage
        if name in self._compared:
            return
        if _digest(part) != self._digests[name]:
            raise _damaged(part, f"is not what was recorded, by its {_DIGEST}")
        self._compared.add(name)


@contextlib.contextmanager
def _opened(part: Path) -> Iterator[pq.ParquetFile]:
    """A part, for reading. Raises RunDamaged if it cannot be read, or a page is not what its checksum says."""
    try:
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise _damaged(part, f"cannot be read: {error}") from error


def _digest(part: Path) -> str:
    """Of a file, read piece by piece. Raises RunDamaged."""
    try:
        with part.open("rb") as file:
            return f"{_DIGEST}:{hashlib.file_digest(file, _DIGEST).hexdigest()}"
    except OSError as error:
        raise _damaged(part, f"cannot be read: {error.strerror}") from error


def _damaged(part: Path, how: str) -> RunDamaged:
    helps = advice("bring it back from a copy of the run")
    return RunDamaged(f"{part} {how}; what rests on it is unknown", remedy=helps)


def _check_columns(part: Path, table: Table, file: pq.ParquetFile) -> None:
    """Raises RunDamaged if a part lacks a column of its table, or has one of another type."""
    there = {column.name: _held(column.type) for column in file.schema_arrow}
    problems = [
        f"column {column.name} is {there[column.name]}, not {_held(column.type)}"
        if column.name in there
        else f"column {column.name} is missing"
        for column in SCHEMAS[table]
        if there.get(column.name) != _held(column.type)
    ]
    if problems:
        raise _damaged(part, f"cannot be read as a part of {table}: {'; '.join(problems)}")


def _held(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a column, however their words are numbered."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


class PartWriter:
    """One Parquet part of a table, written row group by row group; a context manager.

    The part appears under its final name only when closed, so a reader never meets a file without a footer.
    """

    def __init__(self, path: Path, table: Table) -> None:
        self.path, self._schema = path, SCHEMAS[table]
        self._partial = layout.partial(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        integers = [f.name for f in self._schema if pa.types.is_integer(f.type)]
        self._writer = pq.ParquetWriter(
            self._partial,
            self._schema,
            compression="zstd",
            use_dictionary=[f.name for f in self._schema if f.type == _TEXT],
            column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
            write_statistics=False,
            write_page_checksum=True,
        )
        self.rows = 0
        self._broken: OSError | None = None

    def write(self, columns: Mapping[str, Any]) -> None:
        """Append one row group. Columns are arrays of equal length; text columns may be (codes, words) pairs.

        Raises OSError when the file cannot be written, and the same again for every row group after it.
        """
        if self._broken is not None:
            raise self._broken  # Arrow would only say that the file is closed, and hide why
        arrays = []
        for column in self._schema:
            value = columns[column.name]
            if isinstance(value, tuple):
                codes, words = value
                value = pa.DictionaryArray.from_arrays(
                    pa.array(codes, type=pa.int32()), pa.array(list(words), type=pa.string())
                )
            arrays.append(pa.array(value, type=column.type) if not isinstance(value, pa.Array) else value)
        batch = pa.record_batch(arrays, schema=self._schema)
        try:
            self._writer.write_batch(batch)
        except OSError as error:
            self._broken = error  # the writer would close without a word, and without a footer
            raise
        self.rows += batch.num_rows

    def close(self) -> None:
        """Write the footer and give the part its name; what cannot be finished is removed: it is unreadable."""
        try:
            self._writer.close()
            if self._broken is None:
                self._partial.replace(self.path)
        finally:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
