"""Every panel of the read-scaling report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from labkit.analysis.plots.grid import Draw, Panel
from labkit.analysis.plots.style import PLAIN, arm_colour, counts, logarithmic, node_style
from labkit.analysis.words import number
from labkit.units import MIB

_TIME = "measured time, s"
_QUANTILES = {"p50_ms": ("p50", "-"), "p90_ms": ("p90", "--"), "p99_ms": ("p99", ":")}


_MOST_MARKED = 400
"""Of more points a line shows none: they would run together, and are most of what a page weighs."""


def _over_time(frame: Any, ax: Axes, column: str, label: str | None = None, **style: Any) -> None:
    """One line, broken where one round ends and the next begins: between them the other arm had its turn."""
    broken = []
    for _, part in frame.groupby("round", sort=False):
        broken += [part[["second", column]], pd.DataFrame({"second": [np.nan], column: [np.nan]})]
    line = pd.concat(broken[:-1])
    lonely = len(frame) == frame["round"].nunique()
    marker = "." if len(frame) <= _MOST_MARKED else ""
    ax.plot(line["second"], line[column], marker=marker, markersize=8 if lonely else 3, label=label, **style)


def _dressed(frame: pd.DataFrame, ax: Axes, label: str) -> Axes:
    """Axis labels, zero as the lowest value, and a faint line between rounds."""
    span = frame.groupby("round", sort=False)["second"].agg(["min", "max"]).sort_values("min")
    for end, begin in zip(span["max"].iloc[:-1], span["min"].iloc[1:], strict=True):
        ax.axvline((end + begin) / 2, color="#c4c4c4", linewidth=0.7, zorder=0.5)
    ax.set_xlabel(_TIME)
    ax.set_ylabel(label)
    # Axes that share a scale are drawn one after the other: each takes in what is there already.
    ax.set_xlim(0, _farthest(other.dataLim.x1 for other in ax.get_shared_x_axes().get_siblings(ax)) * 1.02)
    ax.set_ylim(0, _farthest(other.dataLim.y1 for other in ax.get_shared_y_axes().get_siblings(ax)) * 1.08)
    return ax


def _farthest(limits: Iterable[float]) -> float:
    """The largest limit of axes that hold data; 1 where there is nothing but zeros, or nothing at all."""
    return max((limit for limit in limits if np.isfinite(limit)), default=0.0) or 1.0


def throughput(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Right answers a second. `frame`: rows of `per_second` of one workload and arm."""
    _over_time(frame, ax, "requests_per_s", color=arm_colour(frame["arm"].iloc[0]))
    ax.yaxis.set_major_formatter(counts())
    return _dressed(frame, ax, "requests/s")


