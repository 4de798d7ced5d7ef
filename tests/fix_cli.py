"""The command line: called in this process, where starting another would take most of the time, or as a shell does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from labkit.cli import main

LABKIT = str(Path(sys.executable).parent / "labkit")


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


def on_own(*words: str) -> Result:
    """A command on the cluster named `own`."""
    return invoke(*words, "--name", "own")


def shell(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own."""
    return subprocess.run(
        [LABKIT, *words], capture_output=True, text=True, timeout=120, check=False, env=os.environ | environment
    )
