"""What raftbed asks of a host, whatever kind it is: run, put, get, sockets, crash, reboot.

A `Host` is one machine that answers SSH. A `HostPool` makes hosts, hands them out by name, and takes them away.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

COMMAND_TIMEOUT: Final = 60.0
"""Seconds for a command on a host, where nothing else is said. An emulated machine under load takes ten for what others
do in a hundredth of one; a host that is gone is noticed earlier, by SSH's keep-alives."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command on a host ended.

    Attributes:
        status: exit status; for a command ended by a signal, 128 plus its number.
        stdout: what it wrote, decoded as UTF-8 with replacement.
        stderr: likewise.
    """

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How the controller reaches a TCP port of a host.

    Attributes:
        address: "host:port", for the URL.
        listen: the address at which a server on the host must listen to be reached by its peers and the controller.
        unix_socket: path of a private Unix socket on this machine that leads there, instead of `address`; or "".
    """

    address: str
    listen: str = "0.0.0.0"  # noqa: S104  in a network of its own
    unix_socket: str = ""


SocketFactory = Callable[[tuple[Any, ...]], socket.socket]
"""Makes an unconnected socket for one entry of getaddrinfo; aiohttp's TCPConnector takes one."""


class Host(Protocol):
    """One machine under test, reached over SSH.

    Attributes:
        name: its name within the run, "n1".
        address: the IPv4 address at which its peers reach it, never a NAT address.
        home: the directory below which raftbed keeps everything of its own on this host.
        python: path of the Python interpreter to run nodes with, or "" when it has none that fits.
        shares_interpreter: the controller's interpreter and its packages are visible on this host at the same
            paths, so that no wheelhouse is needed.
    """

    @property
    def name(self) -> str:
        """Its name within the run."""
        ...

    @property
    def address(self) -> str:
        """The address its peers reach it at."""
        ...

    @property
    def home(self) -> str:
        """Where raftbed keeps its own."""
        ...

    @property
    def python(self) -> str:
        """Interpreter for nodes."""
        ...

    @property
    def shares_interpreter(self) -> bool:
        """Sees the controller's interpreter."""
        ...

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = COMMAND_TIMEOUT, check: bool = True
    ) -> CommandResult:
        """Run a command as the administrator of the host and wait for its end. `argv` is never read by a shell.

        Raises:
            CommandError: with `check`, a status other than zero; always, when `timeout` seconds went by.
            HostError: the host cannot be reached.
        """
        ...

    async def put(self, content: bytes | Path, path: str, *, mode: int = 0o644, timeout: float = 60.0) -> None:
        """Write a file on the host, whole or not at all (written beside, then renamed).

        Raises:
            CommandError, HostError: as for `run`.
        """
        ...

    async def get(self, path: str, destination: Path, *, limit: int = 256 << 20, timeout: float = 60.0) -> bool:
        """Copy a file from the host; at most its last `limit` bytes. False when there is no such file.

        Raises:
            CommandError, HostError: as for `run`.
        """
        ...

    async def endpoint(self, port: int) -> Endpoint:
        """How the controller reaches a TCP port of this host, whether or not anybody listens there yet.

        Raises:
            HostError: there is no way.
        """
        ...

    async def crash(self) -> None:
        """Kill the whole machine at once, as by pulling its plug; its disk stays. Returns when it is gone."""
        ...

    async def reboot(self, *, timeout: float = 30.0) -> None:
        """Start the machine again after `crash`, with its disk; returns when SSH answers."""
        ...


class HostPool(Protocol):
    """The hosts of a run.

    Attributes:
        hosts: by name, n1 to nN, in that order.
        socket_factory: makes sockets that can reach the hosts, or None when ordinary sockets do.
    """

    @property
    def hosts(self) -> Mapping[str, Host]:
        """By name."""
        ...

    @property
    def socket_factory(self) -> SocketFactory | None:
        """Makes sockets that reach the hosts."""
        ...

    async def start(self) -> None:
        """Bring all hosts up, in parallel; returns when each answers SSH.

        Raises:
            HostError: with the name of the host, the reason and a remedy; nothing is left behind then.
        """
        ...

    async def close(self, *, keep: bool = False) -> None:
        """Close all sessions and take the hosts away, or leave them up with `keep`.

        Idempotent; never raises for a host that is already gone.
        """
        ...
