"""Names of clusters, which become names of folders."""

from __future__ import annotations


def problems(name: str) -> list[str]:
    """What is wrong with a cluster's name; empty if nothing is."""
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or not name[0].isalnum():
        return [f"{name!r} must be made of letters, digits, - and _, and begin with a letter or digit"]
    return [f"{name!r} is longer than 40 characters"] if len(name) > 40 else []
