"""Numbers in words, for both sides: measures, bytes, and things that are counted. Pure."""

from __future__ import annotations

import math

MIB = 2**20
GIB = 2**30
UNKNOWN = "–"


def number(value: float | None) -> str:
    """What was measured: three significant digits, thousands apart, a real minus sign; a dash for what is unknown."""
    if value is None or math.isnan(value):
        return UNKNOWN
    size = abs(value)
    shown = float(f"{size:.3g}")  # 0.9997 has the digits of 1.00
    digits = 0 if shown >= 100 or size == int(size) else 1 if shown >= 10 else 2 if shown >= 1 else 3
    return f"{value:,.{digits}f}".replace("-", "−")


def amount(value: float) -> str:
    """What was counted, or the median of counts: `1`, `1,719`, `6.5`."""
    return f"{value:,.1f}".removesuffix(".0")


def count(value: float, one: str, many: str = "") -> str:
    """So many of something: `1 row`, `1,719 rows`, `6.5 rows`. `many` where it is not `one` with an s."""
    number = amount(value)
    return f"{number} {one if number == '1' else many or f'{one}s'}"


def gib(size: float) -> str:
    """Bytes in words, `7.8 GiB`."""
    return f"{size / GIB:.1f} GiB"
