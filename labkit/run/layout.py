"""What lies where in a run directory: every folder, name and ending, once. data/README.md describes the files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Table = Literal["ops", "writes", "survivors", "ghosts", "samples"]
"""The tables of a run. Each is a folder of parts, and a word, so that a type checker finds one that is none."""
OF_BLOCKS: tuple[Table, ...] = ("ops", "writes", "survivors", "ghosts")
"""Those whose parts belong to one block each."""

View = Literal["promoted", "other", "old"]
"""Whose rows were read back: the new primary's, what the other replica had, the lost primary's own."""

RECORD, EVENTS = "run.json", "events.jsonl"
LOGS, LEDGERS, DERIVED = "logs", "ledger", "derived"
NOTEBOOK, PAGE, SUMMARY = "notebook.ipynb", "report.html", "summary.json"
RESERVE = ".reserve"  # space for the last run.json: a run that filled the disk can still be marked failed
DRIVEN = ".driven"  # locked by the process that drives the run, as long as it does
LATEST = "latest"

NOTEBOOK_SUFFIX, PAGE_SUFFIX = ".ipynb", ".html"

_PART, _PARTIAL, _LEDGER, _ROUTE = ".parquet", ".partial", ".ledger", ".route"
_BLOCK = "block-"


def of_block(block: int, view: View | None = None) -> str:
    """How the names of a block's files begin; of what was read back, those of one view."""
    return f"{_BLOCK}{block:05d}" + (f"-{view}" if view else "")


def beginning(block: int | None, view: View | None = None) -> str:
    """How the names of a block's files begin; without a block, of all files."""
    return "" if block is None else of_block(block, view)


def part(folder: Path, table: Table, name: str) -> Path:
    """A part of a table."""
    return folder / table / f"{name}{_PART}"


def parts(folder: Path, table: Table, begins: str = "") -> list[Path]:
    """The whole parts of a table, in order; those whose names begin so."""
    return sorted((folder / table).glob(f"{begins}*{_PART}"))


def partial(path: Path) -> Path:
    """What a part is called until it is whole."""
    return path.with_suffix(_PARTIAL)


def shard(path: Path, number: int) -> Path:
    """Of a file that several load generators write: that of the one with this number."""
    return path.with_stem(f"{path.stem}-{number}")


def is_shard(part: Path, of: Path) -> bool:
    """Whether a part of `ops` is what one of several load generators wrote, which were to write `of` together."""
    return part.parent == of.parent and of.parent.name == "ops" and part.stem.removeprefix(f"{of.stem}-").isdecimal()


def ledger(folder: Path, block: int) -> Path:
    """The writers' ledger of a block that is under way."""
    return folder / LEDGERS / f"{of_block(block)}{_LEDGER}"


def ledgers(folder: Path, begins: str = "") -> list[Path]:
    """Ledgers that were left, in order; those whose names begin so."""
    return sorted((folder / LEDGERS).glob(f"{begins}*{_LEDGER}"))


def route(folder: Path, block: int) -> Path:
    """The file that names the node which the writers of a block are sent to."""
    return folder / LEDGERS / f"{of_block(block)}{_ROUTE}"


def block_of(path: Path) -> int | None:
    """The block that a ledger or a part belongs to; None if it is named after none."""
    number = path.stem.removeprefix(_BLOCK).split("-")[0]
    return int(number) if number.isdecimal() and path.stem.startswith(_BLOCK) else None


def blocks_in(folder: Path) -> list[Path]:
    """Every file of any block, whole or not: of tables, and of what the writers noted."""
    return [file for name in (*OF_BLOCKS, LEDGERS) for file in sorted((folder / name).glob(f"{_BLOCK}*"))]


def live(folder: Path, block: int) -> Path:
    """Where the load generators of a block write figures while a notebook shows them."""
    return folder / f".live-{block:04d}.jsonl"


def stop(folder: Path) -> Path:
    """A path that does not exist: a load generator that watches it stops when it appears."""
    path = folder / f".stop-{time.monotonic_ns():x}"
    path.unlink(missing_ok=True)
    return path


def log(folder: Path, server: str) -> Path:
    """The log of a server, as far as it is kept."""
    return folder / LOGS / f"{server}.log"


def comparison(derived: Path, others: Sequence[str]) -> Path:
    """A comparison with other runs, without an ending: a notebook and a page have this name."""
    more = f"-and-{len(others) - 1}-more" if len(others) > 1 else ""
    return derived / f"compared-with-{others[0]}{more}"
