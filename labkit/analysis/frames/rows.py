"""Walking over a frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """Rows as objects with the columns as attributes. pandas types their values as anything at all."""
    return iter(frame.itertuples(index=False))


def matching(frame: pd.DataFrame, **values: str) -> pd.DataFrame:
    """The rows whose columns have these values."""
    wanted = pd.Series(values)
    return frame[(frame[list(values)] == wanted).all(axis="columns")]
