"""The ``cluster`` commands: bring one up to play with, look at it, operate it, take it down."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from raftbed.cli_cluster_hosts import clean, exec_command, forward, proxy, ssh, ssh_config
from raftbed.cli_cluster_options import CLUSTER, NODES, PASSWORD, fleet_of, picked, reached, show, target
from raftbed.cli_options import JSON, access_of
from raftbed.console import Console
from raftbed.errors import EXIT_COULD_NOT_RUN, EXIT_INVALID, EXIT_VALID, HostError


@click.group(name="cluster", short_help="Bring up a cluster to play with, and operate it.")
def cluster_group() -> None:
    """Bring up a cluster to play with, look at it, operate it, take it down.

    Start with:  raftbed cluster up

    What is done on several hosts is done on all of them, whatever becomes of one. Exit codes, where a command does not
    say otherwise: 0 done everywhere, 254 usage, 255 failed on a host.
    """


# -- from up to down ------------------------------------------------------------------------------------------------


@cluster_group.command(short_help="Make hosts, deploy, start nodes, and leave the cluster running.")
@click.option("--cluster", "name", metavar="NAME", default="default", show_default=True, help="What to call it.")
@click.option(
    "--hosts",
    metavar="KIND",
    default="local",
    show_default=True,
    help="Where: local, an inventory.toml, or user@a,user@b.",
)
@click.option("--nodes", type=int, help="How many nodes.  [default: 5, or all hosts of an inventory]")
@click.option("--accept-new-keys", is_flag=True, help="Record host keys that are not known yet; never changed ones.")
@PASSWORD
@click.option("--bug", metavar="NAME", help="Plant a bug in the nodes.")
@click.option(
    "--forward", is_flag=True, help="Open a port on 127.0.0.1 for each node, until the cluster is taken down."
)
@JSON
def up(name: str, hosts: str, nodes: int | None, bug: str | None, forward: bool, as_json: bool, **options: Any) -> int:
    """Make hosts, deploy, start the nodes, wait for a leader, and leave the cluster running.

    Ends by saying how to talk to it. Take it away with: raftbed cluster down
    """
    import asyncio

    from raftbed.operating.bringing_up import UpRequest, bring_up
    from raftbed.operating.clusters import list_clusters
    from raftbed.operating.showing import how_to_talk

    console = Console(json=as_json)
    cluster, leader = asyncio.run(bring_up(UpRequest(name, hosts, nodes, bug, access_of(options)), console.say))
    ports = None
    failed = None
    if forward:
        from raftbed.operating.forwarding import start_in_background

        try:
            ports = start_in_background(cluster)
        except HostError as error:  # the cluster is up: how to use it is told all the same
            failed = error
    addresses = {node: known.address for node, known in cluster.deployed().nodes.items()}
    count = f"{len(addresses)} node{'s' if len(addresses) > 1 else ''}"
    console.result(f"The cluster {cluster.name} is up: {count}, {leader} leads.")
    several = len(list_clusters()) > 1
    with cluster.inventory() as inventory:
        inside = any(entry.open_socket is not None or entry.tunnel for entry in inventory.values())
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
@PASSWORD
@click.option("--force", is_flag=True, help="Forget the cluster even where a host could not be cleaned.")
def down(choice: str | None, ask_sudo_password: bool, force: bool) -> int:
    """Take the cluster away.

    Local hosts are removed with everything on them. Other hosts stay: what raftbed left on them is removed, as `raftbed
    cluster clean` does it.
    """
    from raftbed.operating.taking_down import forget, take_away

    console = Console()
    cluster = picked(choice)
    if cluster.lab is None:
        from raftbed.operating.lifecycle import clean as clean_hosts

        with fleet_of(cluster, (), ask_sudo_password=ask_sudo_password) as fleet:
            code = show(clean_hosts(fleet), console)
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
@reached
@JSON
def status(choice: str | None, hosts: str | None, as_json: bool, **options: Any) -> int:
    """Say how each node is: role, term, applied index, version, free disk, clock, and what is wrong with it.

    Ends with 0 when all nodes are well and follow one leader, else with 1.
    """
    from raftbed.console import table
    from raftbed.operating import health
    from raftbed.operating.examining import examine

    console = Console(json=as_json)
    cluster = target(choice, hosts)
    record = cluster.record if cluster else None
    name = cluster.name if cluster else str(hosts)
    with fleet_of(cluster, (), hosts=hosts, **options) as fleet:
        reports = examine(fleet, record.nodes if record else {}, record.bundle if record else "")
    found = health.problems(reports)
    table(health.rows(reports), console.result)
    console.result(health.summary(name if cluster else f"on {name}", reports))
    forward = cluster.forward() if cluster else None
    for node, port in forward.ports.items() if forward else ():
        console.result(f"  {node}  http://127.0.0.1:{port}")
    if as_json:
        ports = forward.ports if forward else {}
        console.emit({"cluster": name, "healthy": not found, "problems": found, "nodes": reports, "forward": ports})
    return EXIT_INVALID if found else EXIT_VALID


# -- nodes ----------------------------------------------------------------------------------------------------------


@cluster_group.command(short_help="Bring the nodes' code, as it is now, to the hosts.")
@click.option("--bug", metavar="NAME", help="Plant a bug in the nodes; without it, they are honest again.")
@click.option("--at-once", is_flag=True, help="Restart all nodes at once, and not one after the other.")
@CLUSTER
@PASSWORD
def deploy(bug: str | None, at_once: bool, choice: str | None, ask_sudo_password: bool) -> int:
    """Bring the nodes' code, as it is now, to the hosts, and restart the nodes that run.

    Their data stays. They are restarted one after the other, so that the cluster goes on serving.
    """
    import asyncio

    from raftbed.operating import lifecycle
    from raftbed.operating.bringing_up import deploy_again

    console = Console()
    cluster = picked(choice)
    with fleet_of(cluster, (), ask_sudo_password=ask_sudo_password) as fleet:
        record = asyncio.run(deploy_again(cluster, fleet.entries, bug))
        planted = f" with the bug {bug}" if bug else ""
        console.result(f"Code {record.bundle[:8]}{planted} is on all {len(record.nodes)} hosts.")
        running = lifecycle.running(fleet)
        if not running:
            console.result("No node runs; start them with: raftbed cluster start")
            return EXIT_VALID
        return show(lifecycle.restart(fleet.only(running), record, at_once=at_once), console)


@cluster_group.command(short_help="Start nodes.")
@NODES
@CLUSTER
@PASSWORD
def start(nodes: tuple[str, ...], choice: str | None, ask_sudo_password: bool) -> int:
    """Start nodes (default: all) on the data that they have, and wait until they answer."""
    from raftbed.operating import lifecycle

    cluster = picked(choice)
    with fleet_of(cluster, nodes, ask_sudo_password=ask_sudo_password) as fleet:
        return show(lifecycle.start(fleet, cluster.deployed()), Console())


@cluster_group.command(short_help="Stop nodes.")
@NODES
@reached
def stop(nodes: tuple[str, ...], choice: str | None, hosts: str | None, **options: Any) -> int:
    """Stop nodes (default: all): SIGTERM, and SIGKILL to one that does not end within 5 seconds."""
    from raftbed.operating import lifecycle

    with fleet_of(target(choice, hosts), nodes, hosts=hosts, **options) as fleet:
        return show(lifecycle.stop(fleet), Console())


@cluster_group.command(short_help="Stop nodes and start them again.")
@NODES
@click.option("--at-once", is_flag=True, help="All at once, and not one after the other.")
@CLUSTER
@PASSWORD
def restart(nodes: tuple[str, ...], at_once: bool, choice: str | None, ask_sudo_password: bool) -> int:
    """Stop nodes (default: all) and start them again, one after the other, so that the cluster goes on serving.

    When one does not answer again, those behind it are left alone.
    """
    from raftbed.operating import lifecycle

    cluster = picked(choice)
    with fleet_of(cluster, nodes, ask_sudo_password=ask_sudo_password) as fleet:
        return show(lifecycle.restart(fleet, cluster.deployed(), at_once=at_once), Console())


@cluster_group.command(short_help="Show the nodes' logs as one, in the order of their times.")
@NODES
@click.option("--follow", "-f", is_flag=True, help="Go on with what the nodes write, until Ctrl-C.")
@click.option(
    "--lines", "-n", type=click.IntRange(0), default=100, show_default=True, metavar="N", help="Of each node, at first."
)
@reached
def logs(
    nodes: tuple[str, ...], follow: bool, lines: int, choice: str | None, hosts: str | None, **options: Any
) -> int:
    """Show the logs of nodes (default: all) as one, in the order of their times.

    With --follow, a line waits a second at most for earlier ones of other nodes.
    """
    from raftbed.operating import following, showing
    from raftbed.operating.logs import LogLine, merge

    console = Console()
    code = EXIT_VALID
    with fleet_of(target(choice, hosts), nodes, hosts=hosts, **options) as fleet:
        wide = showing.width(fleet.remotes)

        def failed(name: str, error: HostError) -> None:
            for said in showing.failure(name, error):
                console.warn(f"{name.ljust(wide)} | {said}")

        if follow:
            with contextlib.suppress(KeyboardInterrupt):  # the way to end it
                for item in following.follow_logs(fleet, lines):
                    if isinstance(item, LogLine):
                        console.result(showing.log_line(item, wide))
                        if console.is_unread:  # "| head" has what it wants
                            break
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


for _command in (exec_command, clean, ssh, forward, proxy, ssh_config):
    cluster_group.add_command(_command)
