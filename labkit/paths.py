"""Where things are: the checkout's own folders, or the copies that an installed package carries."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def home() -> Path:
    """The folder that holds configs/, notebooks/ and data/."""
    checkout = _PACKAGE.parent
    return checkout if (checkout / "pyproject.toml").exists() else _PACKAGE / "_project"


def configs() -> Path:
    return home() / "configs"


def notebooks() -> Path:
    """The originals: what batch runs and reports execute."""
    return home() / "notebooks"


def from_here(path: Path) -> Path:
    """A path as it is, or from the project's folder where it exists only there: `configs/experiments/quick/…`."""
    return home() / path if not path.exists() and (home() / path).exists() else path


def workplace() -> Path:
    """What JupyterLab shows: the checkout, with its README and docs; else the folder that one works in."""
    return home() if home() == _PACKAGE.parent else Path.cwd()


def own_notebooks() -> Path:
    """Copies of the notebooks to work in; git ignores them."""
    return workplace() / "my_notebooks"


def reference() -> Path:
    """The original report's figures and the project's own recorded results."""
    return home() / "data" / "reference"


def sample_runs() -> Path:
    """Small recorded runs that come with the project."""
    return home() / "data" / "sample"


def data() -> Path:
    """Where runs/ and clusters/ are written: $LABKIT_DATA, else data/ of the checkout, else ./data."""
    chosen = os.environ.get("LABKIT_DATA")
    return Path(chosen).expanduser().resolve() if chosen else workplace() / "data"


def runs() -> Path:
    return data() / "runs"


def clusters() -> Path:
    return data() / "clusters"
