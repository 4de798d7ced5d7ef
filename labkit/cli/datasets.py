"""labkit dataset: the users table that experiments read."""

from __future__ import annotations

import json

import click

from labkit.cli.clusters import cluster_name, found, provider_option
from labkit.cli.options import as_json_option


@click.group("dataset")
def dataset_group() -> None:
    """Look after the users table that read experiments make."""


@dataset_group.command()
@cluster_name
@provider_option
@as_json_option
def remove(name: str, provider_name: str, as_json: bool) -> None:
    """Drop the tables that seeding made, and no others: on servers that are not labkit's, what it leaves behind.

    Tables that labkit makes say so in their comment. A table `users` without it is somebody else's and stays.
    """
    from labkit.lab import dataset  # brings numpy along; no other command needs it

    tables = dataset.remove(found(name, provider_name))
    if as_json:
        click.echo(json.dumps([{"table": table, "removed": made} for table, made in tables.items()], indent=1))
        return
    if gone := [table for table, made in tables.items() if made]:
        click.echo(f"removed: {', '.join(gone)}")
    for table in (table for table, made in tables.items() if not made):
        click.echo(f"kept: {table}, which is not marked as made by labkit")
    if not tables:
        click.echo("there is nothing to remove")


commands: list[click.Command] = [dataset_group]
