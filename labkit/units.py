"""Amounts of bytes, for both sides: the unit of tables and figures, and what sentences say. Pure."""

from __future__ import annotations

MIB = 2**20
GIB = 2**30


def gib(size: float) -> str:
    """Bytes in words, `7.8 GiB`."""
    return f"{size / GIB:.1f} GiB"
