"""labkit run, runs, compare, report: drive an experiment, and read what was recorded."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pandas as pd

from labkit import interrupts, paths
from labkit.analysis import words
from labkit.analysis.report import sentences, tables
from labkit.analysis.report.findings import records
from labkit.analysis.report.findings import summary as summary_of
from labkit.analysis.report.findings import verdicts as verdicts_of
from labkit.analysis.statistics import compare
from labkit.checkers import evidence
from labkit.cli import wording
from labkit.cli.options import as_json_option
from labkit.errors import BadInput, LabkitError
from labkit.experiments import catalogue
from labkit.experiments.catalogue import Experiment
from labkit.experiments.parameters import Parameters, assignments, read_yaml
from labkit.names import APPEND_ROWS
from labkit.remedies import Remedy
from labkit.run.store import Run, RunStore, open_run, read_run

_MEASURED = ("measured", "complete")


@click.command()
@click.argument("experiment")
@click.option("-p", "--parameter", "pairs", multiple=True, metavar="NAME=VALUE", help="Set a parameter; repeatable.")
@click.option(
    "-f",
    "--file",
    "file",
    type=click.Path(path_type=Path),
    help="A YAML file of `name: value` lines; configs/experiments/ has some.",
)
@as_json_option
@click.pass_context
def run(context: click.Context, experiment: str, pairs: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Run EXPERIMENT and write its report.

    Exit code 0: done and valid. 1: done, but the measurement is not valid: a wrong answer, more than 1 % of errors,
    or an arm without a right answer. 2: bad parameters, or it could not run. 130, 143: interrupted by Ctrl-C,
    by SIGTERM; what was measured is kept.
    """
    kind, parameters = _checked(experiment, file, pairs)
    report = _report()
    try:
        executed = report.execute(kind.notebook_path, parameters.as_dict())
    except KeyboardInterrupt as error:
        kept = "what was measured until then, if anything, is kept: `labkit runs` lists it"
        click.echo(f"{interrupts.reason(error)}; {kept}", err=True)
        context.exit(interrupts.exit_code(error))
    assert executed.run is not None  # execute has no place for the copy of a notebook without a run, and says so
    _finish(context, kind, executed.run, report.publish(executed, executed.run, kind.findings), as_json)


def _report() -> Any:
    """papermill and nbconvert take seconds to load: wrong parameters are refused before, and lists do without."""
    from labkit.analysis.report import report

    return report


def _checked(name: str, file: Path | None, pairs: tuple[str, ...]) -> tuple[Experiment, Parameters]:
    """The experiment and its parameters, validated. Raises BadInput with everything that is wrong."""
    problems: list[str] = []
    values: dict[str, Any] = {}
    with _noting(problems):
        values |= read_yaml(paths.from_here(file)) if file else {}
    with _noting(problems):
        assignments(pairs)
    values |= dict(pair.split("=", 1) for pair in pairs if "=" in pair)  # what is wrong with these is told as well
    with _noting(problems):
        kind = catalogue.experiment(name)
        parameters = kind.parameters.build(values)
    if problems:
        raise BadInput(problems, subject="command")
    return kind, parameters


@contextlib.contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except BadInput as error:
        problems += error.problems


def _finish(context: click.Context, kind: Experiment, made: Run, page: Path, as_json: bool) -> None:
    """Say what came out; exit 1 if the measurement is not valid."""
    summary = summary_of(made, kind.findings)
    if as_json:
        click.echo(json.dumps(summary.as_json() | {"report": str(page)}, ensure_ascii=False, indent=1))
    else:
        table, verdicts = _fitting(kind.findings.table(made)), verdicts_of(made, kind.findings)
        first = words.Sentences(each for each in words.not_valid(summary.problems) if each not in verdicts)
        click.echo(f"{first}\n\n" * bool(first) + f"{table}\n\n{verdicts}\n\nrun     {made.id}\nreport  {page}")
    if not summary.valid:
        context.exit(1)


def _fitting(table: pd.DataFrame) -> str:
    """A table as text; its columns go on further down where the terminal is too narrow for all of them."""
    return str(table.to_string(line_width=shutil.get_terminal_size(fallback=(160, 24)).columns))


@click.command("report")
@click.argument("run_name", metavar="RUN")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the HTML here as well.")
@as_json_option
@click.pass_context
def report_command(context: click.Context, run_name: str, output: Path | None, as_json: bool) -> None:
    """Draw the report of a recorded RUN again: its id, a part of it, its directory, or `latest`.

    Exit code 1 says that the run is not valid, as for `labkit run`, that it was cut off or is still under way (then the
    page begins with what is missing; without a finished block there is none), or that a file of it is damaged.
    """
    recorded = open_run(run_name)
    kind, page = catalogue.experiment(recorded.experiment), catalogue.report(recorded)
    if output is not None:
        output.write_bytes(page.read_bytes())
        page = output.resolve()
    _finish(context, kind, recorded, page, as_json)


def _measured(recorded: Run) -> Run:
    """The run, if there is something in it to draw. Raises RunUnreadable."""
    if nothing := evidence.nothing_finished(recorded):
        raise nothing
    return recorded