def errors(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Errors per minute. `frame`: rows of `per_second` of one workload and arm."""
    _over_time(frame, ax, "errors_per_minute", color=arm_colour(frame["arm"].iloc[0]))
    return _dressed(frame, ax, "errors/min")


def _quantiles(prefix: str, label: str) -> Draw:
    def draw(frame: pd.DataFrame, ax: Axes) -> Axes:
        for column, (name, dashes) in _QUANTILES.items():
            colour = arm_colour(frame["arm"].iloc[0])
            _over_time(frame, ax, prefix + column, name, color=colour, linestyle=dashes)
        return _dressed(frame, ax, label)

    return draw


def ecdf(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Share of requests that took at most so long. `frame`: rows of `ecdf` of one workload and arm."""
    colour = arm_colour(frame["arm"].iloc[0])
    # A handful of very fast requests would squeeze all others into a corner: the curve begins at 0.2 %.
    frame = frame[frame["share"] >= 0.002]
    ax.plot(frame["latency_ms"], frame["share"], color=colour)
    marks = [float(frame.loc[np.isclose(frame["share"], q), "latency_ms"].iloc[0]) for q in (0.5, 0.99)]
    ax.plot(marks, [0.5, 0.99], "o", color=colour, markersize=5)
    # In a narrow panel no place beside the curve is surely free.
    words = "\n".join(f"p{q} {number(value)} ms" for q, value in zip((50, 99), marks, strict=True))
    ax.set_title(f"{ax.get_title()}\n{words}".strip(), color=colour)
    drawn = [other.dataLim for other in ax.get_shared_x_axes().get_siblings(ax) if other.has_data()]
    decades = np.log10(max(limits.x1 for limits in drawn) / min(limits.x0 for limits in drawn))
    spec = ax.get_subplotspec()
    narrow = spec is not None and spec.get_gridspec().ncols > 2
    logarithmic(ax, "x", PLAIN, (1,) if decades >= (1 if narrow else 2) else (1, 2, 5))
    ax.set_xlabel("latency, ms (log)" if narrow else "latency, ms (logarithmic)")
    ax.set_ylabel("share of requests")
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylim(0, 1.03)
    return ax


def _by(key: str, unit: str, *, scale: float = 1.0, short: Callable[[str], str] = str) -> Draw:
    """A line for each node (or each metric), metrics of one node and moment added up where lines are nodes."""

    def draw(frame: pd.DataFrame, ax: Axes) -> Axes:
        # Gauges of one sample have one time: adding them up by time adds what belongs together.
        values = frame.groupby(["round", key, "second"], sort=False, as_index=False)["value"].sum()
        values["value"] /= scale
        for i, (name, line) in enumerate(sorted(values.groupby(key), key=lambda item: _order(str(item[0])))):
            style = node_style(str(name)) if key == "node" else node_style(f"pg{i + 1}")
            _over_time(line, ax, "value", short(str(name)), **style)
        return _dressed(frame, ax, unit)

    return draw


def _order(name: str) -> tuple[int, int, str]:
    return (name in ("host", "generator", "lab", "kernel", "docker-proxy"), len(name), name)


_CONNECTIONS = tuple(f"connections_{state}" for state in ("active", "idle", "idle_in_transaction", "other"))


def _panel(title: str, metric: str | tuple[str, ...], unit: str, nodes: str = "", scale: float = 1.0) -> Panel:
    return Panel(title, _by("node", unit, scale=scale), (metric,) if isinstance(metric, str) else metric, nodes)


THROUGHPUT = Panel("throughput", throughput)
ERRORS = Panel("errors per minute", errors)
LATENCY = Panel("latency", _quantiles("", "latency, ms"))
ACQUIRE = Panel("waiting for a connection", _quantiles("wait_", "wait, ms"))
SERVICE = Panel("latency without that wait", _quantiles("service_", "service time, ms"))
ECDF = Panel("distribution of latency", ecdf)
CONNECTIONS = _panel("open connections", _CONNECTIONS, "connections", "servers")
ACTIVE = _panel("connections running a query", "connections_active", "connections", "servers")
CPU = _panel("CPU of servers, load generator and lab", "cpu_percent", "% of one core", "servers")
CPU_OF_LIMIT = _panel("CPU of the servers, of their limit", "cpu_percent_of_limit", "% of limit", "servers")
HOST_CPU = _panel("CPU of the host", "cpu_percent", "% of all cores", "host")
THROTTLED = _panel("time a CPU limit kept a server waiting", "throttled_percent", "% of time", "servers")
MEMORY = _panel("memory", "memory_bytes", "MiB", "servers", MIB)
HOST_MEMORY = _panel("memory in use on the host", "memory_used_bytes", "MiB", "host", MIB)
CACHED = _panel("cached memory of the servers", "cached_bytes", "MiB", "servers", MIB)
HOST_CACHED = _panel("cached memory of the host", "cached_bytes", "MiB", "host", MIB)
READ = _panel("data read from storage", "read_bytes_per_s", "MiB/s", "servers", MIB)
WRITTEN = _panel("data written to storage", "written_bytes_per_s", "MiB/s", "servers", MIB)
RECEIVED = _panel("network received by the servers", "received_bytes_per_s", "MiB/s", "servers", MIB)
SENT = _panel("network sent by the servers", "sent_bytes_per_s", "MiB/s", "servers", MIB)
HOST_RECEIVED = _panel("network received by the host", "received_bytes_per_s", "MiB/s", "host", MIB)
HOST_SENT = _panel("network sent by the host", "sent_bytes_per_s", "MiB/s", "host", MIB)
LAG_BYTES = _panel("replication lag", "lag_bytes", "KiB of WAL", "servers", 1024)
LAG_S = _panel("replication lag in time", "lag_s", "s", "servers")
LOAD = Panel(
    "load average of the host",
    _by("metric", "runnable tasks", short={"load1": "1 min", "load5": "5 min", "load15": "15 min"}.__getitem__),
    ("load1", "load5", "load15"),
    "host",
)
