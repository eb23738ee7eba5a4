"""The ``cluster`` commands: bring one up to play with, look at it, operate it, take it down."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from raftbed.cli_options import JSON
from raftbed.console import Console
from raftbed.errors import EXIT_VALID

if TYPE_CHECKING:
    from raftbed.operating.clusters import Cluster

CLUSTER: Final[Callable[[Any], Any]] = click.option(
    "--cluster", "choice", metavar="NAME|PATH", help="Which cluster, where there are several."
)


@click.group(name="cluster", short_help="Bring up a cluster to play with, and operate it.")
def cluster_group() -> None:
    """Bring up a cluster to play with, look at it, operate it, take it down.

    Start with:  raftbed cluster up
    """


def _picked(choice: str | None) -> Cluster:
    from raftbed.operating.clusters import list_clusters, pick

    return pick(choice, list_clusters())


@cluster_group.command(short_help="Make hosts, deploy, start nodes, and leave the cluster running.")
@click.option("--cluster", "name", metavar="NAME", help="What to call it.  [default: default]")
@click.option("--hosts", metavar="KIND", default="local", show_default=True, help="Where it runs.")
@click.option("--nodes", type=int, help="How many nodes.  [default: 5]")
@click.option("--bug", metavar="NAME", help="Plant a bug in the nodes.")
@JSON
def up(name: str | None, hosts: str, nodes: int | None, bug: str | None, as_json: bool) -> int:
    """Make hosts, deploy, start the nodes, wait for a leader, and leave the cluster running."""
    import asyncio

    from raftbed.operating.bringing_up import UpRequest, bring_up
    from raftbed.operating.clusters import DEFAULT_NAME

    console = Console(json=as_json)
    cluster = asyncio.run(bring_up(UpRequest(name or DEFAULT_NAME, hosts, nodes, bug), console.say))
    console.result(f"The cluster {cluster.name} is up.")
    return EXIT_VALID


@cluster_group.command(short_help="Take local hosts away.")
@CLUSTER
def down(choice: str | None) -> int:
    """Take the cluster's local hosts away, with everything on them."""
    from raftbed.hosts import labs
    from raftbed.operating import clusters

    console = Console()
    cluster = _picked(choice)
    if cluster.lab is not None:
        labs.remove_lab(cluster.lab)
    clusters.forget(cluster)
    console.result(f"The cluster {cluster.name} is gone.")
    return EXIT_VALID


@cluster_group.command(short_help="Join standard input and output to a node's SSH port.")
@click.argument("node", metavar="NODE")
@CLUSTER
def proxy(node: str, choice: str | None) -> int:
    """Join standard input and output to the SSH port of NODE: a ProxyCommand for OpenSSH.

    With it, whatever speaks SSH reaches into the network of local hosts. `raftbed cluster ssh-config` writes it where
    OpenSSH finds it.
    """
    from raftbed.errors import HostError
    from raftbed.hosts.ssh import open_connected
    from raftbed.operating.proxy import join

    with _picked(choice).inventory() as inventory:
        entry = inventory.entry(node)
        try:
            opened = open_connected(entry)
        except OSError as error:
            raise HostError(f"{entry.address}:{entry.port} cannot be reached: {error.strerror or error}.",
                            host=node) from error  # fmt: skip
        opened.settimeout(None)
        join(opened, sys.stdin.fileno(), sys.stdout.fileno())
    return EXIT_VALID


@cluster_group.command(name="ssh-config", short_help="Print a configuration with which plain ssh reaches the nodes.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it to a file.")
@CLUSTER
def ssh_config(out: Path | None, choice: str | None) -> int:
    """Print a configuration for OpenSSH, with a Host for each node.

    raftbed cluster ssh-config --out FILE, and then: ssh -F FILE n1
    """
    from raftbed.operating import clusters, ssh_access

    cluster = _picked(choice)
    text = ssh_access.configuration(cluster)
    if out is None:
        click.echo(text, nl=False)
    else:
        clusters.write_private(out, text.encode())
        Console().result(f"{out} is written; use it so: ssh -F {out} {next(iter(text.split()[1:]))}")
    return EXIT_VALID
