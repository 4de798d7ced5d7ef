"""A figure of a load while it runs, in JupyterLab; elsewhere the progress bar is all there is.

The figure is an SVG made of text: matplotlib would cost more than the two percent of a core that looking on may.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from labkit.lab.load.live import LiveReader, Second
from labkit.run import layout

_WIDTH, _HEIGHT, _LEFT, _GAP = 620, 120, 64, 34
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_SHOWN_S = 120
_EVERY_S = 1.0


def in_jupyter() -> bool:
    """Whether a reader looks on: this is a kernel that Jupyter's server started for a notebook.

    papermill and labkit itself start theirs without a session, and a script that a notebook starts is no kernel.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    session = "JPY_SESSION_NAME" in os.environ and "LABKIT_PROGRESS" not in os.environ
    return session and hasattr(shell, "kernel")


class LiveView:
    """Throughput and p50/p99 of every second, a line for each arm, updated in place at most once a second."""

    def __init__(self, folder: Path, display: Callable[..., Any]) -> None:
        self._folder, self._display = folder, display
        self._arms: dict[str, list[Second]] = {}
        self._reader: LiveReader | None = None
        self._arm, self._before, self._shown_at = "", 0, 0.0
        self._handle: Any = None

    def file(self, block: int) -> Path:
        """Where the load generators of a block are to write; shards add their number."""
        return layout.live(self._folder, block)

    def begin(self, arm: str, files: Sequence[Path]) -> None:
        """A block of an arm begins."""
        self._reader, self._arm = LiveReader(files), arm
        self._before = len(self._arms.setdefault(arm, []))

    def update(self) -> None:
        """Show what is new, if it is time."""
        if self._reader is None or time.monotonic() - self._shown_at < _EVERY_S:
            return
        self._shown_at = time.monotonic()
        self._arms[self._arm][self._before :] = self._reader.seconds()
        picture = _Html(svg(self._arms))
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


def svg(arms: Mapping[str, Sequence[Second]]) -> str:
    """Two panels, throughput and latency, one colour an arm; p99 dashed. The last two minutes of each arm."""
    shown = {arm: seconds[-_SHOWN_S:] for arm, seconds in arms.items()}
    rates = {arm: [float(second.ok) for second in seconds] for arm, seconds in shown.items()}
    median = {arm: [second.percentile_ms(0.5) for second in seconds] for arm, seconds in shown.items()}
    p99 = {arm: [second.percentile_ms(0.99) for second in seconds] for arm, seconds in shown.items()}
    colours = dict(zip(arms, _COLOURS * (1 + len(arms)), strict=False))
    longest = max((len(seconds) for seconds in shown.values()), default=1)
    body = _panel(20, "requests/s", [(rates, "")], colours, longest)
    body += _panel(20 + _HEIGHT + _GAP, "latency, ms: p50, p99 dashed", [(median, ""), (p99, "5 3")], colours, longest)
    for i, (arm, colour) in enumerate(colours.items()):
        last = f" {rates[arm][-1]:,.0f}/s" if rates[arm] else ""
        body += f'<text x="{_WIDTH}" y="{16 + 15 * i}" fill="{colour}" text-anchor="end">{escape(arm)}{last}</text>'
    height = 2 * (_HEIGHT + _GAP) + 8
    style = 'font-family="sans-serif" font-size="12" style="background:white"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 10}" height="{height}" {style}>{body}</svg>'


def _panel(
    top: int,
    title: str,
    lines: Sequence[tuple[Mapping[str, Sequence[float]], str]],
    colours: Mapping[str, str],
    longest: int,
) -> str:
    values = [v for arms, _ in lines for line in arms.values() for v in line if not math.isnan(v)]
    most = _round_up(max(values, default=1.0))
    base, step = top + _HEIGHT, (_WIDTH - _LEFT) / max(longest - 1, 1)
    text = f'<text x="{_LEFT}" y="{top - 5}">{title}</text>'
    for share in (0, 0.5, 1):
        y = base - share * _HEIGHT
        text += f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y:g}" y2="{y:g}" stroke="#ddd"/>'
        text += f'<text x="{_LEFT - 6}" y="{y + 4:g}" text-anchor="end">{share * most:,.6g}</text>'
    for arms, dashes in lines:
        for arm, line in arms.items():
            points = " ".join(
                f"{_LEFT + i * step:.1f},{base - min(v / most, 1) * _HEIGHT:.1f}"
                for i, v in enumerate(line)
                if not math.isnan(v)
            )
            dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
            text += f'<polyline points="{points}" fill="none" stroke="{colours[arm]}" stroke-width="1.8"{dashed}/>'
    return text


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 of a decade."""
    decade = 10 ** math.floor(math.log10(max(value, 1e-6)))
    return float(next(step * decade for step in (1, 2, 5, 10) if step * decade >= value * 0.999))
