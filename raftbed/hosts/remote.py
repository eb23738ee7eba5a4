"""Hosts that are somebody's machines: reached over SSH as their inventory says, used, and left as they were found."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from raftbed.errors import HostError, UsageError
from raftbed.hosts.base import SocketFactory
from raftbed.hosts.children import end_program, start_program
from raftbed.hosts.inventory import Inventory, InventoryEntry
from raftbed.hosts.keys import unlock
from raftbed.hosts.parallel import settle
from raftbed.hosts.ssh import SSHHost
from raftbed.hosts.streams import filled_in

_POWER_TIMEOUT: Final = 60.0  # seconds for a command that switches a machine on or off


class RemoteHost(SSHHost):
    """A host of an inventory: its power is its owner's, unless the inventory has commands for it."""

    async def crash(self) -> None:
        """Cut its power, with the inventory's command.

        Raises:
            HostError: there is no such command, or it failed.
        """
        await self._power("power_off", self.entry.power_off)
        self.abandon()

    async def reboot(self, *, timeout: float = 30.0) -> None:
        """Switch it on after `crash`, with the inventory's command; returns when SSH answers.

        Raises:
            HostError: there is no such command, it failed, or the host did not come up within `timeout` seconds.
        """
        self.abandon()
        try:
            async with asyncio.timeout(timeout):
                await self._power("power_on", self.entry.power_on)
                await self.connect(timeout=timeout, booting=True)
        except TimeoutError as error:
            raise HostError(f"did not boot within {timeout:g} s.", host=self.name) from error

    async def _power(self, key: str, command: Sequence[str]) -> None:
        if not command:
            raise HostError(
                f"the power of this machine is not raftbed's to switch: its inventory has no {key}.",
                host=self.name,
                remedy=f'Choose faults that need no crash, or write: {key} = ["command", "{{name}}"]',
            )
        words = filled_in(command, self.entry)
        try:
            process = await start_program(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise HostError(f"{key}: {words[0]!r} cannot be started: {error.strerror}.", host=self.name) from error
        try:
            async with asyncio.timeout(_POWER_TIMEOUT):
                _, said = await process.communicate()
        except TimeoutError as error:
            raise HostError(f"{key}: {words[0]!r} did not end in time.", host=self.name) from error
        finally:
            await end_program(process)
        if process.returncode != 0:
            why = " ".join(said.decode(errors="replace").split())[-500:]
            raise HostError(f"{key}: {words[0]!r} ended with status {process.returncode}: {why}", host=self.name)


class InventoryPool:
    """The hosts of an inventory, or some of them.

    Parameters:
        inventory: how each is reached.
        names: those of the run, in order. Where the inventory has hosts of these names, it is they; else as many as
            there are names, in the order of the inventory, and called by these names. By default all.

    Raises:
        UsageError: the inventory has too few hosts.
    """

    def __init__(self, inventory: Mapping[str, InventoryEntry], names: Sequence[str] | None = None) -> None:
        self.inventory = Inventory(_chosen(inventory, names) if names is not None else inventory)
        self._hosts: dict[str, RemoteHost] = {}

    @property
    def hosts(self) -> Mapping[str, RemoteHost]:
        """By name, once started."""
        return self._hosts

    @property
    def socket_factory(self) -> SocketFactory | None:
        """Ordinary sockets reach them, or tunnels do."""
        return None

    async def start(self) -> None:
        """Log in to all, in parallel.

        Raises:
            HostsError: some cannot be used; every one of them is named, with reason and remedy.
        """
        await unlock(self.inventory.values())
        entries = await settle(_with_peer(entry) for entry in self.inventory.values())
        self.inventory = Inventory({entry.name: entry for entry in entries})
        self._hosts = {name: RemoteHost(entry) for name, entry in self.inventory.items()}
        try:
            await settle(host.connect() for host in self._hosts.values())
        except BaseException:
            await asyncio.shield(self.close())
            raise

    async def close(self, *, keep: bool = False) -> None:
        """Log out of all. The machines are not ours: they stay up, `keep` or not. Idempotent."""
        await asyncio.gather(*(host.disconnect() for host in self._hosts.values()), return_exceptions=True)


def _chosen(inventory: Mapping[str, InventoryEntry], names: Sequence[str]) -> dict[str, InventoryEntry]:
    if all(name in inventory for name in names):
        return {name: inventory[name] for name in names}
    if len(names) > len(inventory):
        raise UsageError(
            f"the run has {len(names)} nodes, and its inventory {len(inventory)} hosts.",
            remedy=f"Choose at most: --nodes {len(inventory)}",
        )
    return {name: replace(entry, name=name) for name, entry in zip(names, inventory.values(), strict=False)}


async def _with_peer(entry: InventoryEntry) -> InventoryEntry:
    """`entry` with the IPv4 address at which its peers reach it."""
    remedy = 'Write it into the inventory: peer = "10.0.0.1", the address of the network between the hosts.'
    if entry.peer:
        return entry
    try:
        return replace(entry, peer=str(ipaddress.IPv4Address(entry.address)))
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            entry.address, None, family=socket.AF_INET, type=socket.SOCK_STREAM
        )
    except socket.gaierror as error:
        raise HostError(
            f"the address at which its peers reach it is not known: {entry.address!r} is no name known here.",
            host=entry.name,
            remedy=remedy,
        ) from error
    address = str(found[0][4][0])
    if ipaddress.IPv4Address(address).is_loopback:
        raise HostError(f"its peers cannot reach it at {address}, which {entry.address!r} means here.",
                        host=entry.name, remedy=remedy)  # fmt: skip
    return replace(entry, peer=address)
