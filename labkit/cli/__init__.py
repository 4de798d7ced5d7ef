"""The command line.

Exit codes: 0 done and valid, 1 a verdict failed, 2 bad usage or could not run, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import errno
from importlib.metadata import version
from typing import Any

import click
import psutil

from labkit import interrupts
from labkit.cli import clusters, datasets, failovers, lab, nodes, wording
from labkit.errors import LabkitError

# What the machine refuses rather than labkit's own doing; any other OSError is a bug and keeps its traceback.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


class _Lab(click.Group):
    """Turns the errors that labkit means into one message on stderr and their exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._reading()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._reading().get(cmd_name)

    def _reading(self) -> dict[str, click.Command]:
        # pandas, matplotlib and nbconvert take seconds to load: `labkit status` should not wait for them.
        from labkit.cli import audits, runs

        return {str(command.name): command for command in (*runs.commands, *audits.commands)}

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with interrupts.sigterm(then_end=False):
                return super().invoke(ctx)
        except LabkitError as error:
            click.echo(f"Error: {wording.explain(error)}", err=True)
            ctx.exit(error.exit_code)
        except psutil.AccessDenied as error:
            click.echo(f"Error: process {error.pid} belongs to another user; run labkit as that user", err=True)
            ctx.exit(2)
        except OSError as error:
            if error.errno not in _MACHINE:
                raise
            click.echo(f"Error: {error}; free or open it, or point LABKIT_DATA elsewhere", err=True)
            ctx.exit(2)
        except KeyboardInterrupt as error:
            click.echo(f"{interrupts.reason(error)}; `labkit status` shows what runs", err=True)
            ctx.exit(interrupts.exit_code(error))


@click.group(cls=_Lab, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("labkit"), package_name="labkit")
def main() -> None:
    """What do PostgreSQL's streaming replicas buy you, and what do you lose when the primary dies?"""


for command in (*clusters.commands, *datasets.commands, *nodes.commands, *failovers.commands, *lab.commands):
    main.add_command(command)
