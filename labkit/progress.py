"""Progress of anything that takes longer than two seconds: a bar here, or a file that shows it elsewhere.

An executed notebook has no terminal of its own. The process that starts it sets LABKIT_PROGRESS to a file and
wraps the execution in `follow`: the notebook's progress is then shown where the command was typed.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from labkit import files

if TYPE_CHECKING:
    from tqdm.auto import tqdm

DELAY_S = 2.0
_BETWEEN_WRITES_S = 0.2
_SECONDS = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total:.0f} s"
"""A bar whose unit is time needs neither a rate nor a second clock."""


def _bar(label: str, total: float, unit: str) -> tqdm[Any]:
    # Loaded with the first bar: they bring IPython along, which neither a load generator nor a short command needs.
    from tqdm.auto import tqdm
    from tqdm.notebook import tqdm_notebook

    return tqdm(
        total=total,
        desc=label,
        unit=f" {unit}",
        unit_scale=total >= 10_000,
        bar_format=_SECONDS if unit == "s" else None,
        delay=DELAY_S,
        # tqdm's `None` means "unless on a terminal"; a notebook's output stream is none, yet shows bars.
        disable=False if issubclass(tqdm, tqdm_notebook) else None,
        dynamic_ncols=True,
        leave=False,
    )


class Progress:
    """Show how far a piece of work is, with a bar that appears after two seconds; a context manager.

    `total` is in `unit`s; where more is done than was foreseen, that is shown as the total. On neither a terminal nor
    in Jupyter nothing is printed. With LABKIT_PROGRESS set, one JSON line {"label", "done", "total", "unit"} is kept in
    that file instead, at most five times a second.
    """

    def __init__(self, label: str, total: float, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self._done: float = 0
        self._bar: tqdm[Any] | None = None
        self._file = Path(os.environ["LABKIT_PROGRESS"]) if os.environ.get("LABKIT_PROGRESS") else None
        self._written_at = -_BETWEEN_WRITES_S

    def __enter__(self) -> Self:
        if self._file is None:
            self._bar = _bar(self.label, self.total, self.unit)
        self.update(0)
        return self

    @property
    def done(self) -> float:
        """How many units are done."""
        return self._done

    def more(self, units: float) -> None:
        """Say that so many units more are to be done than was known."""
        self.total += units
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.refresh()

    def update(self, done: float) -> None:
        """Say that `done` units of `total` are done by now."""
        step, self._done = done - self._done, done
        if self._bar is not None:
            self._bar.total = max(self.total, done)  # tqdm shows none at all once it is exceeded
            self._bar.update(step)
        elif time.monotonic() - self._written_at >= _BETWEEN_WRITES_S:
            self._write()

    def _write(self) -> None:
        assert self._file is not None
        self._written_at = time.monotonic()
        state = {"label": self.label, "done": self._done, "total": max(self.total, self._done), "unit": self.unit}
        files.replace(self._file, json.dumps(state, ensure_ascii=False) + "\n", durable=False)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        else:
            self._write()


class follow:
    """Show, while the with-block runs, the progress that another process writes to `path`.

    Set LABKIT_PROGRESS to the same path in that process's environment.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="labkit-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        bar: tqdm[Any] | None = None
        label = ""
        ending = False
        while not ending:
            ending = self._stop.wait(_BETWEEN_WRITES_S)
            try:
                state = json.loads(self._path.read_text(encoding="utf-8"))
            except FileNotFoundError:  # nothing to be shown yet
                continue
            # A bar that is not on a terminal keeps neither its label nor its count.
            if bar is None or label != state["label"]:
                if bar is not None:
                    bar.close()
                label = state["label"]
                bar = _bar(label, state["total"], state["unit"])
            bar.total = state["total"]
            bar.update(state["done"] - bar.n)
        if bar is not None:
            bar.close()
