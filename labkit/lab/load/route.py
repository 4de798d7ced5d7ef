"""Which node serves a load that may be sent elsewhere while it runs: a file holds the node's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labkit import files


class Route:
    """What a generator reads. `pick` gives the index of the node that serves now."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, list(names)
        self._seen = (0, 0)
        self.index = 0
        self.changed()

    def pick(self) -> int:
        return self.index

    def changed(self) -> bool:
        """Look at the file; whether another node serves since the last look."""
        found = self._path.stat()
        seen = (found.st_mtime_ns, found.st_ino)
        if seen == self._seen:
            return False
        self._seen, before = seen, self.index
        self.index = self._names.index(self._path.read_text(encoding="utf-8").strip())
        return self.index != before


def point(path: Path, name: str) -> None:
    """Send the load to the node of that name from its next look on, within 10 ms."""
    files.replace(path, name + "\n", durable=False)
