"""labkit audit: judge a recorded run anew."""

from __future__ import annotations

import json

import click

from labkit import audit
from labkit.findings.recovery import CLASS_WORDS
from labkit.lab import open_run


@click.command("audit")
@click.argument("run_name", metavar="RUN")
@click.option("--block", type=int, default=None, help="Only this trial of a durability matrix.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")
@click.pass_context
def audit_command(context: click.Context, run_name: str, block: int | None, as_json: bool) -> None:
    """Judge the rows of RUN again: every key of its ledger against the keys that were read back.

    Exit code 0: nothing lost, nothing wrong. 1: something is, or nobody can tell. 2: there is nothing to judge.
    """
    run = open_run(run_name)
    blocks = [b["block"] for b in run.blocks] if block is None else [block]
    found = {number: audit.of_run(run, number) for number in blocks} or {0: audit.of_run(run)}
    if as_json:
        content = [{"block": n, "verdict": a.verdict, "reason": a.reason, "counts": a.counts} for n, a in found.items()]
        click.echo(json.dumps(content, indent=1))
    else:
        for number, judged in found.items():
            click.echo(f"trial {number}: {judged.verdict}, {judged.reason}")
            if len(found) == 1:
                for name, count in judged.counts.items():
                    click.echo(f"  {CLASS_WORDS[name]:<36} {count:>12,}")
                for key in judged.lost[:20].tolist():
                    click.echo(f"  lost: {key}")
        if open_ended := audit.left_open(run):
            click.echo(
                f"{open_ended} transactions have no outcome: the lab was killed while they were under way. Had the "
                "whole machine crashed, up to a second of intents could be missing too"
            )
    if any(judged.verdict != "true" for judged in found.values()):
        context.exit(1)


commands: list[click.Command] = [audit_command]
