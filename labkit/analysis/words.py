"""Numbers and sentences as readers see them: one format for each, in tables, verdicts and figures."""

from __future__ import annotations

import html
import math
import textwrap
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


def capital(sentence: str) -> str:
    """The sentence with a capital letter at its beginning."""
    return sentence[0].upper() + sentence[1:]


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
    names.PRIMARY_ONLY: "primary alone",
    names.REPLICAS: "replicas",
    names.ALL_NODES: "all nodes",
    names.PRIMARY_ONLY_MORE: "primary alone with more connections",
    names.REPLICAS_MORE: "replicas with more connections",
    names.some_replicas(1): "one replica",
}
"""One name for each, in tables, figures and sentences."""


def arm_words(arm: str) -> str:
    """An arm as tables and figures label it."""
    some = arm.removeprefix(names.some_replicas(0).removesuffix("0"))
    return _ARMS.get(arm) or (f"{some} replicas" if some.isdecimal() else arm)


def arm_lines(arm: str, width: int) -> str:
    """The same in lines of at most so many characters; a longer word has a line of its own."""
    return textwrap.fill(arm_words(arm), width, break_long_words=False, break_on_hyphens=False)


def arm_in_prose(arm: str) -> str:
    """An arm as a sentence speaks of it: the same name, with its article."""
    known = _ARMS.get(arm, "")
    return f"the {known}" if known.startswith(("primary", "replicas")) else arm_words(arm)
