"""Every kind of host that the contract of a host is tried on: a table, to which a new kind adds one row."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from tests_docker import docker_pool, why_no_engine
from tests_inventory import inventory_through_proxy

from raftbed.errors import HostError
from raftbed.hosts import make_pool
from raftbed.hosts.base import HostPool
from raftbed.hosts.local import LocalPool
from raftbed.hosts.prerequisites import find_program, namespace_obstacle, possible_modes, require_programs

NAMES = ("n1", "n2", "n3")


@dataclass(frozen=True)
class Kind:
    """A kind of host.

    Attributes:
        name: for the test's name.
        why_not: why there can be none here, or "".
        pool: a pool of three, n1 to n3, that is up; takes a directory that is the test's.
    """

    name: str
    why_not: Callable[[], str]
    pool: Callable[[Path], contextlib.AbstractAsyncContextManager[HostPool]]


def why_no_local(mode: str, server: str) -> str:
    """Why this user cannot have such local hosts here; "" when he can."""
    try:
        require_programs()
    except HostError as error:
        return str(error)
    obstacle = namespace_obstacle()
    if obstacle is not None:
        return obstacle.reason
    if mode not in possible_modes():
        needs = {"root": "root", "multi": "uidmap and a range in /etc/subuid", "single": "an ordinary user"}
        return f"mode {mode} needs {needs[mode]}"
    if server == "openssh" and not find_program("sshd"):
        return "needs sshd (apt-get install openssh-server)"
    return ""


def local(mode: str, server: str) -> Kind:
    """Hosts out of namespaces."""

    @contextlib.asynccontextmanager
    async def pool(directory: Path) -> AsyncIterator[HostPool]:
        made = LocalPool(NAMES, directory / "lab", mode=mode, server=server)  # type: ignore[arg-type]
        await made.start()
        try:
            yield made
        finally:
            await made.close()

    return Kind(f"local-{mode}-{server}", lambda: why_no_local(mode, server), pool)


def inventory(mode: str, server: str) -> Kind:
    """An inventory that leads to local hosts by plain SSH: an SSH configuration with a ProxyCommand into the lab."""

    @contextlib.asynccontextmanager
    async def pool(directory: Path) -> AsyncIterator[HostPool]:
        async with local(mode, server).pool(directory) as machines:
            assert isinstance(machines, LocalPool)
            made = make_pool(str(inventory_through_proxy(machines, directory / "lab", directory)), NAMES, directory)
            await made.start()
            try:
                yield made
            finally:
                await made.close()

    return Kind(f"inventory-{mode}-{server}", lambda: why_no_local(mode, server), pool)


def docker() -> Kind:
    """Containers."""
    return Kind("docker", why_no_engine, lambda directory: docker_pool(NAMES, directory))


_OF_ROOT = (local("root", "openssh"), local("root", "embedded"), inventory("root", "openssh"), docker())
_OF_USERS = (local("multi", "openssh"), local("single", "embedded"), inventory("single", "embedded"))

KINDS = _OF_ROOT if os.geteuid() == 0 else _OF_USERS
"""What the user who runs the tests may have; as root, the others are tried by `test_hosts_as_user.py`."""
