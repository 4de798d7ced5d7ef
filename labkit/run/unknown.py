"""What is said where there is no run of a name: those that could have been meant, or how to make one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labkit.errors import RunNotFound
from labkit.remedies import Remedy
from labkit.run.schema import BLOCKS

FIRST = "read-scaling"
"""The experiment to begin with where none is named."""
_MOST_LISTED = 5


def meant(name: str, experiment: str | None = None) -> str | None:
    """The experiment whose runs a name asks for: the one that is given, or that it begins with; None for any."""
    begins = name.split("/")[0]
    return experiment or (begins if begins in BLOCKS else None)


def not_found(
    name: str, root: Path, experiment: str | None, own: Sequence[str], samples: Sequence[str] = ()
) -> RunNotFound:
    """The error, not raised. `own` and `samples`: the ids of the runs in `root`, and of those that come with labkit, of
    the experiment that is meant."""
    of = f" of {experiment}" if experiment else ""
    if own:
        said = f"there is no run {name!r} in {root}; the newest{of}:{listed(own[-_MOST_LISTED:])}"
        return RunNotFound(said + (f"\nand among the samples:{listed(samples)}" if samples else ""))
    makes = Remedy("run", "makes one", experiment=experiment or FIRST)
    if not samples:
        return RunNotFound(f"there is no run {name!r} in {root}, nor any other{of}", remedy=makes)
    said = f"there is no run {name!r}; among the samples{of}:{listed(samples)}"
    return RunNotFound(f"{said}\nand in {root} there is none{of}", remedy=makes)


def listed(ids: Sequence[str]) -> str:
    """Ids, each on a line of its own."""
    return "".join(f"\n  {each}" for each in ids)
