"""labkit audit: judge a recorded run again."""

from __future__ import annotations

import contextlib
import json

import click

from labkit.analysis.words import not_valid, whole
from labkit.checkers import audit, evidence
from labkit.cli import wording
from labkit.cli.options import as_json_option
from labkit.errors import BadInput, RunUnreadable
from labkit.experiments.failover.findings import CLASS_WORDS
from labkit.run import ledger
from labkit.run.schema import VERDICT_WORDS, TrialBlock, Verdict
from labkit.run.store import Run, open_run
from labkit.units import count as counted


@click.command("audit")
@click.argument("run_name", metavar="RUN")
@click.option("--block", type=int, default=None, help="Only this trial of a durability matrix.")
@as_json_option
@click.pass_context
def audit_command(context: click.Context, run_name: str, block: int | None, as_json: bool) -> None:
    """Judge the rows of RUN again: every key of its ledger against the keys that were read back.

    Of a durability matrix every trial is judged, one line per trial. Rows lost where commits waited for no
    replica (async, or a level of off or local) are a finding, and no failure.

    Exit code 0: the audit passed. 1: it did not, or its verdict is unknown, or trials are missing, or a file of the run
    is damaged. 2: there is nothing to judge; what run.json says of the verdicts of that time is shown all the same.
    """
    run = open_run(run_name)
    every = [b for b in run.blocks if isinstance(b, TrialBlock)]
    facts = {b.block: b for b in every if block is None or b.block == block}
    if block is not None and not facts:
        raise BadInput(f"--block: {run.id} has no trial {block}; there are {_span([b.block for b in every])}")
    damaged = run.damaged()
    if not ledger.is_kept(run):
        if damaged:
            raise damaged[0]
        _tell_recorded(run, list(facts.values()), as_json)
        raise RunUnreadable(f"{run.id} keeps no ledger of writes, so there is nothing to judge again")
    found = {number: _judged(run, number) for number in facts} or {0: _judged(run)}
    findings = {n for n, b in facts.items() if audit.allowed(found[n], b.replication)}
    if as_json:
        content = [{"block": n, "verdict": a.verdict, "reason": a.reason, "counts": a.counts} for n, a in found.items()]
        click.echo(json.dumps(content, indent=1))
    else:
        open_ended = 0
        for number, judged in found.items():
            excuse = " (this mode and level may lose rows)" if number in findings else ""
            click.echo(f"trial {number}{_cell(run, facts.get(number))}: {_said(judged.verdict, judged.reason)}{excuse}")
            if len(found) == 1:
                for name, count in judged.counts.items():
                    click.echo(f"  {CLASS_WORDS[name]:<36} {whole(count):>12}")
                for key in judged.lost[:20].tolist():
                    click.echo(f"  lost: {key}")
        with contextlib.suppress(RunUnreadable):  # told as the verdict of its trial
            open_ended = audit.left_open(run)
        if open_ended:
            click.echo(
                f"{counted(open_ended, 'transaction has', 'transactions have')} no outcome: the lab was killed "
                "meanwhile. Had the whole machine crashed, up to a second of intents could be missing too"
            )
    for error in damaged:
        click.echo(f"damaged: {wording.explain(error)}", err=True)
    if evidence.carries_none(run):
        click.echo(f"{run.id} carries no checksums: whether its files are what was recorded cannot be said", err=True)
    told = {error.reason for error in damaged}
    missing = [] if block is not None else [problem for problem in evidence.problems(run) if problem not in told]
    for sentence in not_valid(missing):
        click.echo(sentence, err=True)
    if (
        damaged
        or missing
        or any(judged.verdict != "true" for number, judged in found.items() if number not in findings)
    ):
        context.exit(1)


def _judged(run: Run, number: int | None = None) -> audit.Audit:
    """One trial, or a run that was cut off before it had one.

    What cannot be read of it is a verdict too, and keeps no other trial from its own.
    """
    try:
        return audit.of_run(run, number)
    except RunUnreadable as error:
        return audit.unread(wording.explain(error))


def _said(verdict: Verdict, reason: str) -> str:
    return f"audit {VERDICT_WORDS[verdict]}, {reason}"


def _cell(run: Run, facts: TrialBlock | None) -> str:
    """Of a matrix: the cell that the trial belongs to."""
    if run.experiment != "durability-matrix" or facts is None:
        return ""
    return f" {facts.cell}"


def _tell_recorded(run: Run, judged: list[TrialBlock], as_json: bool) -> None:
    """What run.json holds: the verdicts of the time when the rows were still there."""
    if as_json:
        names = ("block", "verdict", "reason", "counts")
        click.echo(json.dumps([b.model_dump(include=set(names)) | {"recorded": True} for b in judged], indent=1))
        return
    if judged:
        click.echo("as judged when it was recorded (run.json), not again:")
    for b in judged:
        click.echo(f"trial {b.block}{_cell(run, b)}: {_said(b.verdict, b.reason)}")


def _span(numbers: list[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}" if numbers else "none"


commands: list[click.Command] = [audit_command]
