"""What a container may use: limits as the environment names them, against what an engine can give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from labkit.errors import BadInput
from labkit.units import GIB, MIB

CPUS, MEMORY = "LABKIT_NODE_CPUS", "LABKIT_NODE_MEMORY"
LEAST_CPUS = 0.01
LEAST_MEMORY_BYTES = 128 * MIB
"""With less a server is killed while it is being made."""
_UNITS = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "m": MIB, "mb": MIB, "g": GIB, "gb": GIB}


@dataclass(frozen=True)
class Capacity:
    """What an engine's machine has, and whether its kernel can limit it."""

    cpus: int
    memory_bytes: int
    limits_cpus: bool = True
    limits_memory: bool = True


def check(environment: Mapping[str, str], capacity: Capacity) -> None:
    """Refuse limits that the engine cannot give. Raises BadInput with everything that is wrong."""
    found = [
        _cpu_problem(environment.get(CPUS, ""), capacity),
        _memory_problem(environment.get(MEMORY, ""), capacity),
    ]
    if problems := [problem for problem in found if problem]:
        raise BadInput(problems, subject="limits")


def memory_bytes(text: str) -> int:
    """The bytes behind `512m`, `1g` or `1073741824`. Raises ValueError if it is no amount of memory."""
    number = text.strip().rstrip("bkmgBKMG")
    unit = text.strip()[len(number) :].lower()
    if unit not in _UNITS:
        raise ValueError(f"{text!r} has no unit that is known")
    return int(float(number) * _UNITS[unit])


def _cpu_problem(text: str, capacity: Capacity) -> str | None:
    if not text:
        return None
    try:
        cpus = float(text)
    except ValueError:
        return f"{CPUS}: {text!r} is not a number of CPUs, such as 0.25"
    if cpus == 0:
        return None
    if not LEAST_CPUS <= cpus <= capacity.cpus:
        return f"{CPUS}: {text} is out of range, the engine can give a node between {LEAST_CPUS} and {capacity.cpus}"
    return None if capacity.limits_cpus else f"{CPUS}: the engine's kernel cannot limit CPU (CFS quota); unset it"


def _memory_problem(text: str, capacity: Capacity) -> str | None:
    if not text:
        return None
    try:
        wanted = memory_bytes(text)
    except (ValueError, OverflowError):
        return f"{MEMORY}: {text!r} is not an amount of memory, such as 512m or 1g"
    if wanted == 0:
        return None
    if not LEAST_MEMORY_BYTES <= wanted <= capacity.memory_bytes:
        most = capacity.memory_bytes // MIB
        return f"{MEMORY}: {text} is out of range, a node can have between {LEAST_MEMORY_BYTES // MIB}m and {most}m"
    return None if capacity.limits_memory else f"{MEMORY}: the engine's kernel cannot limit memory; unset it"
