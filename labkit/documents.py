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
    """What a YAML text holds, as plain values. Raises yaml.YAMLError, and BadInput for a key that is given twice."""
    return yaml.load(text, _Loader)
