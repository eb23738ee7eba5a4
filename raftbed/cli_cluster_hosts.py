"""The ``cluster`` commands that work on hosts, and those that lead to them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from raftbed.cli_cluster_options import CLUSTER, NODES, fleet_of, picked, reached, show, target
from raftbed.console import Console
from raftbed.errors import EXIT_VALID, HostError, UsageError


class _Exec(click.Command):
    """Everything behind the first ``--`` is the command, whatever it looks like."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            args, ctx.obj = args[:place], tuple(args[place + 1 :])
        else:
            ctx.obj = ()
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "--", "COMMAND..."]


@click.command(name="exec", cls=_Exec, short_help="Run a command on the hosts, and show what each one said.")
@NODES
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 1e6),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="It is killed then.",
)
@reached
@click.pass_context
def exec_command(
    context: click.Context,
    /,
    nodes: tuple[str, ...],
    timeout: float,
    choice: str | None,
    hosts: str | None,
    **options: Any,
) -> int:
    """Run COMMAND as root on the hosts of nodes (default: all) at once, and show what each one said, in their order.

    No shell reads COMMAND; for pipes and variables:

    \b
      raftbed cluster exec -- sh -c 'ps aux | wc -l'

    Ends with the largest exit status, or with 255 when a host could not be reached.
    """
    from raftbed.operating import showing

    command: tuple[str, ...] = context.obj
    if not command:
        raise UsageError("no command is given.", remedy="It stands behind two hyphens: raftbed cluster exec -- uptime")
    console = Console()
    with fleet_of(target(choice, hosts), nodes, hosts=hosts, **options) as fleet:
        results = fleet.run(command, timeout=timeout)
    wide = showing.width(results)
    for name, result in results.items():
        if isinstance(result, HostError):
            for said in showing.failure(name, result):
                console.warn(f"{name.ljust(wide)} | {said}")
            continue
        for line in showing.prefixed(name, result.stdout, wide):
            console.result(line)
        for line in showing.prefixed(name, result.stderr, wide):
            console.warn(line)
        if result.status:
            console.warn(f"{name.ljust(wide)} | {shlex.join(command)}: status {result.status}")
    return showing.worst_status(results.values())


@click.command(short_help="Remove what raftbed left on the hosts: processes, faults, files.")
@NODES
@reached
def clean(nodes: tuple[str, ...], choice: str | None, hosts: str | None, **options: Any) -> int:
    """Remove what raftbed left on the hosts of nodes (default: all): processes, faults in force, files.

    The hosts stay, and the cluster's data is gone. `raftbed cluster deploy` and `raftbed cluster start` make a new one.
    """
    from raftbed.hosts import tunnel_directory
    from raftbed.operating import lifecycle

    tunnel_directory.sweep()
    with fleet_of(target(choice, hosts), nodes, hosts=hosts, **options) as fleet:
        return show(lifecycle.clean(fleet), Console())


@click.command(short_help="Log in to a node's host.")
@click.argument("node", metavar="NODE")
@CLUSTER
def ssh(node: str, choice: str | None) -> int:
    """Log in to the host of NODE, with OpenSSH where it is installed."""
    from raftbed.operating.ssh_access import log_in

    return log_in(picked(choice), node)


@click.command(short_help="Open a port on 127.0.0.1 for each node, until Ctrl-C.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="N", help="Of the first node; the others follow.")
@CLUSTER
def forward(port: int | None, choice: str | None) -> int:
    """Open a port on 127.0.0.1 for each node, and forward what comes there, until Ctrl-C or the cluster's end."""
    from raftbed.operating import forwarding

    console = Console()

    def ready(ports: Mapping[str, int]) -> None:
        for node, number in ports.items():
            console.result(f"{node}  http://127.0.0.1:{number}")
        console.say("Ctrl-C ends it.")

    forwarding.forward(picked(choice), port, ready)
    return EXIT_VALID


@click.command(short_help="Join standard input and output to a node's SSH port.")
@click.argument("node", metavar="NODE")
@CLUSTER
def proxy(node: str, choice: str | None) -> int:
    """Join standard input and output to the SSH port of NODE: a ProxyCommand for OpenSSH.

    With it, whatever speaks SSH reaches into the network of local hosts. `raftbed cluster ssh-config` writes it where
    OpenSSH finds it.
    """
    from raftbed.operating.proxy import connect, join

    with picked(choice).inventory() as inventory:
        join(connect(inventory.entry(node)), sys.stdin.fileno(), sys.stdout.fileno())
    return EXIT_VALID


@click.command(name="ssh-config", short_help="Print a configuration with which plain ssh reaches the nodes.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it to a file.")
@CLUSTER
def ssh_config(out: Path | None, choice: str | None) -> int:
    """Print a configuration for OpenSSH, with a Host for each node.

    \b
      raftbed cluster ssh-config --out FILE
      ssh -F FILE n1
    """
    from raftbed.operating import ssh_access
    from raftbed.private_files import write_private

    cluster = picked(choice)
    text = ssh_access.configuration(cluster)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_private(out, text.encode())
        first = text.split(maxsplit=2)[1]
        Console().result(f"{out} is written. Use it so: ssh -F {shlex.quote(str(out))} {first}")
    return EXIT_VALID
