"""Parameters: declared once as frozen dataclasses, loaded, overridden and validated all at once.

An experiment's parameters are scalars, so that the same names and values work as a notebook's parameter cell,
as `papermill -p name value`, as a YAML file and as `labkit run … -p name=value`.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from labkit.errors import BadInput

_BOOLEANS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


def param(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    many: bool = False,
) -> Any:
    """A parameter with its meaning and its limits. `many`: a comma-separated list of `choices`."""
    return dataclasses.field(
        default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices, "many": many}
    )


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Base of every experiment's parameters; subclasses declare fields with `param`."""

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Check names, types, ranges and combinations. Raises BadInput with everything that is wrong."""
        fields = {f.name: f for f in dataclasses.fields(cls)}
        problems: list[str] = []
        good: dict[str, Any] = {}
        for name, value in values.items():
            if name not in fields:
                problems.append(f"unknown parameter {name!r}{_did_you_mean(name, fields)}")
                continue
            try:
                good[name] = _converted(fields[name], value)
            except ValueError as error:
                problems.append(f"{name}: {error}")
        made = cls(**good)
        problems += made.conflicts()
        if problems:
            raise BadInput(problems)
        return made

    @classmethod
    def load(cls, path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Self:
        """Defaults, then a flat YAML file, then `overrides`; the later wins."""
        values: dict[str, Any] = {}
        if path is not None:
            values |= read_yaml(path)
        return cls.build(values | dict(overrides or {}))

    @classmethod
    def from_notebook(cls, namespace: Mapping[str, Any]) -> Self:
        """The parameters as a notebook's cells have set them; pass `globals()`.

        papermill only warns about a parameter that the notebook does not have: it would be ignored without a
        word in the result. The cell that papermill injects is read back here, so that a misspelt name is an error.
        """
        names = {f.name for f in dataclasses.fields(cls)} & namespace.keys()
        for cell in namespace.get("In", ()):
            if isinstance(cell, str) and cell.startswith("# Parameters"):
                names |= {
                    target.id
                    for statement in ast.parse(cell).body
                    if isinstance(statement, ast.Assign)
                    for target in statement.targets
                    if isinstance(target, ast.Name)
                }
        return cls.build({name: namespace[name] for name in sorted(names)})

    def conflicts(self) -> list[str]:
        """Combinations that cannot work, one sentence each; called on values that are in range themselves."""
        return []

    def as_dict(self) -> dict[str, Any]:
        """Plain scalars, in declaration order: what run.json keeps."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> Self:
        """A validated copy."""
        return self.build(self.as_dict() | changes)

    @classmethod
    def table(cls) -> list[dict[str, Any]]:
        """One row a parameter: name, default, range, meaning."""
        rows = []
        for f in dataclasses.fields(cls):
            m = f.metadata
            limits = ", ".join(m["choices"]) or " … ".join(
                "" if bound is None else f"{bound:,.10g}" for bound in (m["low"], m["high"])
            )
            rows.append(
                {
                    "name": f.name,
                    "default": f.default,
                    "range": limits.strip(" …") and limits,
                    "meaning": m["doc"],
                }
            )
        return rows


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat mapping of parameters. Raises BadInput if the file is missing, broken or nested."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the parameter file {path}: {error}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadInput(f"{path} must hold `name: value` lines, not a {type(content).__name__}")
    return {str(name): value for name, value in content.items()}


def assignments(pairs: tuple[str, ...] | list[str]) -> dict[str, str]:
    """`name=value` words from the command line. Raises BadInput naming every word without an `=`."""
    bad = [f"{pair!r} is not of the form name=value" for pair in pairs if "=" not in pair]
    if bad:
        raise BadInput(bad)
    return dict(pair.split("=", 1) for pair in pairs)


def as_list(value: str) -> list[str]:
    """The items of a comma-separated parameter."""
    return [item.strip() for item in value.split(",") if item.strip()]


def as_stages(text: str) -> tuple[tuple[float, float], ...]:
    """The (value, seconds) pairs of a `stages` parameter. Raises BadInput with everything that is wrong."""
    stages, problems = [], []
    for i, item in enumerate(as_list(text), 1):
        value, _, seconds = item.partition(":")
        try:
            stages.append((_to_kind(float, value), _to_kind(float, seconds)))
        except ValueError:
            problems.append(f"stage {i}: {item!r} is not of the form value:seconds")
            continue
        if stages[-1][0] < 0:
            problems.append(f"stage {i}: {value} is below 0")
        if stages[-1][1] < 0:
            problems.append(f"stage {i}: {seconds} s goes back in time")
    if problems:
        raise BadInput(problems)
    return tuple(stages)


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"


def _converted(field: dataclasses.Field[Any], value: Any) -> Any:
    kind, meta = type(field.default), field.metadata
    converted = _to_kind(kind, value)
    if meta["choices"]:
        items = as_list(converted) if meta["many"] else [converted]
        # The original report calls the primary `master`.
        items = [re.sub(r"\bmaster\b", "primary", item) for item in items]
        unknown = [item for item in items if item not in meta["choices"]]
        if unknown or not items:
            raise ValueError(f"{value!r} is not among {', '.join(meta['choices'])}")
        if len(set(items)) < len(items):
            raise ValueError(f"{value!r} names one thing twice")
        return ",".join(items)
    if kind in (int, float):
        low, high = meta["low"], meta["high"]
        if (low is not None and converted < low) or (high is not None and converted > high):
            bounds = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
            raise ValueError(f"{value} is out of range, it must be {bounds}")
    return converted


def _to_kind(kind: type, value: Any) -> Any:
    wrong = ValueError(f"{value!r} is not {_KIND_NAMES[kind]}")
    if kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
            return _BOOLEANS[value.strip().lower()]
        raise wrong
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise wrong
    if kind is str:
        return str(value)
    try:
        number = float(str(value).replace("_", ""))
    except ValueError:
        raise wrong from None
    if not math.isfinite(number) or (kind is int and number != int(number)):
        raise wrong
    return kind(number)


_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
