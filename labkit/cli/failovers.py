"""Commands for a lost primary: failover, rejoin."""

from __future__ import annotations

import contextlib
import json

import click

from labkit.cli import wording
from labkit.cli.clusters import cluster_name, provider_option, reserved
from labkit.cli.options import as_json_option
from labkit.errors import BadInput, ClusterError
from labkit.lab.cluster import sql, synchronize
from labkit.lab.cluster.cluster import Cluster
from labkit.lab.cluster.node import Node
from labkit.lab.failover import FailoverSteps, Policy, note
from labkit.remedies import advice
from labkit.run import steps
from labkit.run.kinds import event


@click.command()
@cluster_name
@provider_option
@click.option("--old", default=None, help="The primary that failed; found out if only one node does not answer.")
@click.option(
    "--max-lag-bytes",
    default=Policy.max_lag_bytes,
    show_default=True,
    type=click.IntRange(min=0),
    help="Promote no replica further behind.",
)
@click.option("--accept-data-loss", is_flag=True, help="Promote although committed rows may be lost.")
@as_json_option
def failover(
    name: str, provider_name: str, old: str | None, max_lag_bytes: int, accept_data_loss: bool, as_json: bool
) -> None:
    """Promote the best replica of a cluster whose primary does not answer, and have the others follow it.

    Refused, with the reason, where rows could be lost; then nothing is promoted. One that was cut off goes on.
    """
    with reserved(name, provider_name) as cluster:
        _failover(cluster, old, Policy(max_lag_bytes, accept_data_loss), as_json)


def _failover(cluster: Cluster, old: str | None, policy: Policy, as_json: bool) -> None:
    took_ms: dict[str, object] = {}

    def tell(kind: str, **details: object) -> None:
        if "took_ms" not in details:
            return
        took_ms[kind] = details["took_ms"]
        if not as_json:
            lines = steps.said(event(kind, **details)).splitlines()
            click.echo(f"{kind:<10} {float(str(details['took_ms'])):7.0f} ms   {lines[0]}")
            for line in lines[1:]:
                click.echo(f"{'':<24}{line}")

    lost = cluster.node(old) if old else None
    with contextlib.closing(FailoverSteps(cluster, lost, policy, log=tell)) as taking:
        lost = taking.old
        if taking.serves_again():
            taking.give_up()
            said = f"{lost.name} answers as primary again: the failover is given up, its replicas follow it"
            click.echo(json.dumps({"primary": lost.name, "given_up": True}) if as_json else said)
            return
        new = taking.run()
    decision = taking.decision
    assert decision is not None
    left_behind = {node: f"{e.reason}; {wording.suggest(e.remedies)}" for node, e in taking.left_behind.items()}
    if as_json:
        content = {"primary": new.name, "given_up": False, "old": lost.name, "took_ms": took_ms}
        content |= {"decision": [standing.as_json() for standing in decision.table()], "choices": decision.choices}
        content |= {"overridden": decision.refusals, "left_behind": left_behind}
        click.echo(json.dumps(content, indent=1))
        return
    for survivor in decision.survivors:
        if not survivor.answers:
            again = cluster.remedy("rejoin", "brings it back", node=survivor.name)
            click.echo(f"{survivor.name} does not answer; {wording.suggest([again])}")
    for node, reason in left_behind.items():
        click.echo(f"{node} does not follow {new.name}: {reason}")
    back = cluster.remedy("rejoin", f"makes {lost.name} its replica", node=lost.name)
    click.echo(f"{new.name} is the primary; {wording.suggest([back])}")


@click.command()
@click.argument("node")
@cluster_name
@provider_option
@as_json_option
def rejoin(node: str, name: str, provider_name: str, as_json: bool) -> None:
    """Make NODE, an old primary, a replica of the new one: by pg_rewind, or by a base backup where that cannot."""
    with reserved(name, provider_name) as cluster:
        cluster.check_owned("changed")
        old = cluster.node(node)
        roles = cluster.roles()
        if roles[node] == "primary" and list(roles.values()).count("primary") == 1:
            raise BadInput(f"{node} is the primary", remedy=advice("name the one that was primary before"))
        with note.alone_on(cluster):
            _rejoin(cluster, old, cluster.source_for(node), as_json)


def _rejoin(cluster: Cluster, old: Node, new: Node, as_json: bool) -> None:
    from labkit.lab.failover import rejoining  # brings numpy and Parquet along; no other command needs them

    node = old.name
    with new.session() as connection:
        before = synchronize.current(connection)
    with contextlib.suppress(ClusterError), old.session() as connection:  # as a rule it does not answer
        if sql.streaming_from(connection) == new.peer:
            helps = cluster.remedy("rebuild", "copies its data again all the same", node=node)
            raise BadInput(f"{node} follows {new.name} already", remedy=helps)
    replication = rejoining.promised(cluster, old, new)
    how = rejoining.rejoin(cluster, old, new, replication)
    if as_json:
        content = {"node": node, "primary": new.name, "how": how}
        click.echo(json.dumps(content | {"mode": str(replication), "level": replication.level}, indent=1))
        return
    raised = f" as before the failover (it was {before}, {before.level})" if before != replication else ""
    click.echo(f"{node} is a replica of {new.name} ({how}); replication is {replication}, {replication.level}{raised}")


commands: list[click.Command] = [failover, rejoin]
