"""Reading run.json and events.jsonl: what is wrong with a damaged one, by file and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from labkit import files
from labkit.errors import RunUnreadable
from labkit.remedies import Remedy, advice
from labkit.run import digests
from labkit.run.kinds import event_of
from labkit.run.schema import SCHEMA_VERSION, Event, RunRecord, Summary, record_of

P = TypeVar("P", bool, int, float, str)

_MOST_PROBLEMS = 3
_LONGEST = 60


def record(file: Path) -> RunRecord[Any]:
    """The record in run.json. Raises RunUnreadable, also if it was written by a newer labkit, RunDamaged if it was
    changed since."""
    content = _content(file)
    known = _object(content, str(file))
    schema, experiment = known.get("schema"), known.get("experiment")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        reason = f"{file} has schema {schema}, this labkit reads up to {SCHEMA_VERSION}"
        raise RunUnreadable(reason, remedy=advice("update labkit"))
    kind = record_of(experiment if isinstance(experiment, str) else "")
    try:
        found = kind.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise RunUnreadable(f"{file} cannot be read as a run: {problems(error)}") from error
    if found.seal is not None and found.seal != digests.of_record(content):
        raise digests.damaged(file, digests.OTHER)
    return found


def parameter(file: Path, known: RunRecord[Any], name: str, kind: type[P]) -> P:
    """A parameter in run.json. Raises RunUnreadable if it is not there, or of another type."""
    where = f"{file} cannot be read as a run"
    if name not in known.parameters:
        raise RunUnreadable(f"{where}: parameters.{name} is missing")
    try:
        return TypeAdapter(kind).validate_python(known.parameters[name], strict=True)
    except ValidationError as error:
        (found,) = error.errors(include_url=False)
        raise RunUnreadable(f"{where}: {_problem(found, 'parameters', name)}") from error


def events(file: Path) -> list[Event]:
    """The events in events.jsonl, in order; none if there is no such file. Raises RunUnreadable.

    A last line that was cut off is left out: that is what a crash leaves, and `is_torn` says so.
    """
    lines, _ = _lines(file)
    return [_event(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1)]


def is_torn(file: Path) -> bool:
    """Whether the last line of events.jsonl was cut off. Raises RunUnreadable."""
    return bool(_lines(file)[1])


def mend(file: Path) -> None:
    """Remove what is left of a last line, so that the next event begins a line of its own. Raises RunUnreadable."""
    lines, _ = _lines(file)
    whole = b"".join(line + b"\n" for line in lines)
    if file.exists() and whole != _content(file):
        files.replace(file, whole)


def _lines(file: Path) -> tuple[list[bytes], bytes]:
    """The whole lines of a file, none if there is no such file; and what is left of a last one that was cut off."""
    content = _content(file) if file.exists() else b""
    whole, newline, rest = content.rpartition(b"\n")
    lines = (whole + newline).splitlines()
    try:
        from_json(rest)
    except ValueError:
        return lines, rest
    return [*lines, rest], b""  # only its newline is missing: an object of JSON that was cut off ends nowhere


def summary(file: Path) -> Summary | None:
    """The summary in a file; None if there is no such file. Raises RunUnreadable."""
    if not file.exists():
        return None
    content = _content(file)
    _object(content, str(file))
    try:
        return Summary.model_validate_json(content, strict=True)
    except ValidationError as error:
        helps = Remedy("report", "makes it again", run=str(file.parents[1]))
        raise RunUnreadable(f"{file} cannot be read: {problems(error)}", remedy=helps) from error


def problems(error: ValidationError) -> str:
    """What is wrong with which field, in words; the first few."""
    found = error.errors(include_url=False)
    said = "; ".join(_problem(each) for each in found[:_MOST_PROBLEMS])
    return said + (f"; and {len(found) - _MOST_PROBLEMS} more" if len(found) > _MOST_PROBLEMS else "")


def _problem(found: ErrorDetails, *within: str) -> str:
    field = ".".join(str(part) for part in (*within, *found["loc"]))
    if found["type"] == "missing":
        return f"{field} is missing"
    if found["type"] == "value_error":
        return f"{field}: {found['ctx']['error']}"
    shown = repr(found["input"])
    shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
    return f"{field} {found['msg'].removeprefix('Input ')}, not {shown}"


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise RunUnreadable(f"{file} cannot be read: {error.strerror}") from error


def _object(content: bytes, where: str) -> dict[str, Any]:
    try:
        known = from_json(content)
    except ValueError as error:
        raise RunUnreadable(f"{where} is not JSON, it was cut off or overwritten: {error}") from error
    if not isinstance(known, dict):
        raise RunUnreadable(f"{where} is not an object of JSON")
    return known


def _event(line: bytes, where: str) -> Event:
    known = _object(line, where)
    kind = known.get("kind")
    try:
        found = event_of(kind if isinstance(kind, str) else "").model_validate_json(line, strict=True)
    except ValidationError as error:
        raise RunUnreadable(f"{where} cannot be read as an event: {problems(error)}") from error
    if missing := {"kind", "t_ns"} - found.model_fields_set:
        raise RunUnreadable(f"{where} cannot be read as an event: {', '.join(sorted(missing))} is missing")
    return found
