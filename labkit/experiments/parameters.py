"""Parameters: scalars outside, parsed once into the values that an experiment works with.

Outside they are the same names and scalars in a notebook's parameter cell, as `papermill -p name value`, in a YAML
file, as `labkit run … -p name=value` and in run.json. Inside each is a value of its type, and is not parsed again:
values.py has the types of those that are more than a number or a word.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticKnownError

from labkit.documents import from_yaml
from labkit.errors import BadInput
from labkit.experiments.values import Written

_KINDS: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def param(default: Any, doc: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A parameter with its default as a scalar, its meaning and its limits; its type says the rest."""
    return Field(default, description=doc, ge=low, le=high)


class Parameters(BaseModel):
    """Base of every experiment's parameters; subclasses declare fields with `param`.

    However one is made, names, types, ranges and combinations are checked: BadInput says everything that is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Parse the scalars. Raises BadInput with everything that is wrong."""
        return cls.model_validate({str(name): value for name, value in values.items()})

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
        names = cls.model_fields.keys() & namespace.keys()
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
        return self.model_dump()

    def replace(self, **changes: Any) -> Self:
        """A validated copy."""
        return self.build(self.as_dict() | changes)

    @classmethod
    def choices(cls) -> dict[str, tuple[str, ...]]:
        """The words to choose from, by the names of the parameters that are a choice, or several."""
        return {name: words for name, field in cls.model_fields.items() if (words := _choices(field))}

    @classmethod
    def table(cls) -> list[dict[str, Any]]:
        """One row per parameter: name, default, range, meaning."""
        rows, choices = [], cls.choices()
        for name, field in cls.model_fields.items():
            limits = ", ".join(choices.get(name, ())) or " … ".join(
                "" if bound is None else f"{bound:,.10g}" for bound in _bounds(field)
            )
            rows.append(
                {
                    "name": name,
                    "default": field.default,
                    "range": limits.strip(" …") and limits,
                    "meaning": field.description,
                }
            )
        return rows

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: object, info: ValidationInfo) -> object:
        """What papermill, YAML and the command line may write for a scalar, as pydantic reads it."""
        assert info.field_name is not None
        kind = cls.model_fields[info.field_name].annotation
        if kind in _KINDS and not _may_stand_for(kind, value):
            raise PydanticKnownError("string_type")  # `_sentences` says which kind it is not
        if kind is str:
            return str(value)
        if not isinstance(value, str):
            return value
        return _number(value) if kind in (int, float) else value.strip()

    @model_validator(mode="wrap")
    @classmethod
    def _all_at_once(cls, values: Any, made: ModelWrapValidatorHandler[Self]) -> Self:
        """Say what is wrong with single values and what with their combination in one error."""
        problems: list[str] = []
        try:
            parameters = made(values)
        except ValidationError as error:
            found = error.errors(include_url=False)
            problems += [said for each in found for said in _sentences(cls.model_fields, each, values)]
            wrong = {each["loc"][0] for each in found}
            # Where a value is wrong, its default stands in for it.
            parameters = made({name: value for name, value in values.items() if name not in wrong})
        problems += parameters.conflicts()
        if problems:
            raise BadInput(problems)
        return parameters


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat mapping of parameters. Raises BadInput if the file is missing, broken or nested."""
    try:
        content = from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the parameter file {path}: {error}") from error
    except BadInput as error:
        raise BadInput([f"{path}: {problem}" for problem in error.problems]) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadInput(f"{path} must hold `name: value` lines, not a {type(content).__name__}")
    return {str(name): value for name, value in content.items()}


def assignments(pairs: tuple[str, ...] | list[str]) -> dict[str, str]:
    """`name=value` words from the command line. Raises BadInput naming every word without an `=`, and every name that
    is given twice: the last would win without a word, as it does not in YAML."""
    bad = [f"{pair!r} is not of the form name=value" for pair in pairs if "=" not in pair]
    given: dict[str, list[str]] = {}
    for pair in pairs:
        given.setdefault(pair.split("=", 1)[0], []).append(pair)
    bad += [
        f"{name!r} is given {'twice' if len(same) == 2 else f'{len(same)} times'}: {', '.join(same)}"
        for name, same in given.items()
        if len(same) > 1 and all("=" in pair for pair in same)
    ]
    if bad:
        raise BadInput(bad)
    return dict(pair.split("=", 1) for pair in pairs)


def _may_stand_for(kind: Any, value: object) -> bool:
    """A text, or what is itself a truth value or a number: 1 is not true, and bytes are no text."""
    return isinstance(value, str) or (isinstance(value, int | float) and isinstance(value, bool) == (kind is bool))


def _number(text: str) -> int | float | str:
    """1_000, 1e6 and 3.0 are whole numbers too; what is no number is for pydantic to refuse."""
    plain = text.replace("_", "")
    try:
        return int(plain)
    except ValueError:
        pass
    try:
        number = float(plain)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def _sentences(fields: Mapping[str, FieldInfo], error: ErrorDetails, values: Mapping[str, Any]) -> list[str]:
    """What pydantic found wrong in one place, beginning with the parameter's name."""
    name, *place = map(str, error["loc"])
    if error["type"] == "extra_forbidden":
        return [f"unknown parameter {name!r}{_did_you_mean(name, fields)}"]
    own = error.get("ctx", {}).get("error")
    if isinstance(own, ValueError):
        return [f"{name}: {problem}" for problem in own.args]
    field, value = (_item(fields[name]), error["input"]) if place else (fields[name], values[name])
    if choices := _choices(fields[name]):
        # papermill's files are read by YAML 1.1, labkit's own are not.
        quote = "; YAML takes on and off for truth values: quote them" if {"on", "off"} & {*choices} else ""
        is_truth = str(value) in ("True", "False")
        return [f"{name}: {value!r} is not among {', '.join(choices)}{quote if is_truth else ''}"]
    if error["type"] in ("greater_than_equal", "less_than_equal"):
        low, high = _bounds(field)
        bounds = f"at least {low:,.10g}" if high is None else f"between {low:,.10g} and {high:,.10g}"
        return [f"{name}: {value} is out of range, it must be {bounds}"]
    if error["type"] == "too_short":
        return [f"{name}: {value!r} names nothing"]
    return [f"{name}: {value!r} is not {_KINDS[field.annotation]}"]


def _item(field: FieldInfo) -> FieldInfo:
    """Each of the several values that a parameter has; else the parameter itself."""
    if get_origin(field.annotation) is not tuple:
        return field
    return FieldInfo.from_annotation(get_args(field.annotation)[0])


def _choices(field: FieldInfo) -> tuple[str, ...]:
    """The words that a value may be; none if it is not a choice."""
    item = _item(field)
    if get_origin(item.annotation) is Literal:
        return get_args(item.annotation)
    return next((each.choices for each in item.metadata if isinstance(each, Written)), ())


def _bounds(field: FieldInfo) -> tuple[Any, Any]:
    """The lowest and the highest that a value may be, None if there is none."""
    low, high = (
        next((getattr(each, name) for each in field.metadata if hasattr(each, name)), None) for name in ("ge", "le")
    )
    return low, high


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
