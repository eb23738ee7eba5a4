"""Containers as hosts: a Docker or Podman engine makes them, and raftbed reaches them over SSH like any others.

Theory of operation. A run has a network of its own, closed to the outside (``--internal``), with a fixed address for
each container. Keys are made for the run and copied into the containers before they start, as a
tar archive on standard input, so that neither the image nor a command line holds a secret. Process 1 is the engine's
small init; the SSH server is its child. A crash takes the wire away first and then kills process 1, so that no
connection says goodbye; a reboot starts the same container again, with its disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import io
import ipaddress
import itertools
import json
import os
import secrets
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from raftbed.errors import HostError, UsageError
from raftbed.hosts import docker_runs, labs
from raftbed.hosts.base import SocketFactory
from raftbed.hosts.docker_runs import OWNER_LABEL, RUN_LABEL
from raftbed.hosts.engine import Engine, find_engine
from raftbed.hosts.inventory import Inventory, InventoryEntry
from raftbed.hosts.parallel import in_parallel
from raftbed.hosts.ssh import CONNECT_TIMEOUT, SSHHost

IMAGE: Final = "raftbed-host:1"
"""The image that hosts are made of; its number changes with docker/Dockerfile."""

IMAGE_CHOICE: Final = "RAFTBED_DOCKER_IMAGE"
"""Environment variable: another image, one with sshd, Python 3.11 and iproute2."""

CAPABILITIES: Final = (
    # sshd: to become the user who logs in, and to lock its unprivileged part up; port 22.
    "SETUID", "SETGID", "SYS_CHROOT", "NET_BIND_SERVICE",
    # the administrator of a host: files and processes of others.
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL",
    # faults of the network: nftables, iptables, routes, tc.
    "NET_ADMIN", "NET_RAW",
)  # fmt: skip
"""All that a container may do. Never SYS_TIME: the clock of a container is the machine's."""

_MOST_HOSTS: Final = 200
_BUILD_TIMEOUT: Final = 900.0
_BOOT_TIMEOUT: Final = 60.0
_NETWORK_ATTEMPTS: Final = 5
_CONFIGURATION: Final = "/etc/raftbed"

_SSHD_CONFIGURATION: Final = f"""Port 22
AddressFamily inet
HostKey {_CONFIGURATION}/host_key
AuthorizedKeysFile {_CONFIGURATION}/authorized_keys
AllowUsers root
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
X11Forwarding no
AllowTcpForwarding no
AllowAgentForwarding no
UsePAM no
UseDNS no
PidFile none
PrintMotd no
MaxStartups 200
MaxSessions 500
Subsystem sftp internal-sftp
"""

_BOOT_SCRIPT: Final = f"""umask 022
mkdir -p -m 755 /run/sshd
exec /usr/sbin/sshd -D -e -f {_CONFIGURATION}/sshd_config"""


