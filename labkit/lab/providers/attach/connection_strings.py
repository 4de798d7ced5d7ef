"""$LABKIT_ATTACH: which servers exist already, as connection strings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from labkit.documents import from_yaml
from labkit.errors import BadInput
from labkit.remedies import setting

VARIABLE = "LABKIT_ATTACH"
_URI, _YAML = ("postgresql://", "postgres://"), (".yaml", ".yml")


def connection_strings(environment: Mapping[str, str]) -> dict[str, str]:
    """Node name -> connection string. Raises BadInput with everything that is wrong; never shows a password."""
    given = environment.get(VARIABLE, "").strip()
    if not given:
        to = (
            "their connection strings, such as 'postgresql://user@host1/labkit postgresql://user@host2/labkit', or to "
            "a YAML file that lists them"
        )
        raise BadInput("no servers to attach", remedy=setting(VARIABLE, to))
    listed: Any = _from_file(Path(given).expanduser()) if given.endswith(_YAML) else given.split()
    if not given.endswith(_YAML) and not all(word.startswith(_URI) for word in listed):
        # A blank also stands between the keywords of one connection string.
        raise BadInput(
            f"{VARIABLE} takes URIs with blanks between them, such as postgresql://user@host1/labkit, or the path of a "
            "YAML file (its name ends in .yaml), which may hold connection strings of any form"
        )
    named = listed if isinstance(listed, dict) else {f"pg{i + 1}": dsn for i, dsn in enumerate(listed)}
    problems = [problem for name, dsn in named.items() if (problem := _problem(str(name), dsn))]
    if not problems:
        problems = _named_twice(named)
    if problems:
        raise BadInput(problems, subject=VARIABLE)
    return {str(name): str(dsn) for name, dsn in named.items()}


def _named_twice(named: Mapping[Any, str]) -> list[str]:
    names: dict[tuple[str, str], list[str]] = {}
    for name, dsn in named.items():
        keywords = conninfo_to_dict(dsn)
        place = str(keywords.get("host") or "localhost"), str(keywords.get("port") or 5432)
        names.setdefault(place, []).append(str(name))
    return [
        f"{' and '.join(same)} are one server, {host}:{port}; name each once"
        for (host, port), same in names.items()
        if len(same) > 1
    ]


def _from_file(path: Path) -> list[Any] | dict[Any, Any]:
    try:
        content = from_yaml(path.read_text(encoding="utf-8"))
    except BadInput as error:
        raise BadInput([f"{VARIABLE}: {path}: {problem}" for problem in error.problems]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{VARIABLE}: {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, list | dict) or not content:
        raise BadInput(f"{VARIABLE}: {path} must hold a list of connection strings, or `name: connection string` lines")
    return content


def _problem(name: str, dsn: object) -> str | None:
    if not isinstance(dsn, str):
        return f"{name}: a connection string is a text, not a {type(dsn).__name__}"
    try:
        keywords = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # The words of libpq quote the string, and with it a password.
        return f"{name}: not a connection string; postgresql://user@host:port/database is one"
    if "," in str(keywords.get("host") or ""):
        return f"{name}: names several hosts; one connection string is one server"
    if not str(keywords.get("port") or "5432").isdigit():
        return f"{name}: its port is not a number"
    return None
