"""A figure of a load while it runs, in JupyterLab; elsewhere the progress bar is all there is.

The figure is an SVG made of text: matplotlib would cost more than the two percent of a core that looking on may.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from labkit.lab.load.arrivals import Arrivals, Closed
from labkit.lab.load.live import LiveReader, Second
from labkit.run import layout
from labkit.run.schema import Cell
from labkit.units import count

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP, _BOTTOM = 640, 120, 64, 58, 26, 36
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#5b6470"
_SHOWN_S = 120
_EVERY_S = 1.0
_STEPS_S = (1, 2, 5, 10, 20, 30, 60)


def in_jupyter() -> bool:
    """Whether a reader looks on: this is a kernel that Jupyter's server started for a notebook.

    papermill and labkit itself start theirs without a session, and a script that a notebook starts is no kernel.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    session = "JPY_SESSION_NAME" in os.environ and "LABKIT_PROGRESS" not in os.environ
    return session and hasattr(shell, "kernel")


@dataclass
class Shown:
    """A block as the figure shows it: which it is, what is asked of the servers, and its seconds so far."""

    cell: Cell
    load: str
    seconds: dict[int, Second] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Which block it is, in words."""
        cell = self.cell
        change = "nothing changed" if cell.intervention == "nothing" else cell.intervention
        phase = ": ".join(filter(None, (cell.phase, change)))
        round_ = f"round {cell.round + 1} ({phase})" if phase else f"round {cell.round + 1}"
        return f"{cell.workload} · {round_} · {cell.arm} · {self.load}"


class LiveView:
    """Throughput and p50/p99 of every second, updated in place at most once a second."""

    def __init__(self, folder: Path, display: Callable[..., Any]) -> None:
        self._folder, self._display = folder, display
        self._blocks: list[Shown] = []
        self._colours: dict[str, str] = {}
        self._reader: LiveReader | None = None
        self._first, self._shown_at = 0, 0.0
        self._handle: Any = None

    def file(self, block: int) -> Path:
        """Where the load generators of a block are to write; shards add their number."""
        return layout.live(self._folder, block)

    def begin(self, cell: Cell, when: Arrivals, files: Sequence[Path]) -> None:
        """A block begins: the one that `cell` names, with the load that `when` asks for."""
        self._reader = LiveReader(files)
        newest = max((at for block in self._blocks for at in block.seconds), default=0)
        self._blocks = [block for block in self._blocks if any(at > newest - _SHOWN_S for at in block.seconds)]
        self._blocks.append(Shown(cell, asked(when)))
        self._colours.setdefault(cell.arm, _COLOURS[len(self._colours) % len(_COLOURS)])

    def update(self) -> None:
        """Show what is new, if it is time."""
        if self._reader is None or time.monotonic() - self._shown_at < _EVERY_S:
            return
        self._shown_at = time.monotonic()
        self._blocks[-1].seconds = self._reader.seconds()
        self._first = self._first or min(self._blocks[-1].seconds, default=0)
        picture = _Html(svg(self._blocks, self._colours, self._first))
        if self._handle is None:
            self._handle = self._display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def end(self, files: Sequence[Path]) -> None:
        """The block is over: show all of it, and remove what the generators wrote."""
        self._shown_at = 0.0
        self.update()
        for file in files:
            file.unlink(missing_ok=True)


def asked(when: Arrivals) -> str:
    """What a load asks of the servers, in words."""
    load = count(when.users, "user") if isinstance(when, Closed) else f"{when.rate:,.0f} requests/s asked for"
    return ", then ".join([load, *(f"{stage.value:,g}" for stage in when.stages)])


class _Html:
    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text


def view(folder: Path) -> LiveView | None:
    """A live view if a reader looks on, else None."""
    if not in_jupyter():
        return None
    from IPython.display import display

    return LiveView(folder, display)


def svg(blocks: Sequence[Shown], colours: Mapping[str, str], first: int = 0) -> str:
    """The newest block by name and in figures; below it throughput and latency (logarithmic; p99 dashed) over time.

    Drawn are the last two minutes of the blocks of its workload: another one has a scale of its own. Time counts from
    the second `first`, in which the load began.
    """
    now = blocks[-1]
    last = max((at for block in blocks for at in block.seconds), default=0)
    mine = [block for block in blocks if block.cell.workload == now.cell.workload]
    shown = [(block, {at - first: s for at, s in block.seconds.items() if at > last - _SHOWN_S}) for block in mine]
    shown = [(block, seconds) for block, seconds in shown if seconds]
    drawn = [at for _, seconds in shown for at in seconds]
    span = (min(drawn, default=0), max(drawn, default=0))
    rates = [(block, {at: float(s.ok) for at, s in seconds.items()}) for block, seconds in shown]
    p50, p99 = (
        [(block, {at: s.percentile_ms(q) for at, s in seconds.items()}) for block, seconds in shown]
        for q in (0.5, 0.99)
    )
    plain = _Scale.linear([v for _, line in rates for v in line.values()])
    logarithmic = _Scale.logarithmic([v for _, line in (*p50, *p99) for v in line.values()])
    below = _TOP + _HEIGHT + _GAP
    body = _heading(now, [block.cell.arm for block, _ in shown], colours)
    body += _panel(_TOP, "requests/s", [(rates, "")], plain, colours, span)
    words = "latency, ms (logarithmic): p50, p99 dashed"
    body += _panel(below, words, [(p50, ""), (p99, "5 3")], logarithmic, colours, span)
    body += _time_axis(below + _HEIGHT, [(block, min(seconds)) for block, seconds in shown], span)
    size = f'viewBox="0 0 {_WIDTH + 10} {below + _HEIGHT + _BOTTOM}" width="{_WIDTH + 10}"'
    style = 'font-family="sans-serif" font-size="12" style="background:white; max-width:100%"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{body}</svg>'


def _heading(now: Shown, arms: Sequence[str], colours: Mapping[str, str]) -> str:
    newest = now.seconds[max(now.seconds)] if now.seconds else Second()
    figures = f"{newest.ok:,}/s, p99 {newest.percentile_ms(0.99):,.3g} ms" if newest.ok else "no answer yet"
    text = f'<text x="8" y="16" font-weight="bold">{escape(now.title)}</text>'
    text += f'<text x="{_WIDTH}" y="34" text-anchor="end">{figures}</text>'
    spans = "".join(f'<tspan fill="{colours[arm]}">━ {escape(arm)}  </tspan>' for arm in dict.fromkeys(arms))
    return f'{text}<text x="8" y="34" xml:space="preserve">{spans}</text>'


_Lines = Sequence[tuple[Shown, Mapping[int, float]]]


@dataclass(frozen=True)
class _Scale:
    """The values of a vertical axis: where its ticks are, and how high a value stands, as a share."""

    ticks: tuple[float, ...]
    log: bool

    @classmethod
    def linear(cls, values: Sequence[float]) -> _Scale:
        """From zero to the next 1, 2 or 5 of a decade."""
        most = _steps_around([max(values, default=1.0) or 1.0])[-1]
        return cls((0, most / 2, most), log=False)

    @classmethod
    def logarithmic(cls, values: Sequence[float]) -> _Scale:
        """From the 1, 2 or 5 of a decade below all values to the one above; of many only the decades are ticks."""
        steps = _steps_around([v for v in values if v > 0] or [1.0])
        inner = [step for step in steps[1:-1] if len(steps) <= 5 or math.log10(step) % 1 == 0]
        return cls((steps[0], *inner, steps[-1]), log=True)

    def height(self, value: float) -> float:
        low, high, value = ((math.log(v) if self.log else v) for v in (self.ticks[0], self.ticks[-1], value))
        return (value - low) / (high - low)


def _steps_around(values: Sequence[float]) -> list[float]:
    """The 1, 2 and 5 of each decade, from the last below all values to the first above; at least two."""
    decades = range(math.floor(math.log10(min(values))) - 1, math.floor(math.log10(max(values))) + 2)
    steps = [float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)]
    below = max(step for step in steps if step < min(values))
    above = min(step for step in steps if step >= max(values))
    return [step for step in steps if below <= step <= above]


def _panel(
    top: int,
    title: str,
    lines: Sequence[tuple[_Lines, str]],
    scale: _Scale,
    colours: Mapping[str, str],
    span: tuple[int, int],
) -> str:
    """One panel: a line for each block, broken where a second had no answer."""
    base = top + _HEIGHT
    text = f'<text x="{_LEFT}" y="{top - 6}" fill="{_GREY}">{title}</text>'
    for tick in scale.ticks:
        y = base - scale.height(tick) * _HEIGHT
        text += f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:g}" y2="{y:g}" stroke="#ddd"/>'
        text += f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end">{tick:,.6g}</text>'
    for blocks, dashes in lines:
        for block, line in blocks:
            known = {at: v for at, v in line.items() if not math.isnan(v)}
            points = [f"{_across(at, span):.1f},{base - scale.height(v) * _HEIGHT:.1f}" for at, v in known.items()]
            dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
            stroke = f'fill="none" stroke="{colours[block.cell.arm]}" stroke-width="1.8" stroke-linecap="round"'
            # A point alone is a line of no length, which its round ends make visible.
            text += f'<polyline points="{" ".join(points * (1 + (len(points) == 1)))}" {stroke}{dashed}/>'
    return text


def _across(at: float, span: tuple[int, int]) -> float:
    return _LEFT + (at - span[0]) * (_WIDTH - _LEFT) / max(span[1] - span[0], 1)


def _time_axis(base: int, begins: Sequence[tuple[Shown, int]], span: tuple[int, int]) -> str:
    """Seconds below, and a faint line where each block begins."""
    step = next((step for step in _STEPS_S if (span[1] - span[0]) / step <= 10), _STEPS_S[-1])
    text = ""
    for second in range(-(-span[0] // step) * step, span[1] + 1, step):
        x = _across(second, span)
        text += f'<text x="{x:.1f}" y="{base + 16}" text-anchor="middle">{second}</text>'
    for _, begin in begins:
        x = _across(begin - 0.5, span)
        if x > _LEFT:
            text += f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{base}" stroke="#bbb" stroke-dasharray="1 3"/>'
    middle = (_LEFT + _WIDTH) / 2
    return f'{text}<text x="{middle:g}" y="{base + 31}" text-anchor="middle">seconds since the load began</text>'
