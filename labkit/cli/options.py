"""Options that commands about clusters and commands about runs have alike."""

from __future__ import annotations

import click

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
