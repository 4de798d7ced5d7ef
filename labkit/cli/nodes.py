"""Commands for single servers of a cluster: replicas rebuild, stop and clean; logs; psql."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import click
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from labkit.cli.clusters import cluster_name, found, provider_option, reserved
from labkit.errors import BadInput, ClusterError
from labkit.lab.cluster.powers import ReplicaKeeper
from labkit.lab.providers import provider
from labkit.lab.providers.embedded import binaries
from labkit.remedies import setting


@click.group()
def replicas() -> None:
    """Rebuild replicas, stop them, or remove them."""


@replicas.command()
@click.argument("node", required=False)
@cluster_name
@provider_option
def rebuild(node: str | None, name: str, provider_name: str) -> None:
    """Rebuild NODE, or every node that is not the primary: a fresh copy of the primary's data and a new slot.

    For a replica whose slot was lost, and for an old primary after a failover.
    """
    keeper = _keeper(provider_name)
    with reserved(name, provider_name) as cluster:
        primary = cluster.source_for(node) if node else cluster.primary()
        for each in [node] if node else [other.name for other in cluster.nodes if other is not primary]:
            keeper.rebuild(name, each)
            click.echo(f"{each} is a new replica of {primary.name}")


@replicas.command()
@cluster_name
@provider_option
def stop(name: str, provider_name: str) -> None:
    """Stop every node but the primary; the primary keeps the WAL they will need. `labkit up` starts them again."""
    with reserved(name, provider_name) as cluster:
        primary = cluster.primary()
        for node in cluster.nodes:
            if node is not primary and node.control.running():
                node.control.stop()
                click.echo(f"{node.name} is stopped")


@replicas.command()
@click.option("--purge", is_flag=True, help="Yes, delete their data.")
@cluster_name
@provider_option
def clean(purge: bool, name: str, provider_name: str) -> None:
    """Remove every node but the primary, with its data and its slot. `labkit up` makes new ones."""
    keeper = _keeper(provider_name)
    with reserved(name, provider_name) as cluster:
        primary = cluster.primary()
        others = ", ".join(node.name for node in cluster.nodes if node is not primary) or "no node"
        if not purge:
            raise BadInput(
                f"this deletes the data of {others}; say so with --purge",
                remedy=cluster.remedy("stop_replicas", "keeps it"),
            )
        gone = keeper.remove_replicas(name)
    click.echo(f"removed {', '.join(gone) or 'nothing'}; {primary.name} is alone")


@click.command()
@click.argument("node")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(1, 100_000), help="How many.")
@cluster_name
@provider_option
def logs(node: str, lines: int, name: str, provider_name: str) -> None:
    """Show the last lines that NODE wrote, running or not."""
    text = found(name, provider_name).node(node).control.log_tail(lines)
    if not text:
        raise ClusterError("there is no log to show: nothing is written yet, or the server is not labkit's", node=node)
    click.echo(text)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("node")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@cluster_name
@provider_option
@click.pass_context
def psql(context: click.Context, node: str, arguments: tuple[str, ...], name: str, provider_name: str) -> None:
    """Open psql on NODE as its administrator; ARGUMENTS are psql's own, such as -c 'SELECT 1'."""
    program = binaries.find().folder / "psql"
    if not Path(program).exists():
        helps = setting("LABKIT_PG_BIN", "a folder that holds psql too")
        raise ClusterError(f"{program} does not exist", remedy=helps)
    keywords = conninfo_to_dict(found(name, provider_name).node(node).conninfo("admin", application_name="psql"))
    # Every user can read a command line.
    password = str(keywords.pop("password", "") or "")
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    context.exit(subprocess.call([program, "--dbname", make_conninfo("", **keywords), *arguments], env=environment))


def _keeper(provider_name: str) -> ReplicaKeeper:
    found = provider(provider_name)
    if not isinstance(found, ReplicaKeeper):
        raise BadInput(f"provider {provider_name} does not own its servers: replicas cannot be made or removed there")
    return found


commands: list[click.Command] = [replicas, logs, psql]
