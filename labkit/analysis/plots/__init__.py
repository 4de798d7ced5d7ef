"""Figures: pure functions of a frame and an Axes, and the sheets that lay them next to each other.

    beside(frame, panels, missing)      panels for each workload, the arms next to each other on one y axis
    headline(rounds, reference)         throughput with intervals, beside the original report's
    differences(frame, original)        relative differences with intervals

A sheet shows itself as SVG in a notebook; `sheet.savefig("x.png", dpi=200)` works as on any matplotlib figure.
Nothing here touches pyplot or changes matplotlib's settings for others.
"""

from labkit.analysis.plots.grid import Panel, beside
from labkit.analysis.plots.panels import (
    ACQUIRE,
    ACTIVE,
    CACHED,
    CONNECTIONS,
    CPU,
    CPU_OF_LIMIT,
    ECDF,
    ERRORS,
    HOST_CACHED,
    HOST_CPU,
    HOST_MEMORY,
    HOST_RECEIVED,
    HOST_SENT,
    LAG_BYTES,
    LAG_S,
    LATENCY,
    LOAD,
    MEMORY,
    READ,
    RECEIVED,
    SENT,
    SERVICE,
    THROTTLED,
    THROUGHPUT,
    WRITTEN,
)
from labkit.analysis.plots.style import Sheet
from labkit.analysis.plots.summary import differences, headline

__all__ = [
    "ACQUIRE",
    "ACTIVE",
    "CACHED",
    "CONNECTIONS",
    "CPU",
    "CPU_OF_LIMIT",
    "ECDF",
    "ERRORS",
    "HOST_CACHED",
    "HOST_CPU",
    "HOST_MEMORY",
    "HOST_RECEIVED",
    "HOST_SENT",
    "LAG_BYTES",
    "LAG_S",
    "LATENCY",
    "LOAD",
    "MEMORY",
    "READ",
    "RECEIVED",
    "SENT",
    "SERVICE",
    "THROTTLED",
    "THROUGHPUT",
    "WRITTEN",
    "Panel",
    "Sheet",
    "beside",
    "differences",
    "headline",
]
