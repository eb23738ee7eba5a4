"""Every kind of host that the contract of a host is tried on: a table, to which a new kind adds one row."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests_docker import docker_pool, why_no_engine
from tests_inventory import inventory_through_proxy

from raftbed.errors import HostError
from raftbed.hosts import labs, make_pool
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


@contextlib.asynccontextmanager
async def kept_lab(names: Sequence[str], directory: Path, **options: Any) -> AsyncIterator[Path]:
    """The directory of a lab of hosts that outlive the pool which made them, as after `raftbed cluster up`.

    It is known in a registry of its own, so that it is no cluster of the user who runs the tests.
    """
    lab, runtime = directory / "lab", directory / "runtime"
    runtime.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", str(runtime))
        made = LocalPool(names, lab, **options)
        kept = False
        try:
            await made.start()
            kept = True
        finally:
            await made.close(keep=kept)
        try:
            yield lab
        finally:
            found = labs.lab_info(lab)
            if found is not None:
                await asyncio.to_thread(labs.remove_lab, found)


def inventory(mode: str, server: str) -> Kind:
    """An inventory that leads to local hosts by plain SSH, with `raftbed cluster proxy` as its ProxyCommand."""

    @contextlib.asynccontextmanager
    async def pool(directory: Path) -> AsyncIterator[HostPool]:
        async with kept_lab(NAMES, directory, mode=mode, server=server) as lab:
            made = make_pool(str(inventory_through_proxy(lab, directory)), NAMES, directory)
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


def processes_in(namespaces: set[str]) -> list[int]:
    """The processes of this machine that are in one of these network namespaces."""
    found = []
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):
            if os.readlink(path) in namespaces:
                found.append(int(path.parts[2]))
    return found


async def network_namespaces(pool: LocalPool) -> set[str]:
    """Those of all hosts of a pool, as /proc names them."""
    return {(await host.run(["readlink", "/proc/self/ns/net"])).stdout.strip() for host in pool.hosts.values()}
