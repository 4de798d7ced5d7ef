"""Who used the CPU of the machine that drove a run, and whether other programs disturbed it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from labkit.analysis.frames.per_run_cache import read_once
from labkit.analysis.words import cores
from labkit.checkers import host_cpu as checker
from labkit.checkers.host_cpu import BUSY, HOST, IDLE, PROCESSES, Account, Series, pooled
from labkit.run.schema import Block, HostCpu, LoadBlock
from labkit.run.store import Run
from labkit.units import count

_PARTS = ("cores", "generator", "lab", "kernel", "others", "idle", "stolen")


def host_cpu(run: Run) -> pd.DataFrame:
    """One row per block that is accounted for, in the order they ran, short rounds included.

    block: int. cell: str, which part of the plan it belongs to. Of loads also round: int; workload, arm, intervention:
    str; counts: bool, whether it is part of the run's figures. In cores, adding up to `cores`: float, a column for each
    server on the machine by its name, generator, lab (the process that drove, and its children), kernel (its own
    threads), others, idle, stolen (by the hypervisor); NaN where it is not known, what is not known of lab, kernel and
    stolen is among the others. disturbed: bool or None, others and stolen were more than 10 %.
    """
    known = accounts(run)
    rows = []
    for block in run.blocks:
        if (account := known[block.block]) is not None:
            names = {"block": block.block, "cell": block.cell}
            if isinstance(block, LoadBlock):
                names |= {"workload": block.workload, "arm": block.arm, "round": block.round}
                names |= {"intervention": block.intervention or "", "counts": block.counts}
            rows.append(names | in_cores(account) | {"disturbed": account.disturbed})
    return pd.DataFrame(rows)


def in_cores(account: HostCpu) -> dict[str, float]:
    """The parts of an account, servers by name; NaN for what is not known."""
    parts = {name: getattr(account, name) for name in _PARTS}
    return dict(account.servers or {}) | {name: np.nan if value is None else value for name, value in parts.items()}


def accounts(run: Run) -> dict[int, HostCpu | None]:
    """Block -> its account: what the run notes, of a load else what its samples say; None if they do not.

    Samples that were not taken right before a server was killed do not say what it had used.
    """
    found = {block.block: block.host_cpu for block in run.blocks}
    loads = [block for block in run.blocks if isinstance(block, LoadBlock) and block.host_cpu is None]
    if loads and (derived := _derived(run)):
        found |= {block.block: derived.of(*block.measured_ns) for block in loads}
    return found


def account_of(run: Run, blocks: Iterable[LoadBlock]) -> HostCpu | None:
    """Some blocks' accounts as one, weighted by their length; None if any of them has none."""
    known = accounts(run)
    mine = [(known[block.block], block.measured_s) for block in blocks]
    whole = [(account, seconds) for account, seconds in mine if account is not None]
    return pooled(whole) if whole and len(whole) == len(mine) else None


def disturbances(run: Run) -> list[str]:
    """What a reader has to know first: that other programs took CPU while figures were measured. Empty if none did,
    or if that is not known."""
    numbers, every = disturbed_blocks(run), _measured(run)
    disturbed = [(account, block.measured_s) for block, account in every if account and block.block in numbers]
    if not disturbed:
        return []
    mean = pooled(disturbed)
    whom = "other programs" if mean.lab is not None else "other programs, the lab among them,"
    stolen = f" and the hypervisor took {cores(mean.stolen)}" if mean.stolen and mean.stolen >= 0.01 else ""
    return [
        f"Disturbed: in {len(disturbed)} of {count(len(every), 'block')} {whom} used {cores(mean.others or 0.0)} of "
        f"{count(mean.cores, 'core')}{stolen}: these are figures of a machine that was shared."
    ]


def disturbed_blocks(run: Run) -> frozenset[int]:
    """The numbers of the blocks in which other programs took CPU: their times and rates prove nothing."""
    judged = checker.disturbed([(block, account) for block, account in _measured(run) if account is not None])
    return frozenset(number for number, yes in judged.items() if yes)


def unaccounted(run: Run) -> list[str]:
    """That it is not known whether other programs took CPU, of the run or of some blocks; empty if all is known.

    Of a run that is under way it is not known yet.
    """
    every = _measured(run)
    unknown = [block for block, account in every if account is None or account.disturbed is None]
    if not unknown or run.state == "running":
        return []
    where = "" if len(unknown) == len(every) else f" in {len(unknown)} of {count(len(every), 'block')}"
    why = " (the process that drove it was killed)" if run.state == "cut off" else ""
    return [f"This run carries no account of other programs' CPU{where}{why}: whether they disturbed it is unknown."]


def _measured(run: Run) -> list[tuple[Block, HostCpu | None]]:
    """The blocks in which something was measured that counts, and their accounts."""
    known = accounts(run)
    return [(block, known[block.block]) for block in run.blocks if block.has_figures and block.measured_ns]


@read_once
def _derived(run: Run) -> Account | None:
    """The account of a run that noted none, or not for all of its blocks."""
    host = run.record.host
    if host is None or not run.has("samples"):
        return None
    samples = run.table("samples").sort_values("t_ns", kind="stable").astype({"node": str, "metric": str})
    blind = any(PROCESSES in reasons for reasons in run.record.not_measured.values())
    chosen = samples[samples["metric"].isin(checker.COUNTERS)]
    series: dict[tuple[str, str], Series] = {
        (str(node), str(metric)): (rows["t_ns"].to_numpy(), rows["value"].to_numpy())
        for (node, metric), rows in chosen.groupby(["node", "metric"], sort=False)
    }
    if (HOST, BUSY) not in series:
        # Older runs sampled how busy the host was since the sample before, in percent of all cores.
        percent = samples[(samples["node"] == HOST) & (samples["metric"] == "cpu_percent")]
        times = percent["t_ns"].to_numpy()
        seconds = np.diff(times, prepend=times[:1]) / 1e9
        busy = np.cumsum(seconds * percent["value"].to_numpy() / 100 * host.cores)
        series[HOST, BUSY] = times, busy
        series[HOST, IDLE] = times, np.cumsum(seconds) * host.cores - busy
    return Account(series, host.cores, blind=blind)
