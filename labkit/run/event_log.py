"""events.jsonl of a run: it grows while the run is driven, and is compared with what run.json notes when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labkit.errors import RunDamaged
from labkit.run import digests, reading
from labkit.run.schema import Event, Lines, RunRecord


class EventLog:
    """The events of a run. `record` is what the run has noted, `events` of it how far they went at the last block."""

    def __init__(self, file: Path, record: RunRecord[Any]) -> None:
        self._file, self._record = file, record

    def append(self, event: Event, t_ns: int) -> None:
        """Add an event, stamped with a time on the run's clock."""
        content = {"t_ns": t_ns, "kind": event.kind} | event.as_json()
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(content, ensure_ascii=False) + "\n")

    def read(self) -> list[Event]:
        """The events, in order. Raises RunUnreadable, RunDamaged if they are not those that were recorded."""
        if damaged := self.damaged():
            raise damaged[0]
        return reading.events(self._file)

    @property
    def is_torn(self) -> bool:
        """Whether the last event was cut off while it was written: it is left out of all that is read."""
        return reading.is_torn(self._file)

    def sealed(self) -> Lines | None:
        """What there is by now, to be noted in run.json; what is damaged by now stays as it was noted."""
        return self._record.events if self.damaged() else digests.of_lines(self._file)

    def damaged(self) -> list[RunDamaged]:
        """What is not as it was recorded, not raised: one error, or none."""
        if self._record.events is None:
            return []
        try:
            digests.compare_lines(self._file, self._record.events, ended=self._record.status == "complete")
        except RunDamaged as error:
            return [error]
        return []
