"""Virtual machines of Vagrant as hosts: the machines of a Vagrantfile, logged into as ``vagrant ssh-config`` says.

The way in is the first interface, behind NAT: with VirtualBox it has one address on all machines, so that peers cannot
meet there, and whoever cuts it cuts the controller off. Peers meet on a private network; it is found by looking at what
interfaces the machines have. The machines are the user's: they stay up after a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from raftbed.errors import HostError
from raftbed.hosts import labs
from raftbed.hosts.base import Endpoint, SocketFactory
from raftbed.hosts.children import end_program, start_program
from raftbed.hosts.inventory import Inventory, InventoryEntry
from raftbed.hosts.parallel import in_parallel, settle
from raftbed.hosts.prerequisites import find_program
from raftbed.hosts.ssh import SSHHost, connect
from raftbed.hosts.ssh_config import resolve
from raftbed.private_files import write_private

INSTALL: Final = "apt-get install vagrant vagrant-libvirt libvirt-daemon-system qemu-system-x86"
_ASK_TIMEOUT: Final = 120.0
_UP_TIMEOUT: Final = 3600.0  # a box may have to be downloaded, and emulation takes its time
_HALT_TIMEOUT: Final = 120.0
_REACH_TIMEOUT: Final = 3.0

_INTERFACES_SCRIPT: Final = """PATH=$PATH:/usr/sbin:/sbin
ip -4 -o address show scope global | awk '{print "address", $2, $4}'
ip -4 route show default | sed -n 's/.* dev \\([^ ]*\\).*/default \\1/p'
echo "way-in ${SSH_CONNECTION:-}"
"""


@dataclass(frozen=True, slots=True)
class Interfaces:
    """What a machine said of its network.

    Attributes:
        addresses: interface and address with its prefix length, in order.
        closed: interfaces that are not for peers: those of the default route, and the one that Vagrant logs in at.
    """

    addresses: tuple[tuple[str, ipaddress.IPv4Interface], ...]
    closed: frozenset[str]


def read_interfaces(said: str) -> Interfaces:
    """Parse what the script printed."""
    addresses: list[tuple[str, ipaddress.IPv4Interface]] = []
    closed: set[str] = set()
    way_in = ""
    for line in said.splitlines():
        match line.split():
            case ["address", interface, address]:
                addresses.append((interface, ipaddress.IPv4Interface(address)))
            case ["default", interface]:
                closed.add(interface)
            case ["way-in", _, _, address, _]:  # SSH_CONNECTION: client, its port, server, its port
                way_in = address
    closed |= {interface for interface, address in addresses if str(address.ip) == way_in}
    return Interfaces(tuple(addresses), frozenset(closed))


def peer_addresses(machines: Mapping[str, Interfaces]) -> dict[str, str]:
    """The address of each machine on the network that they share, the way in left out.

    Raises:
        HostError: there is no such network; says what each machine has.
    """
    found: list[dict[ipaddress.IPv4Network, str]] = []
    for machine in machines.values():
        mine: dict[ipaddress.IPv4Network, str] = {}
        for interface, address in machine.addresses:
            if interface not in machine.closed:
                mine.setdefault(address.network, str(address.ip))
        found.append(mine)
    for network in found[0] if found else ():
        if all(network in mine for mine in found):
            addresses = [mine[network] for mine in found]
            if len(set(addresses)) == len(addresses):
                return dict(zip(machines, addresses, strict=True))
    said = "; ".join(
        f"{name}: {', '.join(f'{interface} {address}' for interface, address in machine.addresses) or 'nothing'}"
        for name, machine in machines.items()
    )
    raise HostError(
        f"the machines share no network but the one that Vagrant logs in at ({said}).",
        remedy='Give each a private one in the Vagrantfile: config.vm.network :private_network, ip: "192.168.56.11"',
    )


class Vagrant:
    """The command line of Vagrant in the directory of a Vagrantfile.

    Parameters:
        directory: where the Vagrantfile is.
        nodes: how many machines it should have, where it goes by RAFTBED_NODES and the user has not set that.
    """

    def __init__(self, directory: Path, nodes: int) -> None:
        self.directory = directory
        self._environment = {"RAFTBED_NODES": str(nodes), **os.environ, "VAGRANT_CWD": str(directory)}

    async def call(self, *arguments: str, timeout: float, log: Path | None = None) -> str:
        """Run a command; what it printed.

        Parameters:
            arguments: never read by a shell.
            timeout: seconds; it is ended then, gently, so that it unlocks its machines.
            log: file in which to keep all that it printed.

        Raises:
            HostError: it failed or did not end in time.
        """
        shown = f"vagrant {' '.join(arguments)}"
        process = await start_program(
            find_program("vagrant"),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        try:
            async with asyncio.timeout(timeout):
                stdout, stderr = await process.communicate()
        except TimeoutError as error:
            raise HostError(f"`{shown}` did not end within {timeout:g} s.") from error
        finally:
            if process.returncode is None:
                await self._end(process)
        if log is not None:
            write_private(log, stdout + stderr)
        if process.returncode != 0:
            raise HostError(f"`{shown}` failed: {' '.join((stderr or stdout).decode(errors='replace').split())[-800:]}")
        return stdout.decode(errors="replace")

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(10.0):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await end_program(process)

    async def states(self) -> dict[str, str]:
        """The state of each machine: "running", "not_created", "shutoff", ..."""
        return read_states(await self.call("status", "--machine-readable", timeout=_ASK_TIMEOUT))


def read_states(status: str) -> dict[str, str]:
    """Machine to state, from ``vagrant status --machine-readable``."""
    found = {}
    for line in status.splitlines():
        parts = line.split(",", 3)
        if len(parts) == 4 and parts[1] and parts[2] == "state":
            found[parts[1]] = parts[3].strip()
    return found


def find_vagrantfile() -> Path:
    """The directory of the Vagrantfile that counts here, found as Vagrant does it: VAGRANT_CWD, or here and upwards.

    Raises:
        HostError: there is none.
    """
    start = Path(os.environ.get("VAGRANT_CWD") or Path.cwd())
    name = os.environ.get("VAGRANT_VAGRANTFILE") or "Vagrantfile"
    for directory in (start, *start.parents):
        if (directory / name).is_file():
            return directory
    raise HostError(
        f"there is no {name} in {start} or above.",
        remedy="Run in a clone of raftbed, which has one, or say where yours is: VAGRANT_CWD",
    )


class VagrantHost(SSHHost):
    """One virtual machine.

    Parameters:
        entry: how it is reached.
        vagrant: whose machine it is.
        machine: its name in the Vagrantfile.
    """

    def __init__(self, entry: InventoryEntry, vagrant: Vagrant, machine: str) -> None:
        super().__init__(entry)
        self._vagrant = vagrant
        self.machine = machine

    async def is_reached_at(self, address: str) -> bool:
        """Whether the controller gets to this very machine, known by its host key, at an address."""
        if self.entry.jump or self.entry.proxy_command:
            return False
        key = (await self._connected()).get_server_host_key()
        if key is None:
            return False
        shown = key.export_public_key().decode().strip()
        try:
            opened = await connect(
                replace(self.entry, address=address, port=22, host_key=shown), timeout=_REACH_TIMEOUT
            )
        except HostError:
            return False
        opened.close()
        return True

    async def endpoint(self, port: int) -> Endpoint:
        """How the controller reaches a TCP port: on the private network, or through SSH; see `Host.endpoint`."""
        if self.entry.tunnel:
            return await super().endpoint(port)
        return Endpoint(f"{self.address}:{port}", listen=self.address)

    async def crash(self) -> None:
        """Pull its plug; its disk stays.

        Raises:
            HostError: Vagrant could not.
        """
        try:
            await self._vagrant.call("halt", "--force", self.machine, timeout=_HALT_TIMEOUT)
        finally:
            self.abandon()

    async def reboot(self, *, timeout: float = 30.0) -> None:
        """Start it again after `crash`; one that is up is reset. A machine boots in its own time: `timeout` counts
        from where Vagrant says that it is up.

        Raises:
            HostError: it did not come up.
        """
        if (await self._vagrant.states()).get(self.machine) == "running":
            await self.crash()
        await self._vagrant.call("up", "--no-provision", self.machine, timeout=_UP_TIMEOUT)
        await self.connect(timeout=timeout, booting=True)


class VagrantPool:
    """The machines of the Vagrantfile that counts here.

    Parameters:
        names: of the hosts, in order. Where the Vagrantfile has machines of these names, it is they; else its machines
            in order, called by these names.
        directory: a private directory for Vagrant's output, made here (empty or absent); it stays.
        up: bring machines up that are not.
    """

    def __init__(self, names: Sequence[str], directory: Path, *, up: bool = False) -> None:
        self._names = tuple(names)
        self._directory = Path(os.path.abspath(directory))
        self._up = up
        self._hosts: dict[str, VagrantHost] = {}
        self.inventory = Inventory({})

    @property
    def hosts(self) -> Mapping[str, VagrantHost]:
        """By name, once started."""
        return self._hosts

    @property
    def socket_factory(self) -> SocketFactory | None:
        """Ordinary sockets reach them, or tunnels do."""
        return None

    async def start(self) -> None:
        """Find the machines, bring them up where that was asked for, and log in to all.

        Raises:
            HostError: with the reason and a remedy.
        """
        try:
            await self._start()
        except BaseException:
            await asyncio.shield(self.close())
            raise

    async def _start(self) -> None:
        if not find_program("vagrant"):
            raise HostError("vagrant is not installed.", remedy=f"Install it: {INSTALL}")
        vagrant = Vagrant(find_vagrantfile(), len(self._names))
        labs.make_private_directory(self._directory)
        states = await vagrant.states()
        machines = _chosen(states, self._names)
        down = [machine for machine in machines if states[machine] != "running"]
        if down and not self._up:
            raise HostError(
                f"machines are not running: {', '.join(f'{machine} ({states[machine]})' for machine in down)}.",
                remedy=f"Bring them up: vagrant up {' '.join(down)}; or let raftbed do it: --up",
            )
        if down:
            await vagrant.call("up", *down, timeout=_UP_TIMEOUT, log=self._directory / "vagrant-up.log")
        entries = await self._entries(vagrant, machines)
        self._hosts = {
            name: VagrantHost(entry, vagrant, machine)
            for (name, entry), machine in zip(entries.items(), machines, strict=True)
        }
        await settle(host.connect() for host in self._hosts.values())
        await self._find_peers(vagrant)
        self.inventory = Inventory({name: host.entry for name, host in self._hosts.items()})
        self.inventory.save(self._directory / labs.INVENTORY)

    async def _entries(self, vagrant: Vagrant, machines: Sequence[str]) -> dict[str, InventoryEntry]:
        """How Vagrant says that each machine is reached."""
        path = self._directory / "ssh-config"
        content = await vagrant.call("ssh-config", *machines, timeout=_ASK_TIMEOUT)
        write_private(path, content.encode())
        found = {}
        for name, machine in zip(self._names, machines, strict=True):
            known_hosts = _known_hosts(vagrant.directory, machine)
            entry = InventoryEntry(
                name=name,
                address=machine,
                ssh_config=(str(path),),
                known_hosts=(str(known_hosts),),
                # Nobody can know the key of a machine that was just made; from the first time on, it is checked.
                accept_new_keys=True,
                python="python3",
                labels=("vagrant", machine),
            )
            resolved = resolve(entry)
            found[name] = replace(resolved, sudo=resolved.user != "root")
        return found

    async def _find_peers(self, vagrant: Vagrant) -> None:
        """Find each machine's address for peers, and how the controller gets to its nodes."""
        said = await in_parallel(
            host.run(["/bin/sh", "-c", _INTERFACES_SCRIPT], timeout=20.0) for host in self._hosts.values()
        )
        interfaces = [read_interfaces(answer.stdout) for answer in said]
        peers = peer_addresses(dict(zip(self._hosts, interfaces, strict=True)))
        reached = await in_parallel(host.is_reached_at(peers[name]) for name, host in self._hosts.items())
        for (name, host), direct in zip(list(self._hosts.items()), reached, strict=True):
            await host.disconnect()
            # The private network leads to this machine with either provider; with others, SSH does.
            entry = replace(host.entry, peer=peers[name], tunnel=not direct)
            self._hosts[name] = VagrantHost(entry, vagrant, host.machine)

    async def close(self, *, keep: bool = False) -> None:
        """Log out of all. The machines are the user's: they stay up, `keep` or not. Idempotent."""
        await asyncio.gather(*(host.disconnect() for host in self._hosts.values()), return_exceptions=True)


def _chosen(states: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """The machines for the hosts of these names."""
    if len(names) > len(states):
        raise HostError(
            f"the run has {len(names)} nodes, and the Vagrantfile {len(states)} machines.",
            remedy=f"Choose fewer, --nodes {len(states)}; or have more: RAFTBED_NODES={len(names)}, 9 at most.",
        )
    return list(names) if all(name in states for name in names) else list(states)[: len(names)]


def _known_hosts(directory: Path, machine: str) -> Path:
    """Where the host key of a machine is remembered: as long as it is the same machine."""
    dotfile = Path(directory, os.environ.get("VAGRANT_DOTFILE_PATH") or ".vagrant")
    identity = ""
    for path in sorted(dotfile.glob(f"machines/{machine}/*/id")):
        with contextlib.suppress(OSError):
            identity = path.read_text().strip()
    place = dotfile / "raftbed"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{place} cannot be made: {error.strerror or error}.", host=machine) from error
    safe = "".join(letter for letter in identity if letter.isalnum() or letter == "-")
    return place / f"known_hosts-{machine}-{safe or 'unknown'}"
