"""Numbers and sentences as readers see them: one format for each, in tables, verdicts and figures."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from labkit import names
from labkit.units import UNKNOWN as UNKNOWN
from labkit.units import amount as amount
from labkit.units import count as count
from labkit.units import number as number

NOT_VALID = "Not valid: "
SMALL_PT, SMALL_PX = 9.5, 9
"""The smallest text of a figure, and what a report leaves of it on a narrow screen."""


class Table(pd.DataFrame):
    """A table whose cells are shown whole: pandas cuts a text after 50 letters."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return type(self)

    def _repr_html_(self) -> str:
        return str(self.to_html())


class Words(Table):
    """A table of words rather than numbers: a report sets it flush left."""

    def _repr_html_(self) -> str:
        return str(self.to_html(classes="words"))


def whole(value: float | None) -> str:
    """No decimals, thousands apart; a dash for what is unknown."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:,.0f}"


def cores(value: float | None) -> str:
    """CPU in cores, with two decimals; a dash for what is unknown."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.2f}"


def percent(share: float, *, signed: bool = True) -> str:
    """A share as percent with one decimal, whatever its size, thousands apart: 0.031 is +3.1 %, 1.5792 is +157.9 %."""
    if math.isnan(share):
        return UNKNOWN
    shown = round(100 * share, 1) + 0.0  # without the sign of a negative zero
    return f"{shown:{'+' if signed else ''},.1f} %".replace("-", "−")


def span(low: float, high: float) -> str:
    """Limits in the unit of what they belong to: 1.20 … 1.35; a dash if there is no interval."""
    return UNKNOWN if math.isnan(low) else f"{number(low)} … {number(high)}"


def interval(low: float, high: float) -> str:
    """Relative limits: −5.0 … −1.2 %; a dash if there is no interval."""
    return UNKNOWN if math.isnan(low) else f"{percent(low).removesuffix(' %')} … {percent(high)}"


def not_valid(problems: Iterable[str]) -> list[str]:
    """What makes a run worthless, one sentence each, as verdicts end with it."""
    return [f"{NOT_VALID}{problem}." for problem in problems]


class Sentences(list[str]):
    """Sentences that show themselves as a list, in a notebook and in a terminal."""

    def __str__(self) -> str:
        return "\n".join(f"- {sentence}" for sentence in self)

    def _repr_html_(self) -> str:
        return "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self) + "</ul>"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(str(self))


_ARMS = {
    names.PRIMARY_ONLY: ("primary only", "the primary alone"),
    names.REPLICAS: ("replicas, round-robin", "the replicas"),
    names.PRIMARY_ONLY_MORE: ("primary only, more connections", "the primary alone with more connections"),
    names.REPLICAS_MORE: (
        "replicas, round-robin, more connections",
        "the replicas with more connections",
    ),
}


def arm_words(arm: str) -> str:
    """An arm as tables and figures label it."""
    return _ARMS.get(arm, (arm, arm))[0]


def arm_lines(arm: str, width: int) -> str:
    """The same in lines of at most so many characters, broken between its parts where that is possible."""
    lines: list[str] = []
    for part in arm_words(arm).split(", "):
        if lines and len(f"{lines[-1]}, {part}") <= width:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return ",\n".join(lines)


def arm_in_prose(arm: str) -> str:
    """An arm as a sentence speaks of it."""
    return _ARMS.get(arm, (arm, arm))[1]
