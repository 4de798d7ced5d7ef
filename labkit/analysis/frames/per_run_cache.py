"""What is asked for again and again while one run is drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import pandas as pd

from labkit.run.store import Run

T = TypeVar("T")


def read_once(read: Callable[[Run], T]) -> Callable[[Run], T]:
    """Keep what is read of a finished run as long as its Run object lives; every caller gets the same object."""
    known: WeakKeyDictionary[Run, T] = WeakKeyDictionary()

    @functools.wraps(read)
    def kept(run: Run) -> T:
        if run.status == "started":
            return read(run)
        if run not in known:
            known[run] = read(run)
        return known[run]

    return kept


def once_a_run(frame_of: Callable[[Run], pd.DataFrame]) -> Callable[[Run], pd.DataFrame]:
    """Keep the frame of a finished run as long as its Run object lives; every caller gets a copy of its own."""
    known = read_once(frame_of)

    @functools.wraps(frame_of)
    def copied(run: Run) -> pd.DataFrame:
        return known(run).copy()

    return copied
