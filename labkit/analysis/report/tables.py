"""Frames as tables to read: numbers rounded, units in the labels, one DataFrame of text each.

pandas escapes the cells when it shows such a frame as HTML, so text that a server sent is safe in it.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from labkit.analysis import frames
from labkit.analysis.frames.diagnosis import DEVIATION_LIMIT
from labkit.analysis.frames.rows import each, matching
from labkit.analysis.statistics import compare
from labkit.analysis.statistics.bottleneck import WORDS, interventions, more_connections
from labkit.analysis.statistics.bottleneck import bottleneck as find_bottleneck
from labkit.analysis.statistics.compare import Side
from labkit.analysis.words import UNKNOWN, Words, arm_words, cores, interval, number, percent
from labkit.checkers import evidence
from labkit.run.store import Run
from labkit.units import MIB, count, gib

_FIGURES = {
    "requests": "requests",
    "requests_per_s": "requests/s",
    "mean_ms": "mean, ms",
    "p50_ms": "p50, ms",
    "p90_ms": "p90, ms",
    "p95_ms": "p95, ms",
    "p99_ms": "p99, ms",
    "max_ms": "max, ms",
    "errors": "errors",
}
_OPEN_FIGURES = {
    "offered_per_s": "asked for/s",
    "dropped": "dropped",
    "service_p50_ms": "service p50, ms",
    "service_p99_ms": "service p99, ms",
}


def figures(frame: pd.DataFrame, *names: str) -> dict[str, pd.Series[str]]:
    """Columns of figures, such as `requests_per_s` and `p99_ms`, to read: label -> numbers as text."""
    return {(_FIGURES | _OPEN_FIGURES)[name]: frame[name].map(number) for name in names}


def headline(run: Run) -> pd.DataFrame:
    """Every figure of every arm, the difference with its 95 % interval, and the original report's figures.

    Rows: workload and figure. Columns: the arms of this run, each over all requests of its rounds; `paired difference`
    and `95 % interval`, the mean of the rounds' ratios as `compare.arms` has it, in percent of the arm that is
    compared with (one column each with several comparisons); then the original report's figures, whose single runs give
    no interval. An open workload adds what was asked for, what was
    dropped, and the service time (latency without waiting).
    """
    labels = _FIGURES | (_OPEN_FIGURES if frames.is_open(run) else {})
    here, there = frames.headline(run), frames.reference(run)
    compared = compare.arms(run)
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for workload in dict.fromkeys(here["workload"]):
        mine = here[here["workload"] == workload].set_index("arm")
        original = there[there["workload"] == workload].set_index("arm")
        for figure, label in labels.items():
            row = {arm_words(arm): number(value) for arm, value in mine[figure].items()}
            for found in each(matching(compared, workload=workload, metric=figure)):
                row |= _difference(found, alone=len(compare.comparisons(run)) == 1)
            if figure in original:
                row |= {f"original: {arm_words(arm)}": number(value) for arm, value in original[figure].items()}
            if figure in compare.METRICS and set(compare.ARMS) <= set(original.index):
                row["original: difference"] = percent(_relative(*(original[figure][arm] for arm in compare.ARMS)))
            rows[workload, label] = row
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    table.index = pd.MultiIndex.from_tuples(table.index)
    original_last = sorted(table.columns, key=lambda name: str(name).startswith("original"))
    return table[original_last]


def original_differences(run: Run | None = None) -> pd.DataFrame:
    """What replicas changed in the original report: workload, arm, metric, relative (a share). As `reference`."""
    there = frames.reference(run).set_index(["workload", "arm"])
    baseline, other = compare.ARMS
    rows = [
        {"workload": workload, "arm": other, "metric": metric}
        | {"relative": _relative(there[metric][workload, baseline], there[metric][workload, other])}
        for workload in dict.fromkeys(there.index.get_level_values("workload"))
        for metric in compare.METRICS
    ]
    return pd.DataFrame(rows, columns=["workload", "arm", "metric", "relative"])


def _relative(before: float, after: float) -> float:
    return after / before - 1 if before else float("nan")


def _difference(found: Any, *, alone: bool) -> dict[str, str]:
    """The cells of one comparison: two columns if it is the only one, else one that says which it is."""
    size, limits = percent(found.relative), interval(found.relative_low, found.relative_high)
    if alone:
        return {"paired difference": size, "95 % interval": limits}
    which = f"{arm_words(found.arm)} against {arm_words(found.against)} (95 % interval)"
    return {which: size if limits == UNKNOWN else f"{size} ({limits})"}


def comparisons(run: Run) -> pd.DataFrame:
    """What is compared with what, and what differs between them; says so if nothing is compared."""
    found = compare.comparisons(run)
    if not found:
        return Words({"": ["no arms are compared"]}, index=["comparisons"])
    rows = {
        (arm_words(each.arm), arm_words(each.against)): {"what differs": each.in_words or "nothing"} for each in found
    }
    return Words(pd.DataFrame.from_dict(rows, orient="index").rename_axis(["arm", "against"]))


def two_runs(a: Side, b: Side) -> pd.DataFrame:
    """Both sides' figures, all requests of their runs pooled; rows: workload, arm, figure.

    `difference` and `95 % interval` are the mean of B's runs against the mean of A's, as `compare.runs` has it: a dash
    with fewer than three runs a side.
    """
    compared, figures = compare.runs(a, b), compare.pooled(a, b).set_index(["side", "workload", "arm"])
    rows = {}
    for key in (tuple(row) for row in compared[["workload", "arm"]].drop_duplicates().itertuples(index=False)):
        for figure, label in _FIGURES.items():
            row = {side: number(float(figures.loc[(side, *key), figure])) for side in ("A", "B")}
            for found in each(matching(compared, workload=key[0], arm=key[1], metric=figure)):
                row["difference"] = percent(found.relative)
                row["95 % interval"] = interval(found.relative_low, found.relative_high)
            rows[key[0], arm_words(key[1]), label] = row
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
    table.index = pd.MultiIndex.from_tuples(table.index)
    return table


def parameters(a: Side, b: Side) -> pd.DataFrame:
    """The parameters in which runs differ, one row each; says so if there are none."""
    found = compare.parameters(a, b)
    if found.empty:
        return Words({"": ["none"]}, index=["parameters that differ"])
    return Words(found.set_index("parameter").rename_axis(None))


def bottleneck(run: Run) -> pd.DataFrame:
    """What each change did to throughput, with its 95 % interval, and what limited it; rows: workload and arm."""
    tried, in_arms = interventions(run), more_connections(run)
    columns = list(dict.fromkeys(tried["intervention"]))
    rows = {}
    for row in each(find_bottleneck(run)):
        found = dict.fromkeys(columns, "not tried")
        for change in each(matching(tried, workload=row.workload, arm=row.arm)):
            found[change.intervention] = _gain(change)
        if len(in_arms):
            wider = each(matching(in_arms, workload=row.workload, arm=row.arm))
            cells = [f"{number(change.before)} → {number(change.after)}: {_gain(change)}" for change in wider]
            found[_IN_ARMS] = "; ".join(cells) or "not measured"
        rows[row.workload, arm_words(row.arm)] = found | {"limit": WORDS[row.limit]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(table.index)
    return Words(table)


_IN_ARMS = "more connections, in the measured rounds"


def _gain(change: Any) -> str:
    return f"{percent(change.relative)} ({interval(change.low, change.high)})"


def utilisation(run: Run) -> pd.DataFrame:
    """How busy everything was; rows: workload and arm. CPU is in cores of the machine that drove the run."""
    found = frames.utilisation(run)
    parts = [name for name in _PARTS if name in found]
    servers = [name for name in found.columns if name.endswith("_cores") and name not in _PARTS]
    table = pd.DataFrame(
        {
            "workload": found["workload"],
            "arm": found["arm"].map(arm_words),
            **{f"{name.removesuffix('_cores')}, cores": found[name].map(cores) for name in servers},
            **{f"{_PARTS[name]}, cores": found[name].map(cores) for name in parts},
            "connections in use": found["pool_busy"].map(lambda share: percent(share, signed=False)),
            "wait, share of latency": found["wait_share"].map(lambda share: percent(share, signed=False)),
        }
    )
    return table.set_index(["workload", "arm"]).rename_axis([None, None])


_PARTS = {
    "generator_cores": "load generator",
    "lab_cores": "lab",
    "kernel_cores": "kernel threads",
    "others_cores": "other programs",
    "stolen_cores": "stolen",
    "idle_cores": "idle",
}


def littles_law(run: Run) -> pd.DataFrame:
    """Users against throughput × mean time of a request; rows: workload and arm."""
    found = frames.littles_law(run)
    if found.empty:
        return Words({"": ["the workload was open: there are no users to account for"]}, index=["users"])
    return (
        pd.DataFrame(
            {
                "workload": found["workload"],
                "arm": found["arm"].map(arm_words),
                "users": found["vus"].map(number),
                "answers/s": found["answers_per_s"].map(number),
                "mean time, s": found["mean_s"].map(number),
                "answers/s × mean time": found["in_flight"].map(number),
                "deviation": (found["deviation_percent"] / 100).map(percent),
                f"within {DEVIATION_LIMIT:g} %": found["ok"].map({True: "yes", False: "no"}),
            }
        )
        .set_index(["workload", "arm"])
        .rename_axis([None, None])
    )


def errors(run: Run) -> pd.DataFrame:
    """What went wrong, by SQLSTATE; says so if nothing did."""
    found = frames.errors(run)
    if found.empty:
        return Words({"": ["none"]}, index=["errors"])
    return Words(found.assign(arm=found["arm"].map(arm_words)).set_index(["workload", "arm"]).rename_axis([None, None]))


def disk_space(run: Run) -> pd.DataFrame:
    """MiB on disk at the first and the last sample; one row per server."""
    found = frames.disk_space(run)
    words = {"data_directory_bytes": "data directory", "pg_wal_bytes": "of it pg_wal"}
    columns = {
        f"{words[str(metric)]}, {moment}, MiB": rows.set_index("node")[moment].map(lambda size: number(size / MIB))
        for metric, rows in found.groupby("metric")
        for moment in ("first", "last")
    }
    return pd.DataFrame(columns).rename_axis(None) if columns else Words({"": ["not measured"]}, index=["servers"])


_REPLICATION = ("application_name", "state", "sync_state", "sent_lsn", "write_lsn", "flush_lsn", "replay_lsn")


def replication(run: Run) -> pd.DataFrame:
    """`pg_stat_replication` on the primary before and after the load: one row per replica and moment."""
    rows = [
        {"when": when} | {name: getattr(row, name) for name in _REPLICATION if name in row.model_fields_set}
        for when, recorded in (("before", run.record.replication), ("after", run.record.replication_after))
        for row in recorded
    ]
    return Words(pd.DataFrame(rows).astype(str).set_index("when") if rows else [])


def conditions(run: Run) -> pd.DataFrame:
    """Where and with what a run was made: one row per fact."""
    return Words({"value": pd.Series(_conditions(run))})


def conditions_of(a: Side, b: Side) -> pd.DataFrame:
    """The conditions of all runs of two sides, one column per run: A, or A 1, A 2 … where a side has several."""
    columns = {
        f"{side} {place}" if len(runs) > 1 else side: pd.Series(_conditions(run))
        for side, runs in (("A", a), ("B", b))
        for place, run in enumerate(runs, start=1)
    }
    facts = list(dict.fromkeys(name for column in columns.values() for name in column.index))
    return Words(columns, index=facts).fillna(UNKNOWN)


def _checksums(run: Run) -> str:
    """Of what a run carries checksums: its tables have had them for longer than its other files."""
    if evidence.carries_none(run):
        return "none: it was recorded before there were any"
    files, more = count(len(run.record.digests or {}), "file"), ("events.jsonl", "run.json")
    lacking = [name for name, noted in zip(more, (run.record.events, run.record.seal), strict=True) if noted is None]
    return f"of {files}; none of {', '.join(lacking)}" if lacking else f"of {files}, {' and '.join(more)}"


def _conditions(run: Run) -> dict[str, str]:
    record = run.record
    host, git, version = record.host, record.git, record.versions.get("labkit")
    servers = ", ".join(f"{node.name} ({node.role})" if node.role else node.name for node in record.nodes)
    facts: dict[str, object] = {
        "run": run.id,
        "status": run.state,
        "when": record.epoch.utc,
        "host": host and f"{count(host.cores, 'core')} ({host.cpu}), {gib(host.memory_bytes)}, {host.os}",
        "PostgreSQL": record.postgresql and record.postgresql.version,
        "labkit": f"{version}, commit {git.commit[:10]}{' + changes' * git.dirty}" if git else version,
        "servers": f"{servers}, {record.provider}",
        "checksums": _checksums(run),
        "sampling cost": record.sampler and f"{number(100 * record.sampler.cost_fraction)} % of a core",
    }
    facts |= {name: value for name, value in run.parameters.items() if name != "run_id"}
    return {name: UNKNOWN if value is None else str(value) for name, value in facts.items()}
