"""Loaded into the kernel of an executed notebook: an error of labkit's leaves it as a value, beside its text, and an
interrupt as a mark. In its cells SIGTERM is one. After either nothing is left open."""

from __future__ import annotations

import contextlib
from typing import Any

from IPython.display import publish_display_data

from labkit import interrupts
from labkit.errors import LabkitError

ERROR_MIME = "application/vnd.labkit.error+json"
INTERRUPTED_MIME = "application/vnd.labkit.interrupted+json"
_cell = contextlib.ExitStack()


def load_ipython_extension(shell: Any) -> None:
    """What IPython calls for `--ext`."""
    shell.events.register("pre_run_cell", _begin)
    shell.events.register("post_run_cell", _end)


def _begin(_: Any) -> None:
    # The process goes on: who executes the notebook ends it.
    _cell.enter_context(interrupts.sigterm(then_end=False))


def _end(result: Any) -> None:
    error = result.error_in_exec
    if error is not None:
        interrupts.put_in_order(f"a cell ended with {type(error).__name__}")  # no further cell is executed
    _cell.close()
    if isinstance(error, LabkitError):
        publish_display_data({ERROR_MIME: error.as_dict()})  # type: ignore[no-untyped-call]
    elif isinstance(error, KeyboardInterrupt):
        publish_display_data({INTERRUPTED_MIME: {"signal": interrupts.sent(error).name}})  # type: ignore[no-untyped-call]
