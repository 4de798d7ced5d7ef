"""Loaded into the kernel of an executed notebook: an error of labkit's leaves it as a value, beside its text, and an
interrupt as a mark."""

from __future__ import annotations

from typing import Any

from IPython.display import publish_display_data

from labkit.errors import LabkitError

ERROR_MIME = "application/vnd.labkit.error+json"
INTERRUPTED_MIME = "application/vnd.labkit.interrupted+json"


def load_ipython_extension(shell: Any) -> None:
    """What IPython calls for `--ext`."""
    shell.events.register("post_run_cell", _send)


def _send(result: Any) -> None:
    error = result.error_in_exec
    if isinstance(error, LabkitError):
        publish_display_data({ERROR_MIME: error.as_dict()})  # type: ignore[no-untyped-call]
    elif isinstance(error, KeyboardInterrupt):
        publish_display_data({INTERRUPTED_MIME: {}})  # type: ignore[no-untyped-call]
