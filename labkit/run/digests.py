"""Digests: how what was recorded is known again. Of a file, of the lines of one that grows, and of run.json itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from labkit.errors import RunDamaged
from labkit.remedies import advice
from labkit.run.schema import Lines

ALGORITHM = "sha256"  # the fastest of hashlib where the processor helps, and `sha256sum` prints the same
OTHER = f"is not what was recorded, by its {ALGORITHM}"


def of_file(file: Path) -> str:
    """Of a file, read piece by piece. Raises RunDamaged."""
    try:
        with file.open("rb") as opened:
            return f"{ALGORITHM}:{hashlib.file_digest(opened, ALGORITHM).hexdigest()}"
    except OSError as error:
        raise damaged(file, f"cannot be read: {error.strerror}") from error


def of_lines(file: Path) -> Lines:
    """Of the whole lines of a file that only grows; of none if there is no such file. Raises RunDamaged."""
    content = _content(file)
    whole = content[: content.rfind(b"\n") + 1]
    return Lines(bytes=len(whole), digest=_digest(whole))


def compare_lines(file: Path, known: Lines, *, ended: bool) -> None:
    """Raises RunDamaged if the lines that are noted are others, or if there are more although the run has `ended`."""
    content = _content(file)
    if known.bytes and not file.exists():
        raise damaged(file, "is missing")
    if len(content) < known.bytes or _digest(content[: known.bytes]) != known.digest:
        raise damaged(file, OTHER)
    if ended and len(content) > known.bytes:
        raise damaged(file, "holds more than was recorded")


def of_record(content: str | bytes) -> str:
    """Of all that run.json holds but its own digest, however it is laid out."""
    known = json.loads(content)
    known.pop("seal", None)
    return _digest(json.dumps(known, sort_keys=True, separators=(",", ":")).encode())


def damaged(file: Path, how: str, helps: str = "bring it back from a copy of the run") -> RunDamaged:
    """Not raised: what is wrong with a file."""
    return RunDamaged(f"{file} {how}; what rests on it is unknown", remedy=advice(helps))


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes() if file.exists() else b""
    except OSError as error:
        raise damaged(file, f"cannot be read: {error.strerror}") from error


def _digest(content: bytes) -> str:
    return f"{ALGORITHM}:{hashlib.new(ALGORITHM, content).hexdigest()}"