@click.command("runs")
@click.option(
    "-n", "--last", default=20, show_default=True, type=click.IntRange(min=1), help="At most so many, the newest last."
)
@as_json_option
def runs_command(last: int, as_json: bool) -> None:
    """List recorded runs: id, what has become of them, key parameters, headline.

    First the samples that come with labkit, marked, as far as there is room for them beside one's own.
    """
    samples, own = (list(RunStore(root).paths()) for root in (paths.sample_runs(), paths.runs()))
    every = [*((path, True) for path in samples), *((path, False) for path in own)]
    rows = [_listed(path, sample=sample) for path, sample in every[-last:]]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    lines = [line for row in rows for line in row["headline"]]
    widths = {name: max((len(line[name]) for line in lines), default=0) for name in ("workload", "arm")}
    for row in rows:
        words = " ".join(f"{name}={value}" for name, value in row["parameters"].items())
        click.echo(f"{row['id']}  {row['state']}{' (sample)' if row['sample'] else ''}  {words}")
        for line in row["headline"]:
            named = "".join(f"{line[name]:<{width + 2}}" for name, width in widths.items())
            click.echo(f"    {named}{_loaded(line)}".rstrip())
        if row["problem"]:
            click.echo(f"    {row['problem']}")
    if len(every) > len(rows):
        click.echo(f"{len(every) - len(rows)} more; `labkit runs -n {len(every)}` lists them too")
    if not own:
        makes = Remedy("run", "makes one", experiment=next(iter(catalogue.EXPERIMENTS)))
        click.echo(f"no runs in {paths.runs()}; {wording.suggest([makes])}")


def _loaded(line: dict[str, Any]) -> str:
    """Rate and p99 of a line of a headline; empty where nothing was loaded."""
    rate, p99 = (words.number(line[name]) for name in ("requests_per_s", "p99_ms"))
    unit = {APPEND_ROWS: "rows/s", "commit": "commits/s"}.get(line["workload"], "requests/s")
    return "" if rate == words.UNKNOWN else f"{rate:>9} {unit}   p99 {p99} ms"


def _listed(path: Path, *, sample: bool = False) -> dict[str, Any]:
    """One run as plain values; one that cannot be read is listed with the reason."""
    row: dict[str, Any] = {
        "id": f"{path.parent.name}/{path.name}",
        "status": "unreadable",
        "state": "unreadable",
        "when": None,
        "sample": sample,
    }
    row |= {"parameters": {}, "headline": [], "problem": None}
    try:
        recorded = read_run(path)
        kind = catalogue.experiment(recorded.experiment)
        row |= {"status": recorded.status, "state": recorded.state, "when": recorded.record.epoch.utc}
        row |= {"problem": evidence.why_no_end(recorded) if recorded.state in ("cut off", "failed") else None}
        row["parameters"] = {name: recorded.parameters.get(name) for name in kind.key_parameters}
        if recorded.status in _MEASURED:
            row["headline"] = _headline(recorded, kind)
    except LabkitError as error:
        row["problem"] = wording.explain(error)
    return row


def _headline(recorded: Run, kind: Experiment) -> list[dict[str, Any]]:
    """From the summary where a report was made; reading every request again is for runs without one."""
    kept = recorded.summary()
    return kept.headline if kept is not None else records(kind.findings.headline(recorded))


@click.command("compare")
@click.argument("runs_a", metavar="RUNS")
@click.argument("runs_b", metavar="RUNS")
@as_json_option
def compare_command(runs_a: str, runs_b: str, as_json: bool) -> None:
    """Lay runs of one experiment side by side: parameters, figures with intervals, plots, as HTML too.

    RUNS: a run, or several of the same parameters with commas between them. Whether two sides differ shows from three
    runs a side on. `previous` as the first is the run before the second.
    """
    a, b = compare.sides(runs_a, runs_b)
    for each_run in (*a, *b):
        _measured(each_run)
    report = _report()
    notebook, page = b[-1].comparison(a)
    named = [", ".join(each_run.id for each_run in side) for side in (a, b)]
    parameters = {name: ",".join(str(run.path) for run in side) for name, side in (("runs_a", a), ("runs_b", b))}
    executed = report.execute(paths.notebooks() / "compare_runs.ipynb", parameters, output=notebook)
    report.export(executed.path, page, sentences.two_runs(a, b, ["requests_per_s"]), f"A {named[0]}; B {named[1]}")
    differing, figures = compare.parameters(a, b), compare.runs(a, b)
    if as_json:
        content: dict[str, Any] = {name: [run.id for run in side] for name, side in (("a", a), ("b", b))}
        content |= {"parameters": records(differing), "disturbances": compare.disturbances(a, b)}
        content |= {"differences": records(figures), "report": str(page)}
        click.echo(json.dumps(content, ensure_ascii=False, indent=1))
        return
    click.echo(f"A  {named[0]}\nB  {named[1]}\n")
    click.echo(differing.to_string(index=False) if len(differing) else "parameters that differ: none")
    click.echo(f"\n{_fitting(tables.two_runs(a, b))}\n\n{sentences.two_runs(a, b)}\n\nreport  {page}")


@click.command("export")
@click.argument("run_name", metavar="RUN")
@click.option("--format", "name", type=click.Choice(["hlog", "k6", "trials"]), required=True, help="See above.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write here.  [default: the run's derived/]")
def export_command(run_name: str, name: str, output: Path | None) -> None:
    """Write a recorded RUN for other tools.

    hlog: latencies as HdrHistogram log. k6: the summary in k6's shape. trials: of a durability matrix, a CSV row each.
    """
    from labkit.analysis import export as interchange

    click.echo(interchange.export(_measured(open_run(run_name)), name, output))


commands: list[click.Command] = [run, runs_command, report_command, compare_command, export_command]
