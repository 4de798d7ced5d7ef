"""Colours, words and the figure that shows itself."""

from __future__ import annotations

import io
import textwrap
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, LogLocator, NullFormatter

from labkit import names
from labkit.analysis.words import SMALL_PT
from labkit.replication import ASYNC, Level

# M. Okabe, K. Ito, "Color Universal Design" (2008): colour-blind readers tell them apart; on paper the dashes do.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
BLACK, GREY = "#000000", "#767676"

_ARM_COLOURS = {
    names.PRIMARY_ONLY: BLUE,
    names.REPLICAS: VERMILLION,
    names.PRIMARY_ONLY_MORE: GREEN,
    names.REPLICAS_MORE: PURPLE,
}
_NODES = {
    "host": (BLACK, "-"),
    "generator": (PURPLE, "-."),
    "lab": (GREY, ":"),
    "kernel": (GREY, "--"),
    "docker-proxy": (SKY, "-."),
}
_SERVERS = [(BLUE, "-"), (VERMILLION, "--"), (GREEN, ":"), (ORANGE, "-."), (SKY, "--"), (PURPLE, ":")]
_OTHERS = [GREEN, PURPLE, ORANGE, SKY, BLACK]
_MODE_COLOURS = {ASYNC: VERMILLION, "FIRST 1": ORANGE, "ANY 1": BLUE, "ANY 2": GREEN}
_LEVEL_STYLES: dict[Level, tuple[str, str]] = {
    "off": (GREY, ":"),
    "local": (ORANGE, "-."),
    "remote_write": (SKY, "--"),
    "on": (BLUE, "-"),
    "remote_apply": (GREEN, "--"),
}
_LEVEL_MARKS: dict[Level, str] = {"off": "x", "local": "v", "remote_write": "s", "on": "o", "remote_apply": "D"}

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "legend.fontsize": SMALL_PT,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "labkit",
}
WIDTH_IN = 5.8
"""On a page of 400 px a sheet of this width keeps its text readable."""


def arm_colour(arm: str) -> str:
    """The colour of an arm, the same in every figure."""
    return _ARM_COLOURS.get(arm) or _OTHERS[sum(arm.encode()) % len(_OTHERS)]


def node_style(node: str) -> dict[str, Any]:
    """Colour and dashes of a server, of the host, of the load generator or of the lab."""
    number = int("".join(filter(str.isdigit, node)) or 1) - 1
    colour, dashes = _NODES.get(node) or _SERVERS[number % len(_SERVERS)]
    return {"color": colour, "linestyle": dashes}


def drawing() -> Any:
    """The context in which figures of this project are made and saved; global settings stay as they were."""
    return mpl.rc_context(_SETTINGS)


class Sheet(Figure):
    """A matplotlib figure that knows its description and shows itself as SVG, without pyplot."""

    alt = ""

    def svg(self) -> str:
        """The figure as one SVG element with its description in it."""
        buffer = io.StringIO()
        with drawing():
            self.savefig(buffer, format="svg", metadata={"Date": None, "Title": self.alt})
        # Text stays text in the SVG. DejaVu Sans comes with matplotlib; Verdana, as wide, with most readers' systems.
        return buffer.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana")

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        data = {"image/svg+xml": self.svg(), "text/plain": self.alt}
        return data, {"image/svg+xml": {"alt": self.alt}}


def wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))


def say(ax: Axes, text: str) -> None:
    """Text in the place of what an Axes would show."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, wrapped(text, 68), ha="center", va="center", color=GREY, transform=ax.transAxes)


PLAIN = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−"))


def counts() -> Formatter:
    """Ticks as 500, 10k, 2M; a new one for each axis, which it belongs to."""
    return EngFormatter(sep="")


def logarithmic(ax: Axes, axis: Literal["x", "y"], words: Formatter, steps: tuple[int, ...] = (1, 2, 5)) -> None:
    """A logarithmic axis with ticks at these steps of each decade, in plain numbers."""
    (ax.set_xscale if axis == "x" else ax.set_yscale)("log")
    scale = ax.xaxis if axis == "x" else ax.yaxis
    scale.set_major_locator(LogLocator(subs=steps))
    scale.set_major_formatter(words)
    scale.set_minor_formatter(NullFormatter())


def mode_colour(mode: str) -> str:
    """The colour of a mode of replication (async, FIRST k, ANY k), the same in every figure."""
    return _MODE_COLOURS.get(mode, PURPLE)


def level_style(level: Level) -> dict[str, Any]:
    """Colour and dashes of a level of synchronous_commit."""
    colour, dashes = _LEVEL_STYLES[level]
    return {"color": colour, "linestyle": dashes}


def level_mark(level: Level) -> str:
    """The mark of a level of synchronous_commit."""
    return _LEVEL_MARKS[level]
