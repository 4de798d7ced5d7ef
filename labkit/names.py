"""The names of arms and workloads, as parameters take them and runs record them: once, for both sides. Pure."""

from __future__ import annotations

from typing import Final, Literal

PRIMARY_ONLY: Final = "primary-only"
REPLICAS: Final = "replicas-round-robin"
ALL_NODES: Final = "all-nodes-round-robin"
PRIMARY_ONLY_MORE: Final = "primary-only-more-connections"
REPLICAS_MORE: Final = "replicas-round-robin-more-connections"

GET_USER: Final = "get-user"
GET_USER_BY_NUMBER: Final = "get-user-by-number"
SEARCH_USERS: Final = "search-users"
APPEND_ROWS: Final = "append-rows"

ReadWorkload = Literal["get-user", "search-users"]
"""Those that an experiment on reads may be asked for."""


def some_replicas(count: int) -> str:
    """The arm of the first so many replicas."""
    return f"{REPLICAS}-{count}"
