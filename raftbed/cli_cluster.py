"""The ``cluster`` commands: bring one up to play with, look at it, operate it, take it down."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from raftbed.cli_options import JSON
from raftbed.console import Console
from raftbed.errors import EXIT_COULD_NOT_RUN, EXIT_INVALID, EXIT_VALID, HostError, UsageError

if TYPE_CHECKING:
    from raftbed.operating.clusters import Cluster
    from raftbed.operating.fleet import Fleet

CLUSTER: Final[Callable[[Any], Any]] = click.option(
    "--cluster", "choice", metavar="NAME|PATH", help="Which cluster, where there are several."
)
NODES: Final[Callable[[Any], Any]] = click.argument("nodes", nargs=-1, metavar="[NODE]...")


@click.group(name="cluster", short_help="Bring up a cluster to play with, and operate it.")
def cluster_group() -> None:
    """Bring up a cluster to play with, look at it, operate it, take it down.

    Start with:  raftbed cluster up

    What is done on several hosts is done on all of them, whatever becomes of one. Exit codes, where a command does not
    say otherwise: 0 done everywhere, 254 usage, 255 failed on a host.
    """


def _picked(choice: str | None) -> Cluster:
    from raftbed.operating.clusters import list_clusters, pick

    return pick(choice, list_clusters())


@contextlib.contextmanager
def _fleet(cluster: Cluster, nodes: Sequence[str]) -> Iterator[Fleet]:
    """The hosts of those nodes, or of all."""
    from raftbed.operating.fleet import Fleet
    from raftbed.operating.showing import names_of

    with cluster.inventory() as inventory:
        chosen = names_of(nodes, inventory)
        with Fleet(inventory[node] for node in chosen) as fleet:
            yield fleet


def _show(results: Mapping[str, str | HostError], console: Console) -> int:
    """A line or more for each host; the exit code."""
    from raftbed.operating.showing import failure, one_code, width

    wide = width(results)
    for name, result in results.items():
        if isinstance(result, HostError):
            for line in failure(name, result):
                console.warn(f"{name.ljust(wide)}  {line}")
        else:
            console.result(f"{name.ljust(wide)}  {result}")
    return one_code(results.values())


# -- from up to down ------------------------------------------------------------------------------------------------


@cluster_group.command(short_help="Make hosts, deploy, start nodes, and leave the cluster running.")
@click.option("--cluster", "name", metavar="NAME", default="default", show_default=True, help="What to call it.")
@click.option("--hosts", metavar="KIND", default="local", show_default=True, help="Where it runs.")
@click.option("--nodes", type=int, help="How many nodes.  [default: 5]")
@click.option("--bug", metavar="NAME", help="Plant a bug in the nodes.")
@click.option(
    "--forward", is_flag=True, help="Open a port on 127.0.0.1 for each node, until the cluster is taken down."
)
@JSON
def up(name: str, hosts: str, nodes: int | None, bug: str | None, forward: bool, as_json: bool) -> int:
    """Make hosts, deploy, start the nodes, wait for a leader, and leave the cluster running.

    Ends by saying how to talk to it. Take it away with: raftbed cluster down
    """
    import asyncio

    from raftbed.operating.bringing_up import UpRequest, bring_up
    from raftbed.operating.clusters import list_clusters
    from raftbed.operating.showing import how_to_talk

    console = Console(json=as_json)
    cluster, leader = asyncio.run(bring_up(UpRequest(name, hosts, nodes, bug), console.say))
    ports = None
    failed = None
    if forward:
        from raftbed.operating.forwarding import start_in_background

        try:
            ports = start_in_background(cluster)
        except HostError as error:  # the cluster is up: how to use it is told all the same
            failed = error
    addresses = {node: known.address for node, known in cluster.deployed().nodes.items()}
    console.result(f"The cluster {cluster.name} is up: {len(addresses)} nodes, {leader} leads.")
    several = len(list_clusters()) > 1
    inside = cluster.lab is not None
    for line in how_to_talk(cluster.name, leader, addresses, ports, inside=inside, several=several):
        console.result(line)
    if as_json:
        document = {"name": cluster.name, "directory": str(cluster.directory), "leader": leader}
        console.emit({"cluster": {**document, "nodes": addresses, "forward": ports or {}}})
    if failed is not None:
        raise failed
    return EXIT_VALID


@cluster_group.command(short_help="Stop the nodes, and take the hosts away.")
@CLUSTER
@click.option("--force", is_flag=True, help="Forget the cluster even where a host could not be cleaned.")
def down(choice: str | None, force: bool) -> int:
    """Take the cluster away.

    Local hosts are removed with everything on them. Other hosts stay: what raftbed left on them is removed, as `raftbed
    cluster clean` does it.
    """
    from raftbed.operating.taking_down import forget, take_away

    console = Console()
    cluster = _picked(choice)
    if cluster.lab is None:
        from raftbed.operating.lifecycle import clean as clean_hosts

        with _fleet(cluster, ()) as fleet:
            code = _show(clean_hosts(fleet), console)
        if code and not force:
            raise HostError(
                f"the cluster {cluster.name} is kept in mind, since not all of its hosts could be cleaned.",
                remedy="Try again, or forget it: raftbed cluster down --force",
            )
        forget(cluster)
    else:
        take_away(cluster)
    console.result(f"The cluster {cluster.name} is gone.")
    return EXIT_VALID


@cluster_group.command(short_help="Say how each node is.")
@CLUSTER
@JSON
def status(choice: str | None, as_json: bool) -> int:
    """Say how each node is: role, term, applied index, version, free disk, clock, and what is wrong with it.

    Ends with 0 when all nodes are well and follow one leader, else with 1.
    """
    from raftbed.console import table
    from raftbed.operating import health
    from raftbed.operating.examining import examine

    console = Console(json=as_json)
    cluster = _picked(choice)
    record = cluster.record
    with _fleet(cluster, ()) as fleet:
        reports = examine(fleet, record.nodes if record else {}, record.bundle if record else "")
    found = health.problems(reports)
    table(health.rows(reports), console.result)
    console.result(health.summary(cluster.name, reports))
    forward = cluster.forward()
    for node, port in forward.ports.items() if forward else ():
        console.result(f"  {node}  http://127.0.0.1:{port}")
    if as_json:
        ports = forward.ports if forward else {}
        console.emit(
            {"cluster": cluster.name, "healthy": not found, "problems": found, "nodes": reports, "forward": ports}
        )
    return EXIT_INVALID if found else EXIT_VALID


# -- nodes ----------------------------------------------------------------------------------------------------------


@cluster_group.command(short_help="Bring the nodes' code, as it is now, to the hosts.")
@click.option("--bug", metavar="NAME", help="Plant a bug in the nodes; without it, they are honest again.")
@click.option("--at-once", is_flag=True, help="Restart all nodes at once, and not one after the other.")
@CLUSTER
def deploy(bug: str | None, at_once: bool, choice: str | None) -> int:
    """Bring the nodes' code, as it is now, to the hosts, and restart the nodes that run.

    Their data stays. They are restarted one after the other, so that the cluster goes on serving.
    """
    import asyncio

    from raftbed.operating import lifecycle
    from raftbed.operating.bringing_up import deploy_again

    console = Console()
    cluster = _picked(choice)
    with cluster.inventory() as inventory:
        record = asyncio.run(deploy_again(cluster, inventory, bug))
    planted = f" with the bug {bug}" if bug else ""
    console.result(f"Code {record.bundle[:8]}{planted} is on all {len(record.nodes)} hosts.")
    with _fleet(cluster, ()) as fleet:
        running = lifecycle.running(fleet)
    if not running:
        console.result("No node runs; start them with: raftbed cluster start")
        return EXIT_VALID
    with _fleet(cluster, running) as fleet:
        return _show(lifecycle.restart(fleet, record, at_once=at_once), console)


@cluster_group.command(short_help="Start nodes.")
@NODES
@CLUSTER
def start(nodes: tuple[str, ...], choice: str | None) -> int:
    """Start nodes (default: all) on the data that they have, and wait until they answer."""
    from raftbed.operating import lifecycle

    cluster = _picked(choice)
    with _fleet(cluster, nodes) as fleet:
        return _show(lifecycle.start(fleet, cluster.deployed()), Console())


@cluster_group.command(short_help="Stop nodes.")
@NODES
@CLUSTER
def stop(nodes: tuple[str, ...], choice: str | None) -> int:
    """Stop nodes (default: all): SIGTERM, and SIGKILL to one that does not end within 5 seconds."""
    from raftbed.operating import lifecycle

    with _fleet(_picked(choice), nodes) as fleet:
        return _show(lifecycle.stop(fleet), Console())


@cluster_group.command(short_help="Stop nodes and start them again.")
@NODES
@click.option("--at-once", is_flag=True, help="All at once, and not one after the other.")
@CLUSTER
def restart(nodes: tuple[str, ...], at_once: bool, choice: str | None) -> int:
    """Stop nodes (default: all) and start them again, one after the other, so that the cluster goes on serving.

    When one does not answer again, those behind it are left alone.
    """
    from raftbed.operating import lifecycle

    cluster = _picked(choice)
    with _fleet(cluster, nodes) as fleet:
        return _show(lifecycle.restart(fleet, cluster.deployed(), at_once=at_once), Console())


@cluster_group.command(short_help="Show the nodes' logs as one, in the order of their times.")
@NODES
@click.option("--follow", "-f", is_flag=True, help="Go on with what the nodes write, until Ctrl-C.")
@click.option(
    "--lines", "-n", type=click.IntRange(0), default=100, show_default=True, metavar="N", help="Of each node, at first."
)
@CLUSTER
def logs(nodes: tuple[str, ...], follow: bool, lines: int, choice: str | None) -> int:
    """Show the logs of nodes (default: all) as one, in the order of their times.

    With --follow, a line waits a second at most for earlier ones of other nodes.
    """
    from raftbed.operating import following, showing
    from raftbed.operating.logs import LogLine, merge

    console = Console()
    code = EXIT_VALID
    with _fleet(_picked(choice), nodes) as fleet:
        wide = showing.width(fleet.remotes)

        def failed(name: str, error: HostError) -> None:
            for said in showing.failure(name, error):
                console.warn(f"{name.ljust(wide)} | {said}")

        if follow:
            with contextlib.suppress(KeyboardInterrupt):  # the way to end it
                for item in following.follow_logs(fleet, lines):
                    if isinstance(item, LogLine):
                        console.result(showing.log_line(item, wide))
                    else:
                        code = EXIT_COULD_NOT_RUN
                        failed(item.host, item)
            return code
        read = following.read_logs(fleet, lines)
        for line in merge(found for found in read.values() if not isinstance(found, HostError)):
            console.result(showing.log_line(line, wide))
        for name, found in read.items():
            if isinstance(found, HostError):
                failed(name, found)
        return showing.one_code(read.values())


# -- hosts ----------------------------------------------------------------------------------------------------------


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


@cluster_group.command(name="exec", cls=_Exec, short_help="Run a command on the hosts, and show what each one said.")
@NODES
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 1e6),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="It is killed then.",
)
@CLUSTER
@click.pass_context
def exec_command(context: click.Context, nodes: tuple[str, ...], timeout: float, choice: str | None) -> int:
    """Run COMMAND as root on the hosts of nodes (default: all) at once, and show what each one said, in their order.

    No shell reads COMMAND; for a shell's ways write:  raftbed cluster exec -- sh -c 'ps aux | wc -l'

    Ends with the largest exit status, or with 255 when a host could not be reached.
    """
    from raftbed.operating import showing

    command: tuple[str, ...] = context.obj
    if not command:
        raise UsageError("no command is given.", remedy="It stands behind two hyphens: raftbed cluster exec -- uptime")
    console = Console()
    with _fleet(_picked(choice), nodes) as fleet:
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


@cluster_group.command(short_help="Remove what raftbed left on the hosts: processes, faults, files.")
@NODES
@CLUSTER
def clean(nodes: tuple[str, ...], choice: str | None) -> int:
    """Remove what raftbed left on the hosts of nodes (default: all): processes, faults in force, files.

    The hosts stay, and the cluster's data is gone. `raftbed cluster deploy` and `raftbed cluster start` make a new one.
    """
    from raftbed.operating import lifecycle

    with _fleet(_picked(choice), nodes) as fleet:
        return _show(lifecycle.clean(fleet), Console())


@cluster_group.command(short_help="Log in to a node's host.")
@click.argument("node", metavar="NODE")
@CLUSTER
def ssh(node: str, choice: str | None) -> int:
    """Log in to the host of NODE, with OpenSSH where it is installed."""
    from raftbed.operating.ssh_access import log_in

    return log_in(_picked(choice), node)


@cluster_group.command(short_help="Open a port on 127.0.0.1 for each node, until Ctrl-C.")
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

    forwarding.forward(_picked(choice), port, ready)
    return EXIT_VALID


@cluster_group.command(short_help="Join standard input and output to a node's SSH port.")
@click.argument("node", metavar="NODE")
@CLUSTER
def proxy(node: str, choice: str | None) -> int:
    """Join standard input and output to the SSH port of NODE: a ProxyCommand for OpenSSH.

    With it, whatever speaks SSH reaches into the network of local hosts. `raftbed cluster ssh-config` writes it where
    OpenSSH finds it.
    """
    from raftbed.operating.proxy import connect, join

    with _picked(choice).inventory() as inventory:
        join(connect(inventory.entry(node)), sys.stdin.fileno(), sys.stdout.fileno())
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
        first = text.split(maxsplit=2)[1]
        Console().result(f"{out} is written. Use it so: ssh -F {shlex.quote(str(out))} {first}")
    return EXIT_VALID
