"""What all records of a run have in common, and the words that several of them use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict

from labkit.errors import BadInput
from labkit.replication import Replication

SCHEMA_VERSION = 1
"""Of run.json and the files beside it. It rises when labkits of before could not read what is written now."""

Status = Literal["started", "measured", "complete", "failed"]
STATUSES: tuple[Status, ...] = ("started", "measured", "complete", "failed")

State = Literal["running", "cut off", "complete", "failed"]
"""What has become of a run: its status says how far it came, this also whether a process still drives it."""

Verdict = Literal["true", "false", "unknown"]
VERDICT_WORDS: Mapping[Verdict, str] = {"true": "passed", "false": "failed", "unknown": "has no verdict"}
"""What is said of an audit with that verdict."""

OUTCOMES = ("ok", "fail", "unknown")
"""How a request ended for its client. unknown: the connection died, or the deadline passed, before the answer."""
WRITE_OUTCOMES = ("ok", "ok-with-warning", "fail", "unknown")
"""How a transaction ended for its writer. ok-with-warning: the server warned that the commit may be local only."""


def _replication_mode(words: str) -> str:
    """As `Replication` writes it. Raises ValueError."""
    try:
        written = str(Replication.parse(words))
    except BadInput as error:
        raise ValueError(error.reason) from error
    if written != words:
        raise ValueError(f"{words!r} is written {written!r}")
    return words


ReplicationMode = Annotated[str, AfterValidator(_replication_mode)]
"""Which replicas commits wait for: async, FIRST k or ANY k."""

# SQLSTATEs of the load generator itself, in class LK, which readers tell apart from those of servers.
DROPPED = "LK002"  # an open load's request that max_in_flight kept from being sent
WRONG_ANSWER = "LK003"
LAB_KILLED = "LK006"  # no outcome was recorded: the lab was killed first
CANNOT_CONNECT = "08001"  # libpq's, before there is a server that could say


class Record(BaseModel):
    """Facts of a run. A record does not change, and keeps what a newer labkit has added to it."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="constants")

    def changed(self, **changes: Any) -> Self:
        """The same with other facts, checked. Raises pydantic.ValidationError."""
        return self.__class__.model_validate(self.as_json() | changes)

    def as_json(self) -> dict[str, Any]:
        """What a file holds of it: what was said when it was made, by the names that files use."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
