"""LSNs: positions in the WAL as integers (bytes since the cluster began), and PostgreSQL's own spelling of them. Pure.

As integers they can be compared and subtracted.
"""

from __future__ import annotations


def parse_lsn(text: str) -> int:
    """The integer behind `16/B374D848`. Raises ValueError if the text is no LSN."""
    high, low = text.split("/")
    return (int(high, 16) << 32) | int(low, 16)


def lsn_text(lsn: int) -> str:
    """PostgreSQL's spelling of an LSN, `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
