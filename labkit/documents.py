"""YAML that people write by hand."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

from labkit.errors import BadInput

_TRUTH = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """A key that is given twice in one mapping is a mistake; YAML's own loader would take the last one.

    `on`, `off`, `yes` and `no` are words, as in YAML 1.2: PostgreSQL has settings of these names. Where a truth value
    is wanted, the parameter reads them as one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            key: Hashable = key_node.value if isinstance(key_node, yaml.ScalarNode) else id(key_node)
            line = key_node.start_mark.line + 1
            if key in lines:
                where = f"line {line}" if lines[key] == line else f"lines {lines[key]} and {line}"
                raise BadInput(f"{key!r} is given twice, in {where}")
            lines[key] = line
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != _TRUTH or first in "tTfF"]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def from_yaml(text: str) -> Any:
    """What a YAML text holds, as plain values. Raises BadInput, which says where it is no YAML, or a key comes twice.

    It does not say in which file: that is for those who know it.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        found, context = error.problem_mark or error.context_mark, f"{error.context}, " if error.context else ""
        where = f" in line {found.line + 1}, column {found.column + 1}" if found else ""
        raise BadInput(f"not valid YAML: {context}{error.problem}{where}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadInput(f"not valid YAML: {error.reason} (#x{error.character:04x}) in line {line}") from error
    except ValueError as error:  # of a date that is none, such as 2026-13-01
        raise BadInput(f"not valid YAML: {error}") from error
