"""What a parameter that is written as text stands for: read once, and written again as it was. A field's type says it.

`level: Level` is one of the words of a Literal. `fault: Annotated[Fault, one_of(*FAULTS)]` is one of some values, each
written as its `str`. `mode: Annotated[Replication, Written(Replication.parse)]` is whatever `parse` makes of the text.
`levels: Several[Level]` is a tuple of any of these, written with commas.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, PlainSerializer
from pydantic_core import core_schema

from labkit.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """How a value is written as text: `parse` reads it and may raise BadInput. `choices` are all texts there are."""

    parse: Callable[[str], Any]
    write: Callable[[Any], str] = str
    choices: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        del source, handler  # whatever the value is, it is made here

        def read(value: object) -> Any:
            try:
                return self.parse(value if isinstance(value, str) else self.write(value))
            except BadInput as error:
                raise ValueError(*error.problems) from error

        writing = core_schema.plain_serializer_function_ser_schema(self.write)
        return core_schema.no_info_plain_validator_function(read, serialization=writing)


def one_of(*values: object) -> Written:
    """One of these, by its `str`."""
    known = {str(value): value for value in values}

    def parse(text: str) -> object:
        # The original report calls the primary `master`.
        word = re.sub(r"\bmaster\b", "primary", text)
        if word not in known:
            raise BadInput(f"{text!r} is not among {', '.join(known)}")
        return known[word]

    return Written(parse, choices=tuple(known))


def items(text: str) -> list[str]:
    """The parts of a text with commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


def joined(values: object) -> str:
    """Values in one text, with commas."""
    return ",".join(map(str, values)) if isinstance(values, tuple | list) else str(values)


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"{joined(values)!r} names one thing twice")
    return values


Several = Annotated[
    tuple[T, ...],
    BeforeValidator(lambda value: items(joined(value))),
    Field(min_length=1),
    AfterValidator(_distinct),
    PlainSerializer(joined),
]
"""At least one value, and none twice."""
