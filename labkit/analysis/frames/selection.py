"""Order statistics of more values than are held in memory, exact: two passes over them, and a few counters.

The first pass counts the values in classes, the second one the values within the few classes that hold a wanted place:
J. I. Munro, M. S. Paterson, "Selection and Sorting with Limited Storage", Theoretical Computer Science 12 (1980). A
class is the upper 18 of a value's 32 bits, which for numbers from 0 on sort as the values themselves do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_LOWER = 14
_MASK = (1 << _LOWER) - 1
_FIRST = int(np.float32(2.0**-21).view(np.uint32)) >> _LOWER
"""Class 0 holds 0 alone: the smallest latency, 1 ns, is 1e-6 ms and more than 2 ** -21."""
CLASSES = (int(np.float32(2.0**31).view(np.uint32)) >> _LOWER) - _FIRST


@dataclass(frozen=True)
class Counts:
    """How many values lie in each class that has any. A class is at most 0.2 % wide."""

    classes: npt.NDArray[np.uint16]
    counts: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, values: Floats) -> Counts:
        """Values from 0 up to 2 ** 31, of latencies in ms 24 days."""
        return cls._sparse(np.bincount(_classes(values), minlength=CLASSES))

    @classmethod
    def together(cls, several: Iterable[Counts]) -> Counts:
        """The counts of all their values."""
        return cls._sparse(np.sum([each.dense() for each in several], axis=0))

    @classmethod
    def _sparse(cls, dense: npt.NDArray[np.int64]) -> Counts:
        classes = np.flatnonzero(dense)
        return cls(classes.astype(np.uint16), dense[classes].astype(np.uint32))

    def dense(self) -> npt.NDArray[np.int64]:
        found = np.zeros(CLASSES, np.int64)
        found[self.classes] = self.counts
        return found


def _classes(values: Floats) -> npt.NDArray[np.intp]:
    upper = (values.view(np.uint32) >> _LOWER).astype(np.intp)
    return np.maximum(upper - _FIRST, 0)


class Selection:
    """The values in certain places of the ascending order, counted from 0: `counts` tells how many lie in each class.

    `take` all of them once, in any order and any pieces; then `values` are known.
    """

    def __init__(self, counts: Counts, places: npt.NDArray[np.int64]) -> None:
        dense = counts.dense()
        upto = np.cumsum(dense)
        self._class = np.searchsorted(upto, places, side="right")
        self._within = places - (upto[self._class] - dense[self._class])  # the place among those of its class
        chosen, self._row = np.unique(self._class, return_inverse=True)
        self._rows = np.full(CLASSES, -1, np.intp)
        self._rows[chosen] = np.arange(len(chosen))
        self._lower = np.zeros((len(chosen), _MASK + 1), np.uint32)

    def take(self, values: Floats) -> None:
        row = self._rows[_classes(values)]
        inside = row >= 0
        low = values.view(np.uint32)[inside] & _MASK
        np.add.at(self._lower.reshape(-1), row[inside] * (_MASK + 1) + low, 1)

    def values(self) -> Floats:
        """In the order in which their places were given."""
        found = np.zeros(len(self._class), np.uint32)
        for i, (row, place) in enumerate(zip(self._row, self._within, strict=True)):
            low = int(np.searchsorted(np.cumsum(self._lower[row]), place, side="right"))
            found[i] = 0 if self._class[i] == 0 else (int(self._class[i]) + _FIRST) << _LOWER | low
        return found.view(np.float32)