class DockerHost(SSHHost):
    """One container.

    Parameters:
        entry: how it is reached.
        engine: that runs it.
        container: its name in the engine.
    """

    def __init__(self, entry: InventoryEntry, engine: Engine, container: str) -> None:
        super().__init__(entry)
        self._engine = engine
        self.container = container
        self._is_down = False

    async def boot(self) -> None:
        """Start the container and wait for its SSH server.

        Raises:
            HostError: it does not start, or cannot be reached.
        """
        try:
            await self._engine.call("start", self.container)
        except HostError as error:
            raise HostError(f"the container did not start: {error}", host=self.name) from error
        self._is_down = False
        await self.connect(timeout=_BOOT_TIMEOUT, booting=True)

    async def find_python(self) -> None:
        """Find the interpreter for nodes on the PATH."""
        found = await self.run(["/bin/sh", "-c", "command -v python3"], check=False)
        self.entry = replace(self.entry, python=found.stdout.strip())

    async def connect(self, *, timeout: float = CONNECT_TIMEOUT, booting: bool = False) -> None:
        """Open the connection; a container that is not running says so, with what it wrote last.

        Raises:
            HostError: it is down, or cannot be reached.
        """
        if self._is_down:
            raise HostError("is down: it was crashed and not rebooted.", host=self.name)
        if not booting:
            try:
                await super().connect(timeout=timeout)
            except HostError as error:
                raise await self.explain(error) from error
            return
        # A container that ended at once would be tried until the time is up: look what became of it meanwhile.
        deadline = asyncio.get_running_loop().time() + timeout
        pause = 1.0
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                await super().connect(timeout=max(0.5, min(pause, left)), booting=True)
                return
            except HostError as error:
                better = await self.explain(error)
                if better is not error or left <= pause or "shows another" in error.message:
                    raise better from error
            pause = min(2 * pause, 10.0)

    async def explain(self, error: HostError) -> HostError:
        """`error`, or that the container is not up any more, with what it wrote last."""
        if self._is_down:
            return HostError("is down: it was crashed and not rebooted.", host=self.name)
        try:
            found = await self._engine.inspect("container", self.container)
        except HostError as silent:
            return HostError(f"cannot be reached, and neither can the engine: {silent}", host=self.name)
        if not found:
            self.abandon()
            return HostError("is gone: somebody removed its container.", host=self.name)
        state = found[0].get("State") or {}
        if state.get("Running") and not state.get("Paused"):
            return error
        self.abandon()
        how = f"is {state.get('Status', 'not running')}, with status {state.get('ExitCode')}"
        return HostError(
            f"its container {how}: {state.get('Error') or ''}{await self._said()}",
            host=self.name,
            remedy=f"Its image needs /usr/sbin/sshd and a shell. Look: {self._engine.kind} logs {self.container}",
        )

    async def _said(self) -> str:
        answer = await self._engine.call("logs", "--tail", "5", self.container, check=False)
        return " ".join(f"{answer.stdout} {answer.stderr}".split())[-500:]

    async def crash(self) -> None:
        """Pull the plug: the wire first, then process 1 and with it everything; the disk stays."""
        self._is_down = True
        try:
            # Else the kernel would close the connections of what it kills, and peers would be told.
            cut = ("exec", "--user", "0", self.container, "ip", "link", "set", "eth0", "down")
            await self._engine.call(*cut, check=False)
            await self._engine.call("kill", self.container, check=False)
            state = (await self._engine.inspect("container", self.container))[0]["State"]
        except (HostError, LookupError) as error:
            raise HostError(f"could not be crashed: {error}", host=self.name) from error
        finally:
            self.abandon()
        if state.get("Running"):
            raise HostError("could not be crashed: its container still runs.", host=self.name)

    async def reboot(self, *, timeout: float = 30.0) -> None:
        """Start it again, with its disk, address and host key; one that is up is reset.

        Raises:
            HostError: it did not come up within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self.crash()
                await self.boot()
        except TimeoutError as error:
            raise HostError(f"did not boot within {timeout:g} s.", host=self.name) from error


class DockerPool:
    """Hosts that are containers, in a network of their own.

    Parameters:
        names: of the hosts, in order; they are hostnames as well.
        directory: a private directory for keys, made here (empty or absent); removed on close.

    Raises:
        UsageError: no names or too many.
    """

    def __init__(self, names: Sequence[str], directory: Path) -> None:
        if not 1 <= len(names) <= _MOST_HOSTS or len(set(names)) != len(names):
            raise UsageError(f"docker hosts need 1 to {_MOST_HOSTS} different names, not {len(names)}.")
        self._names = tuple(names)
        self._directory = Path(os.path.abspath(directory))
        self._engine: Engine | None = None
        self._hosts: dict[str, DockerHost] = {}
        self.run = secrets.token_hex(4)
        """Distinguishes this run's containers, network and labels."""
        self.inventory = Inventory({})

    @property
    def hosts(self) -> Mapping[str, DockerHost]:
        """By name, once started."""
        return self._hosts

    @property
    def socket_factory(self) -> SocketFactory | None:
        """None: the addresses of containers are reached with ordinary sockets."""
        return None

    async def start(self) -> None:
        """Bring all hosts up, in parallel; returns when each answers SSH.

        Raises:
            HostError: with the reason and a remedy; nothing is left behind then.
        """
        try:
            await self._start()
        except BaseException:
            await asyncio.shield(self.close())
            raise

    async def _start(self) -> None:
        engine = await find_engine()
        image = await find_image(engine)
        labs.make_private_directory(self._directory)
        docker_runs.remember(self.run, engine, self._directory)
        self._engine = engine
        self._owner = json.dumps(docker_runs.owner())
        addresses = await self._make_network(engine)
        self._make_entries(addresses)
        await in_parallel(self._create(engine, image, position) for position in range(len(self._names)))
        await in_parallel(self._boot(host) for host in self._hosts.values())
        self.inventory = Inventory({name: host.entry for name, host in self._hosts.items()})
        self.inventory.save(self._directory / labs.INVENTORY)

    # -- making them ----------------------------------------------------------------------------------------------

    @property
    def _network(self) -> str:
        return f"raftbed-{self.run}"

    def _labels(self) -> list[str]:
        return ["--label", f"{RUN_LABEL}={self.run}", "--label", f"{OWNER_LABEL}={self._owner}"]

    async def _make_network(self, engine: Engine) -> list[str]:
        """Make the network; the addresses of the hosts.

        An address can only be asked for in a subnet that was asked for, and the engine knows best which are free: it
        is let choose one, and that one is asked for.
        """
        make = ("network", "create", "--internal", *self._labels())
        failure: HostError | None = None
        for _ in range(_NETWORK_ATTEMPTS):
            try:
                await engine.call(*make, self._network)
                subnet, gateway = _subnet((await engine.inspect("network", self._network))[0])
                await engine.call("network", "rm", self._network)
                await engine.call(*make, "--subnet", str(subnet), "--gateway", gateway, self._network)
            except (HostError, LookupError) as error:  # another took the subnet in between, most likely
                failure = HostError(
                    f"no network for the hosts could be made: {error}",
                    remedy=f"Old networks may be in the way: raftbed clean, {engine.kind} network prune.",
                )
                await engine.call("network", "rm", self._network, check=False)
                continue
            free = (str(address) for address in subnet.hosts() if str(address) != gateway)
            addresses = list(itertools.islice(free, len(self._names)))
            if len(addresses) == len(self._names):
                return addresses
            failure = HostError(f"the engine's network {subnet} is too small for {len(self._names)} hosts.")
            break
        assert failure is not None
        raise failure

    def _make_entries(self, addresses: Sequence[str]) -> None:
        """Make keys, and say how each host is reached."""
        import asyncssh

        client_key = asyncssh.generate_private_key("ssh-ed25519", comment="raftbed")
        key_path = self._directory / "key"
        with open(os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as stream:
            stream.write(client_key.export_private_key())
        assert self._engine is not None
        self._files: dict[str, Mapping[str, bytes]] = {}
        for name, address in zip(self._names, addresses, strict=True):
            host_key = asyncssh.generate_private_key("ssh-ed25519", comment=name)
            self._files[name] = {
                "host_key": host_key.export_private_key(),
                "authorized_keys": client_key.export_public_key(),
                "sshd_config": _SSHD_CONFIGURATION.encode(),
            }
            entry = InventoryEntry(
                name=name,
                address=address,
                key=key_path,
                host_key=host_key.export_public_key().decode().strip(),
            )
            self._hosts[name] = DockerHost(entry, self._engine, f"{self._network}-{name}")

    async def _create(self, engine: Engine, image: str, position: int) -> None:
        host = self._hosts[self._names[position]]
        await engine.call(
            "create",
            *("--name", host.container, "--hostname", host.name, *self._labels()),
            *("--network", self._network, "--ip", host.address),
            *("--init", "--restart", "no", "--security-opt", "no-new-privileges"),
            *("--cap-drop", "ALL", *(word for name in CAPABILITIES for word in ("--cap-add", name))),
            # As on a machine that boots: these are made anew each time.
            *("--tmpfs", "/run:rw,nosuid,nodev,mode=755", "--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777"),  # noqa: S108 - the host's
            *("--entrypoint", "/bin/sh", image, "-c", _BOOT_SCRIPT),
        )
        archive = _archive(os.path.basename(_CONFIGURATION), self._files[host.name])
        await engine.call("cp", "-", f"{host.container}:{os.path.dirname(_CONFIGURATION)}", stdin=archive)

    async def _boot(self, host: DockerHost) -> None:
        try:
            await host.boot()
        except HostError as error:
            if "did not answer" not in error.message and "Network is unreachable" not in error.message:
                raise
            raise HostError(
                error.message.removeprefix(f"{host.name}: "),
                host=host.name,
                remedy="The networks of the engine must be reachable from here: with Docker Desktop, or an engine on "
                "another machine, run raftbed there.",
            ) from error
        await host.find_python()

    # -- taking them away -----------------------------------------------------------------------------------------

    async def close(self, *, keep: bool = False) -> None:
        """Close all sessions and take the hosts away with their files; with `keep`, leave them up.

        Kept hosts are found again and removed by `raftbed clean`. Idempotent.

        Raises:
            HostError: the engine does not remove them.
        """
        engine, self._engine = self._engine, None
        for host in self._hosts.values():
            if keep:
                await host.disconnect()
            else:
                host.abandon()
        if engine is None:
            return
        if keep:
            docker_runs.remember(self.run, engine, self._directory, kept=True)
            return
        await docker_runs.remove_run(engine, self.run)
        labs.remove_files(self._directory)
        docker_runs.forget(self.run)


def _subnet(network: Mapping[str, Any]) -> tuple[ipaddress.IPv4Network, str]:
    """The IPv4 subnet and the gateway of a network, as docker or podman describe it."""
    for part in (network.get("IPAM") or {}).get("Config") or network.get("subnets") or ():
        with contextlib.suppress(ValueError, KeyError):
            subnet = ipaddress.IPv4Network(part.get("Subnet") or part["subnet"])
            return subnet, part.get("Gateway") or part.get("gateway") or str(next(subnet.hosts()))
    raise LookupError(f"the engine made a network without an IPv4 subnet: {network.get('Name') or network.get('name')}")


def _archive(directory: str, files: Mapping[str, bytes]) -> bytes:
    """A tar archive of a private directory."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        top = tarfile.TarInfo(directory)
        top.type, top.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(top)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{directory}/{name}")
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


# -- the image ------------------------------------------------------------------------------------------------------


async def find_image(engine: Engine) -> str:
    """The image to make hosts of: the one that `IMAGE_CHOICE` names, else `IMAGE`, built when it is not there.

    Raises:
        HostError: there is none and none can be built; the remedy says how to get one without a registry.
    """
    chosen = os.environ.get(IMAGE_CHOICE, "")
    if chosen:
        if await engine.inspect("image", chosen):
            return chosen
        raise HostError(
            f"{IMAGE_CHOICE} names the image {chosen!r}, which this {engine.kind} does not have.",
            remedy=f"Get it: {engine.kind} pull {chosen}; or unset {IMAGE_CHOICE}.",
        )
    if await engine.inspect("image", IMAGE):
        return IMAGE
    try:
        # From standard input: nothing but the recipe is sent.
        await engine.call("build", "--tag", IMAGE, "-", stdin=recipe(), timeout=_BUILD_TIMEOUT)
    except HostError as error:
        raise HostError(
            f"the image {IMAGE} could not be built: {error}",
            remedy="Without a registry, make it of Debian's packages: docker/make-image (apt-get install mmdebstrap); "
            f"or name an image of yours with sshd, Python 3.11 and iproute2: {IMAGE_CHOICE}.",
        ) from error
    return IMAGE


def recipe() -> bytes:
    """docker/Dockerfile."""
    return importlib.resources.files("raftbed.docker").joinpath("Dockerfile").read_bytes()
