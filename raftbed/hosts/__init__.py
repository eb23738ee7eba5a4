"""Hosts: where the system under test runs; every kind speaks SSH."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftbed.errors import UsageError
from raftbed.hosts.base import CommandResult, Endpoint, Host, HostPool, SocketFactory

if TYPE_CHECKING:
    from raftbed.hosts.inventory_file import Access

__all__ = ["HOST_KINDS", "CommandResult", "Endpoint", "Host", "HostPool", "SocketFactory", "make_pool"]

HOST_KINDS: Final = ("local", "docker", "vagrant")
"""The kinds of host that raftbed makes; others are named by an inventory."""


def make_pool(kind: str, names: Sequence[str], directory: Path, *, access: Access | None = None) -> HostPool:
    """The hosts of a run, not started yet.

    Parameters:
        kind: one of `HOST_KINDS`, the path of an inventory (``.toml``), or destinations, "user@a,user@b".
        names: of the hosts, in order.
        directory: a private directory, empty or absent, for whatever the hosts need kept while they exist.
        access: what the command line adds to an inventory.

    Raises:
        UsageError: there is no such kind, or the names do not fit it.
    """
    if kind == "local":
        from raftbed.hosts.local import LocalPool

        return LocalPool(names, directory)
    if kind == "docker":
        from raftbed.hosts.docker import DockerPool

        return DockerPool(names, directory)
    if kind == "vagrant":
        from raftbed.hosts.vagrant import VagrantPool

        return VagrantPool(names, directory, up=access is not None and access.up)
    from raftbed.hosts.inventory_file import is_inventory, read_inventory

    if is_inventory(kind):
        from raftbed.hosts.remote import InventoryPool

        return InventoryPool(read_inventory(kind, access), names)
    raise UsageError(f"there is no kind of host {kind!r}.", remedy=f"Kinds of host: {', '.join(HOST_KINDS)}, "
                     "an inventory such as cluster.toml, or user@host,user@host.")  # fmt: skip
