"""Options and helpers that the ``cluster`` commands share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from raftbed.cli_options import access_of
from raftbed.console import Console
from raftbed.errors import HostError, UsageError

if TYPE_CHECKING:
    from raftbed.operating.clusters import Cluster
    from raftbed.operating.fleet import Fleet

CLUSTER: Final[Callable[[Any], Any]] = click.option(
    "--cluster", "choice", metavar="NAME|PATH", help="Which cluster, where there are several."
)
PASSWORD: Final[Callable[[Any], Any]] = click.option(
    "--ask-sudo-password", is_flag=True, help="Ask for the password of sudo on the hosts."
)
NODES: Final[Callable[[Any], Any]] = click.argument("nodes", nargs=-1, metavar="[NODE]...")


def picked(choice: str | None) -> Cluster:
    """The cluster that the user means."""
    from raftbed.operating.clusters import find

    return find(choice)


def reached(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a command that works on hosts, whatever runs on them."""
    hosts = click.option(
        "--hosts", metavar="INVENTORY", help="On these hosts, whether or not a cluster is known there."
    )
    decorated: Callable[..., Any] = CLUSTER(hosts(PASSWORD(function)))
    return decorated


@contextlib.contextmanager
def fleet_of(
    cluster: Cluster | None,
    nodes: Sequence[str],
    *,
    hosts: str | None = None,
    ask_sudo_password: bool = False,
) -> Iterator[Fleet]:
    """The hosts of those nodes, or of all, of a cluster or of an inventory."""
    from dataclasses import replace

    from raftbed.hosts.inventory_file import read_inventory
    from raftbed.operating.fleet import Fleet
    from raftbed.operating.showing import names_of

    password = access_of({"ask_sudo_password": ask_sudo_password, "accept_new_keys": False}).sudo_password
    known = cluster.inventory() if cluster is not None else contextlib.nullcontext(read_inventory(hosts or ""))
    with known as inventory:
        chosen = names_of(nodes, inventory)
        with Fleet(replace(inventory[node], sudo_password=password) for node in chosen) as fleet:
            yield fleet


def target(choice: str | None, hosts: str | None) -> Cluster | None:
    """The cluster that is meant; None where hosts are named instead."""
    if hosts is None:
        return picked(choice)
    if choice is not None:
        raise UsageError("--cluster and --hosts are two ways to say the same.", remedy="Use one of them.")
    return None


def show(results: Mapping[str, str | HostError], console: Console) -> int:
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
