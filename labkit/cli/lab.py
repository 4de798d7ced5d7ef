"""labkit lab: JupyterLab, on copies of the notebooks."""

from __future__ import annotations

import os
import shutil
import sys

import click

from labkit import paths


@click.command("lab", context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[JUPYTER OPTIONS]")
def lab(options: tuple[str, ...]) -> None:
    """Open JupyterLab on this machine only; its address, with the token, is printed.

    my_notebooks/ holds your copies of the notebooks. Those that are missing are made; what is there is never
    overwritten. The originals are read-only in JupyterLab: `labkit run` and `labkit report` execute them, whatever
    you change in yours. To begin again with a notebook, delete or rename your copy and run this again.

    Further options are JupyterLab's: `labkit lab --port=8890`.
    """
    own = paths.own_notebooks()
    made = copy_missing()
    click.echo(f"Your notebooks: {own} ({made} copied now; what you changed stays as it is)")
    # A kernel's folder is that of its notebook: without this, an installed labkit would write its data there.
    os.environ["LABKIT_DATA"] = str(paths.data())
    words = ["--ip=127.0.0.1", "--no-browser", f"--ServerApp.root_dir={paths.workplace()}"]
    words.append("--ServerApp.contents_manager_class=labkit.cli.originals.Originals")
    if os.geteuid() == 0:
        words.append("--allow-root")  # Jupyter refuses otherwise; the servers run as an unprivileged user anyway
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *words, *options])


def copy_missing() -> int:
    """Copy the originals that `my_notebooks` lacks; returns how many."""
    own = paths.own_notebooks()
    own.mkdir(exist_ok=True)
    missing = [original for original in sorted(paths.notebooks().glob("*.ipynb")) if not (own / original.name).exists()]
    for original in missing:
        shutil.copyfile(original, own / original.name)
    return len(missing)


commands: list[click.Command] = [lab]
