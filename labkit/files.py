"""Files that are replaced whole, and files that are locks: written once, for everything that labkit keeps on disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from labkit.errors import LabkitError
from labkit.remedies import setting

_BETWEEN_TRIES_S = 0.05


def replace(file: Path, content: str | bytes, *, mode: int = 0o666, durable: bool = True) -> None:
    """Put `content` (text as UTF-8) in the place of what `file` holds; a reader finds the old or the new, never a part.

    `mode` holds from the first moment, less the process's umask. `durable`: on disk before the name points to it, so
    that a crash of the machine leaves one of the two as well. Raises OSError; the file is then what it was.
    """
    fresh = file.with_name(f"{file.name}.tmp")
    fresh.unlink(missing_ok=True)  # of a process that was killed here; its mode may be another
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content.encode() if isinstance(content, str) else content)
            if durable:
                opened.flush()
                os.fsync(opened.fileno())
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(file: Path, refusal: Callable[[str], LabkitError], deadline_s: float = 0.0) -> Iterator[None]:
    """Hold the lock `file` for this process, however that ends; its folder is made if it is missing.

    Raises what `refusal` makes of the holder's process id (`unknown` if it has not written it yet) when another one
    still holds it at the deadline, and LabkitError if the folder cannot be written to. The file stays: deleting it
    could let two processes hold two files of one name.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        helps = setting("LABKIT_DATA", "a folder that can be written to")
        raise LabkitError(f"the folder {file.parent} cannot be used ({error.strerror})", remedy=helps) from error
    try:
        give_up = time.monotonic() + deadline_s
        while not _taken(descriptor):
            if time.monotonic() >= give_up:
                raise refusal(os.pread(descriptor, 32, 0).decode().strip() or "unknown")
            time.sleep(_BETWEEN_TRIES_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def is_locked(file: Path) -> bool:
    """Whether a process holds the lock; false if there is no such file."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _taken(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _taken(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
