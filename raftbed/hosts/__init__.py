"""Hosts: where the system under test runs; every kind speaks SSH."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from raftbed.errors import UsageError
from raftbed.hosts.base import CommandResult, Host, HostPool, SocketFactory

__all__ = ["HOST_KINDS", "CommandResult", "Host", "HostPool", "SocketFactory", "make_pool"]

HOST_KINDS: Final = ("local", "docker")
"""The kinds of host that there are."""


def make_pool(kind: str, names: Sequence[str], directory: Path) -> HostPool:
    """The hosts of a run, not started yet.

    Parameters:
        kind: one of `HOST_KINDS`.
        names: of the hosts, in order.
        directory: a private directory, empty or absent, for whatever the hosts need kept while they exist.

    Raises:
        UsageError: there is no such kind, or the names do not fit it.
    """
    if kind == "local":
        from raftbed.hosts.local import LocalPool

        return LocalPool(names, directory)
    if kind == "docker":
        from raftbed.hosts.docker import DockerPool

        return DockerPool(names, directory)
    raise UsageError(f"there is no kind of host {kind!r}.", remedy=f"Kinds of host: {', '.join(HOST_KINDS)}.")
