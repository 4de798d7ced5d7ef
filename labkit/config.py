"""Parameters: declared once as frozen dataclasses, loaded, overridden and validated all at once.

An experiment's parameters are scalars, so that the same names and values work as a notebook's parameter cell,
as `papermill -p name value`, as a YAML file and as `labkit run … -p name=value`.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from labkit.errors import BadInput

ARMS = ("primary-only", "replicas-round-robin")
PROVIDERS = ("embedded", "docker", "attach")
WORKLOADS = ("get-user", "search-users")
LOCALES = ("en_US", "ru_RU", "de_DE", "fr_FR", "es_ES", "pl_PL", "uk_UA", "pt_BR", "it_IT", "cs_CZ")
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
        items = [item.replace("master", "primary") for item in items]
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


@dataclasses.dataclass(frozen=True)
class ReadScaling(Parameters):
    """Read load against the primary only and against the replicas, in interleaved rounds."""

    run_id: str = param("", "a recorded run to read instead of driving a new one; empty drives")
    provider: str = param("embedded", "where the servers come from", choices=PROVIDERS)
    cluster: str = param("lab", "name of the cluster; it is found again if it exists")
    replicas: int = param(2, "streaming replicas beside the primary", low=0, high=8)
    users: int = param(1_000_000, "rows of the users table", low=100, high=100_000_000)
    locale: str = param("en_US", "language of the names", choices=LOCALES)
    seed: int = param(20230604, "seed of the dataset and of every random choice", low=0, high=2**31 - 1)
    workloads: str = param("get-user,search-users", "which loads to run", choices=WORKLOADS, many=True)
    arms: str = param("primary-only,replicas-round-robin", "where reads go", choices=ARMS, many=True)
    vus: int = param(
        1000, "virtual users, each waiting for its answer before it asks again; 0 with a rate", low=0, high=100_000
    )
    think_s: float = param(0.0, "seconds that a user thinks between an answer and the next request", low=0, high=600)
    rate: float = param(
        0.0, "requests a second, asked for whether or not earlier ones were answered; 0 with users", low=0, high=1e6
    )
    arrival: str = param("poisson", "how the requests of a rate are spaced", choices=("poisson", "constant"))
    max_in_flight: int = param(
        10_000, "requests of a rate under way at once; what would exceed it is counted as dropped", low=1, high=1e6
    )
    stages: str = param(
        "", "change of users or rate in every block, as value:seconds,…: 100:10,500:30 ramps to 100 in 10 s; 0 s steps"
    )
    processes: int = param(1, "load generator processes; each takes its share of the load", low=1, high=256)
    connections: int = param(32, "database connections to each node that serves reads", low=1, high=1000)
    hit_ratio: float = param(
        0.0, "share of searches for names that exist; the original searched for none", low=0, high=1
    )
    duration_s: float = param(
        18.0, "measured seconds of each workload on each arm, all rounds together", low=1, high=86_400
    )
    rounds: int = param(6, "paired rounds; order alternates A B, B A, …", low=1, high=1000)
    warmup_s: float = param(1.0, "seconds at the start of every block that are not counted", low=0, high=600)
    timeout_s: float = param(30.0, "deadline of one request, waiting for a connection included", low=0.1, high=600)
    sample_interval_s: float = param(1.0, "seconds between two samples of servers and host", low=0.1, high=60)
    keep_cluster: bool = param(False, "leave a cluster that this run started running afterwards")

    def conflicts(self) -> list[str]:
        found = []
        if self.replicas == 0 and any(arm.startswith("replicas") for arm in as_list(self.arms)):
            found.append(
                "replicas: 0 leaves the arm replicas-round-robin without a server; drop the arm or add replicas"
            )
        if self.duration_s / self.rounds < 0.5:
            found.append(
                f"rounds: {self.rounds} rounds of {self.duration_s / self.rounds:.2g} s are too short to measure; "
                f"at least 0.5 s a round, so raise duration_s to {self.rounds * 0.5:g} or lower rounds"
            )
        return found + self._load_conflicts()

    def _load_conflicts(self) -> list[str]:
        found = []
        if self.rate and self.vus:
            found.append(
                f"rate: {self.rate:g} requests a second and vus: {self.vus} users exclude each other; "
                "set vus to 0 for an open workload, or rate to 0 for a closed one"
            )
        if not self.rate and not self.vus:
            found.append("vus: 0 users and rate: 0 requests a second ask for nothing; set one of them")
        if self.rate and self.think_s:
            found.append(f"think_s: {self.think_s:g} s, but at a rate there are no users who think; set it to 0")
        limits = {"connections": self.connections}
        limits |= {"max_in_flight": self.max_in_flight} if self.rate else {"vus": self.vus}
        found += [
            f"processes: {self.processes} load generators cannot share {name}: {limit}; use at most {limit}"
            for name, limit in limits.items()
            if 0 < limit < self.processes
        ]
        try:
            length_s = sum(seconds for _, seconds in as_stages(self.stages))
        except BadInput as error:
            return found + [f"stages: {problem}" for problem in error.problems]
        whole_s = self.warmup_s + self.duration_s / self.rounds
        if length_s > whole_s:
            found.append(
                f"stages: they take {length_s:g} s, but a block ends after {whole_s:g} s (warm-up included); "
                f"raise duration_s to {math.ceil((length_s - self.warmup_s) * self.rounds):g}"
            )
        return found

    @property
    def block_s(self) -> float:
        """Measured seconds of one block: one workload on one arm in one round."""
        return self.duration_s / self.rounds


MOST_REPLICAS = 8
BUDGET_ARMS = (
    "primary-only",
    *(f"replicas-round-robin-{count}" for count in range(1, MOST_REPLICAS)),
    "replicas-round-robin",
    "all-nodes-round-robin",
)


@dataclasses.dataclass(frozen=True)
class CpuBudget(ReadScaling):
    """Read load on 1 … all nodes, with the machine's CPU shared by all of them and with a budget of each node's own."""

    provider: str = param("docker", "where the servers come from; CPU limits need docker", choices=PROVIDERS)
    users: int = param(100_000, "rows of the users table", low=100, high=100_000_000)
    workloads: str = param("get-user", "which loads to run", choices=WORKLOADS, many=True)
    arms: str = param(
        "primary-only,replicas-round-robin-1,replicas-round-robin,all-nodes-round-robin",
        "where reads go; replicas-round-robin-1 is one replica alone",
        choices=BUDGET_ARMS,
        many=True,
    )
    connections: int = param(30, "database connections in all, shared out among the nodes of an arm", low=1, high=1000)
    budgets: str = param(
        "shared,limited", "CPU shared by all nodes, or limited for each", choices=("shared", "limited"), many=True
    )
    node_cpus: float = param(0.25, "CPUs that each node may use under the budget `limited`", low=0.01, high=64)

    def conflicts(self) -> list[str]:
        found = super().conflicts()
        if "limited" in as_list(self.budgets) and self.provider != "docker":
            found.append(f"budgets: limited needs provider docker; {self.provider} cannot limit a server's CPU")
        counts = [int(arm.rsplit("-", 1)[1]) for arm in as_list(self.arms) if arm[-1].isdigit()]
        found += [
            f"arms: replicas-round-robin-{count} needs {count} replicas, replicas is {self.replicas}"
            for count in counts
            if count > self.replicas
        ]
        if self.connections < self.replicas + 1:
            found.append(
                f"connections: {self.connections} in all are less than one for each of {self.replicas + 1} nodes"
            )
        return found


OWNING_PROVIDERS = ("embedded", "docker")
COMMIT_LEVELS = ("off", "local", "remote_write", "on", "remote_apply")


@dataclasses.dataclass(frozen=True)
class StreamingReplication(Parameters):
    """What streaming replication does: positions, lag, staleness, a conflict, and a slot that is lost."""

    run_id: str = param("", "a recorded run to read instead of driving a new one; empty drives")
    provider: str = param("embedded", "where the servers come from", choices=OWNING_PROVIDERS)
    cluster: str = param("replication", "name of the cluster; it is found again if it exists")
    replicas: int = param(2, "streaming replicas beside the primary", low=1, high=8)
    levels: str = param(
        "off,local,remote_write,on,remote_apply", "levels of synchronous_commit", choices=COMMIT_LEVELS, many=True
    )
    commits: int = param(200, "commits whose visibility on each replica is timed, at each level", low=2, high=100_000)
    interval_ms: float = param(10.0, "milliseconds between two of these commits", low=0, high=10_000)
    write_load_s: float = param(4.0, "seconds of write load under which positions and lag are watched", low=1, high=600)
    slot_keep_mb: int = param(64, "max_slot_wal_keep_size while a replica is down, in MB", low=32, high=4096)
    keep_cluster: bool = param(False, "leave a cluster that this run started running afterwards")
