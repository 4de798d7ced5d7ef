"""Frames that are asked for again and again while one run is drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from weakref import WeakKeyDictionary

import pandas as pd

from labkit.run.store import Run


def once_a_run(frame_of: Callable[[Run], pd.DataFrame]) -> Callable[[Run], pd.DataFrame]:
    """Keep the frame of a finished run as long as its Run object lives; every caller gets a copy of its own."""
    known: WeakKeyDictionary[Run, pd.DataFrame] = WeakKeyDictionary()

    @functools.wraps(frame_of)
    def kept(run: Run) -> pd.DataFrame:
        if run.status == "started":
            return frame_of(run)
        if run not in known:
            known[run] = frame_of(run)
        return known[run].copy()

    return kept
