"""Record a sample for data/sample: `python -m benchmarks.samples failover` (`make sample NAME=failover`).

Runs configs/experiments/sample/NAME.yaml in a data folder of its own, and keeps of the run what its report is drawn
from. A sample that is too large, whose run is not valid, or whose report cannot be drawn from it, is refused.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from labkit import paths
from labkit.experiments.catalogue import EXPERIMENTS
from labkit.experiments.parameters import read_yaml
from labkit.run import layout
from labkit.run.store import Run, RunStore, open_run
from labkit.units import MIB

LARGEST_BYTES = 2 * MIB
PRESETS = paths.configs() / "experiments" / "sample"
NOT_DRAWN: Mapping[str, tuple[str, ...]] = {
    "failover": ("ops",),
    "quorum-commit": ("ops", "writes"),
    "durability-matrix": ("ops", "writes", "survivors", "ghosts", "samples"),
}
"""Experiment -> the tables that its report is not drawn from, and that are large; whole tables may be left out."""
CLUSTER = "sample"
"""The cluster that is made for a sample and removed after it: an engine of containers may have one of yours."""


def names() -> list[str]:
    """The samples that can be recorded: an experiment's name, or one that begins with it."""
    return sorted(file.stem for file in PRESETS.glob("*.yaml"))


def experiment_of(name: str) -> str:
    """The experiment whose name a sample's begins with."""
    return max((known for known in EXPERIMENTS if name == known or name.startswith(f"{known}-")), key=len)


def keep(run: Run, samples: Path) -> Path:
    """Copy of a run what its report is drawn from; gives the folder. Logs name folders of a machine: they stay out."""
    left_out = (layout.DERIVED, layout.LOGS, layout.LEDGERS, *NOT_DRAWN.get(run.experiment, ()))
    folder = samples / run.experiment / run.path.name
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns(".*", *left_out))
    folder.chmod(0o755)  # a run is its owner's alone, a sample everybody's
    return folder


def size_bytes(folder: Path) -> int:
    """Of all files of a sample, but those that can be made again."""
    files = (file for file in folder.rglob("*") if file.is_file() and layout.DERIVED not in file.parts)
    return sum(file.stat().st_size for file in files)


def _labkit(*words: str, data: Path) -> None:
    """Run a command of labkit's in a data folder. Raises ClickException with its exit code if that is not 0."""
    line = [sys.executable, "-c", "from labkit.cli import main; main()", *words]
    done = subprocess.run(line, env=os.environ | {"LABKIT_DATA": str(data)}, check=False)
    if done.returncode:
        raise click.ClickException(f"labkit {' '.join(words)} ended with {done.returncode}: nothing is kept")


@click.command(epilog=f"Names: {', '.join(names())}")
@click.argument("name", type=click.Choice(names()), metavar="NAME")
@click.option("--run", "recorded", help="Keep this run instead of making one.")
@click.option(
    "--instead", "outdated", multiple=True, metavar="RUN", help="Remove this sample once the new one is kept."
)
def main(name: str, recorded: str | None, outdated: tuple[str, ...]) -> None:
    """Record the sample NAME."""
    experiment, samples = experiment_of(name), paths.sample_runs()
    replaced = [RunStore(samples).open(each, experiment).path for each in outdated]
    with tempfile.TemporaryDirectory(prefix="labkit-sample-") as folder:
        data = Path(folder)
        if recorded is None:
            preset = PRESETS / f"{name}.yaml"
            provider = EXPERIMENTS[experiment].parameters.build(read_yaml(preset)).provider
            try:
                _labkit("run", experiment, "-f", str(preset), "-p", f"cluster={CLUSTER}", data=data)
            finally:
                _labkit("down", "--name", CLUSTER, "--purge", "--provider", provider, data=data)
            run = RunStore(data / "runs").latest(experiment)
        else:
            run = open_run(recorded, experiment)
        kept = keep(run, data / "kept")
        _labkit("report", str(kept), data=data)
        if (size := size_bytes(kept)) > LARGEST_BYTES:
            raise click.ClickException(f"{size / MIB:.1f} MiB is more than {LARGEST_BYTES / MIB:g}: ask for less")
        shutil.rmtree(kept / layout.DERIVED)
        place = samples / experiment / kept.name
        shutil.move(kept, place)
    for path in replaced:
        shutil.rmtree(path)
    click.echo(f"{place}: {size / MIB:.2f} MiB")


if __name__ == "__main__":
    main()
