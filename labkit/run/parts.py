"""Tables of a run as Parquet parts: written once, row group by row group. The only module that knows Parquet.

Every page of a part has a checksum, which is compared when it is read. A whole part has a digest, noted in run.json
once its block has ended: a part that is another one by then is damaged, and nothing is concluded from it. Nor is it
from a part that run.json does not note, in a run that notes digests: it may be anybody's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from labkit.errors import RunDamaged, RunUnreadable
from labkit.run import digests, layout
from labkit.run.layout import Table, View
from labkit.run.schema import RunRecord

# pyarrow loads pandas, for a sixth of a second, with the first array that it takes: here, not in the middle of a load.
pa.array(np.empty(0))
# Its own allocator keeps what was freed: 80 MiB after five million requests that were read piece by piece.
pa.set_memory_pool(pa.system_memory_pool())

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


class Tables:
    """The tables of a run directory, each a folder of parts. A block has parts of its own, so it can be read alone.

    `record` is what the run has noted; its digests, where it carries any, are compared once each, before anything of
    their parts is read. What they do not name is not read, but for the parts that were made here.
    """

    def __init__(self, folder: Path, record: RunRecord[Any] | None = None) -> None:
        self._folder, self._record = folder, record
        self._compared: set[str] = set()  # parts that are what was recorded
        self._own: set[Path] = set()  # parts that this process makes: they are noted when their block ends

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
        self._own.add(path)
        return path

    def has(self, table: Table, block: int | None = None, view: View | None = None) -> bool:
        """Whether there is, or should be, a part of a table, or of one block of it, or of one view of that."""
        begins = layout.beginning(block, view)
        kept = (self._folder / table).exists()
        return bool(layout.parts(self._folder, table, begins) or (kept and self._noted(table, begins)))

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

    def sealed(self, without: Sequence[Path] = ()) -> dict[str, str]:
        """The digests that are noted, and those of the parts made here that have become whole since: part -> digest."""
        left = {self._name(file) for file in without}
        known = {name: digest for name, digest in self._digests.items() if name not in left}
        for part in self._all():
            name = self._name(part)
            if name not in known | dict.fromkeys(left) and self._is_own(part):
                known[name] = digests.of_file(part)
                self._compared.add(name)
        return known

    def damaged(self) -> list[RunDamaged]:
        """What is wrong with parts whose digests are noted, or should be, one error each, not raised."""
        found = []
        for name in self._digests:
            try:
                self._compare(name)
            except RunDamaged as error:
                found.append(error)
        return found + [_unknown(part) for part in self._not_noted(self._all()) if not self._under_way(part)]

    def unfinished(self) -> list[Path]:
        """Parts without a digest because their block did not end: they are no evidence, and are not read."""
        return [part for part in self._not_noted(self._all()) if self._under_way(part)]

    def _all(self) -> list[Path]:
        return [part for table in SCHEMAS for part in layout.parts(self._folder, table)]

    @property
    def _digests(self) -> Mapping[str, str]:
        return (self._record.digests if self._record is not None else None) or {}

    def _name(self, part: Path) -> str:
        return part.relative_to(self._folder).as_posix()

    def _noted(self, table: Table, begins: str) -> list[str]:
        """The parts of a table whose digests are noted; those whose names begin so."""
        return [name for name in self._digests if name.startswith(f"{table}/{begins}")]

    def _not_noted(self, parts: Sequence[Path]) -> list[Path]:
        """Those of some parts that have no digest, of a run that carries them, and that were not made here."""
        if self._record is None or self._record.digests is None:
            return []
        return [part for part in parts if self._name(part) not in self._digests and not self._is_own(part)]

    def _is_own(self, part: Path) -> bool:
        return part in self._own or any(layout.is_shard(part, own) for own in self._own)

    def _under_way(self, part: Path) -> bool:
        """Whether a part that is not noted belongs to what was not finished: digests are noted when a block ends."""
        assert self._record is not None
        finished = {block.block for block in self._record.blocks}
        return self._record.status != "complete" and layout.block_of(part) not in finished

    def _parts(self, table: Table, block: int | None, view: View | None = None) -> list[Path]:
        begins = layout.beginning(block, view)
        noted = self._noted(table, begins)
        for name in noted:
            self._compare(name)
        parts = layout.parts(self._folder, table, begins)
        strange = self._not_noted(parts)
        for part in strange:
            if not self._under_way(part):
                raise _unknown(part)
        parts = [part for part in parts if part not in strange]
        if strange and not parts:
            raise digests.damaged(strange[0], "is not noted in run.json, its block did not end", "measure again")
        if not parts:
            why = "they are not kept" if noted else "it was cut off before anything was measured"
            raise RunUnreadable(f"{self._folder.parent.name}/{self._folder.name} holds no {table}: {why}")
        return parts

    def _compare(self, name: str) -> None:
        """Raises RunDamaged if a part is not the one whose digest is noted."""
        part = self._folder / name
        if not part.exists():
            if part.parent.exists():
                raise digests.damaged(part, "is missing")
            return  # a table that was taken away as a whole, to save space, is not kept: no damage
        if name in self._compared:
            return
        if digests.of_file(part) != self._digests[name]:
            raise digests.damaged(part, digests.OTHER)
        self._compared.add(name)


@contextlib.contextmanager
def _opened(part: Path) -> Iterator[pq.ParquetFile]:
    """A part, for reading. Raises RunDamaged if it cannot be read, or a page is not what its checksum says."""
    try:
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise digests.damaged(part, f"cannot be read: {error}") from error


def _unknown(part: Path) -> RunDamaged:
    return digests.damaged(part, "is not noted in run.json", "take it out of the run if it is a stray file")


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
        raise digests.damaged(part, f"cannot be read as a part of {table}: {'; '.join(problems)}")


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
