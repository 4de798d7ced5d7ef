"""What a run of cpu-budget says: throughput against the primary alone, for each budget and number of nodes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from labkit.analysis import frames
from labkit.analysis.frames.rows import each
from labkit.analysis.plots.style import BLACK, BLUE, GREY, WIDTH_IN, Sheet, drawing
from labkit.analysis.report.tables import number, original_differences, percent
from labkit.analysis.statistics import compare
from labkit.experiments.read_scaling.findings import Sentences
from labkit.run.store import Run

_COLUMNS = ["workload", "node_cpus", "arm", "nodes", "requests_per_s", "ratio", "low", "high", "rounds"]


def speedup(run: Run) -> pd.DataFrame:
    """One row per workload with its budget and arm, the arms with few nodes first.

    workload, arm: str. node_cpus: float, CPUs a node may use, NaN if shared. nodes: int, that serve reads.
    requests_per_s: float. ratio, low, high: float, requests/s as a multiple of the primary alone with its 95 %
    interval (paired rounds, see `compare.arms`); 1 without an interval for the primary itself. rounds: int.
    """
    facts = {(block["workload"], block["arm"]): block for block in run.blocks}
    compared = {(row.workload, row.arm): row for row in each(compare.arms(run, ["requests_per_s"]))}
    rows = []
    for row in each(frames.headline(run)):
        block, found = facts[row.workload, row.arm], compared.get((row.workload, row.arm))
        cpus = block["node_cpus"]
        rows.append(
            {
                "workload": row.workload,
                "node_cpus": np.nan if cpus is None else float(cpus),
                "arm": row.arm,
                "nodes": len(block["nodes"]),
                "requests_per_s": row.requests_per_s,
                "ratio": 1.0 + found.relative if found else 1.0,
                "low": 1.0 + found.relative_low if found else np.nan,
                "high": 1.0 + found.relative_high if found else np.nan,
                "rounds": found.n if found else 0,
            }
        )
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    # Budgets in the order they ran, arms by their number of nodes, the primary before a single replica.
    order = {workload: i for i, workload in enumerate(dict.fromkeys(frame["workload"]))}
    keys = pd.DataFrame(
        {"w": frame["workload"].map(order), "n": frame["nodes"], "p": frame["arm"] != compare.ARMS[0]},
        index=frame.index,
    )
    return frame.loc[keys.sort_values(["w", "n", "p"]).index].reset_index(drop=True)


def table(run: Run) -> pd.DataFrame:
    """`speedup` to read: a row for each budget and arm."""
    rows = {
        (row.workload, words(row.arm, row.nodes)): {
            "nodes": str(row.nodes),
            "requests/s": number(row.requests_per_s),
            "× primary alone": f"{row.ratio:.2f}",
            "95 % interval": "–" if np.isnan(row.low) else f"{row.low:.2f} … {row.high:.2f}",
        }
        for row in each(speedup(run))
    }
    found = pd.DataFrame.from_dict(rows, orient="index")
    found.index = pd.MultiIndex.from_tuples(found.index)
    return found


def words(arm: str, nodes: int) -> str:
    """An arm of this experiment in words."""
    if arm == compare.ARMS[0]:
        return "primary alone"
    if arm.startswith("all-nodes"):
        return f"all {nodes} nodes"
    return "one replica" if nodes == 1 else f"{nodes} replicas"


def ratios(frame: pd.DataFrame, ax: Axes) -> Axes:
    """Throughput as a multiple of the primary alone, a bar an arm, its whisker the 95 % interval.

    `frame`: rows of `speedup` of one workload.
    """
    for place, row in enumerate(each(frame)):
        ax.bar(place, row.ratio, width=0.62, color=GREY if row.arm == compare.ARMS[0] else BLUE)
        reach = row.ratio
        if not np.isnan(row.low):
            ax.errorbar(place, row.ratio, [[row.ratio - row.low], [row.high - row.ratio]], color=BLACK, capsize=5)
            reach = max(reach, row.high)
        label = f"{row.ratio:.2f} ×\n{row.requests_per_s:,.0f}/s"
        ax.annotate(label, (place, reach), (0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=8.5)
    ax.set_xticks(
        range(len(frame)), [words(row.arm, row.nodes).replace(" ", "\n", 1) for row in each(frame)], fontsize=8.5
    )
    ax.axhline(1, color=BLACK, linewidth=0.8)
    ax.grid(visible=False, axis="x")
    ax.set_ylabel("requests/s ÷ primary alone")
    return ax


def figure(run: Run) -> Sheet:
    """Every budget next to each other on one axis."""
    frame = speedup(run)
    workloads = list(dict.fromkeys(frame["workload"]))
    most = float(np.nanmax([frame["ratio"].max(), frame["high"].max()]))
    with drawing():
        sheet = Sheet(figsize=(WIDTH_IN, 3.0 * ((len(workloads) + 1) // 2)), layout="constrained")
        axes = sheet.subplots((len(workloads) + 1) // 2, min(2, len(workloads)), squeeze=False, sharey=True).flat
        for ax, workload in zip(axes, workloads, strict=False):
            ratios(frame[frame["workload"] == workload], ax)
            ax.set_title(workload)
            ax.set_ylim(0, most * 1.3)
    sheet.alt = f"Requests per second as a multiple of the primary alone, for {'; '.join(workloads)}"
    return sheet


def verdicts(run: Run) -> Sentences:
    """What replicas did under each budget, with intervals, and what spoils the measurement."""
    found = Sentences()
    for row in each(speedup(run)):
        if row.arm == compare.ARMS[0]:
            continue
        who = f"{row.workload}: {words(row.arm, row.nodes)} answered {row.ratio:.2f} times what the primary alone did"
        if row.rounds < 2:
            found.append(f"{who}, in one round; one round gives no interval, so nothing can be concluded.")
            continue
        limits = f"95 % interval {row.low:.2f} … {row.high:.2f}, {row.rounds} rounds"
        meaning = "no difference could be shown" if row.low <= 1 <= row.high else "more" if row.low > 1 else "less"
        found.append(f"{who} ({limits}): {meaning}.")
    found += _original(run)
    for row in each(frames.bottleneck(run)):
        found.append(f"What limited {row.workload} on {row.arm}: {row.limit} ({row.reason}).")
    return Sentences([*found, *(f"Not valid: {problem}." for problem in frames.validity(run))])


def _original(run: Run) -> list[str]:
    """What this run says about the original report, if it measured several replicas with CPU shared."""
    frame = speedup(run)
    shared = frame[frame["node_cpus"].isna() & (frame["nodes"] > 1) & (frame["rounds"] > 1)]
    if not len(shared):
        return []
    saw = " and ".join(percent(value) for value in original_rates())
    if (shared["low"] > 1).any():
        return [f"With CPU shared replicas did add throughput here, unlike in the original report ({saw})."]
    return [
        "With CPU shared no number of nodes answered more than the primary alone. The original report shared one "
        f"machine's CPU too and saw {saw}: that needs no mutex to explain it."
    ]


def original_rates() -> list[float]:
    """What replicas changed in requests/s in the original report, a share for each of its loads."""
    found = original_differences()
    return [float(value) for value in found.loc[found["metric"] == "requests_per_s", "relative"]]


def lead(run: Run) -> Sentences:
    """The answer in short: the widest arm of every budget."""
    return Sentences([sentence for sentence in verdicts(run) if "answered" in sentence or sentence.startswith("Not")])
