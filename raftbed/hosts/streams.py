"""The way to a host's SSH server, below SSH: a socket, made as its inventory entry says.

A proxy command is run here, not by an SSH library, so that what it says when it fails can be told, and so that every
library can use it: it gets one end of a pair of sockets as its standard input and output.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO, Final

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for a connection to be made and the login to succeed."""

_PROXY_PATIENCE: Final = 1.0  # seconds for a proxy command to end by itself once its input has ended


class Proxy:
    """A proxy command under way.

    Parameters:
        process: the command.
        errors: what it writes to its standard error.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self._process = process
        self._errors = errors

    def complaint(self) -> str:
        """The end of what it wrote to its standard error, on one line."""
        with contextlib.suppress(OSError, ValueError):
            self._errors.seek(0)
            return " ".join(self._errors.read()[-1000:].decode(errors="replace").split())
        return ""

    async def settle(self) -> None:
        """Give it a moment to end by itself, so that it can say why."""
        await asyncio.to_thread(self.settle_here)

    def settle_here(self) -> None:
        """The same for a thread that may wait."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PROXY_PATIENCE)

    def close(self) -> None:
        """End it; harmless when it has ended."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    async def wait_closed(self) -> None:
        """Wait for its end, a moment at most; then it is killed."""
        await asyncio.to_thread(self.wait_closed_here)

    def wait_closed_here(self) -> None:
        """The same for a thread that may wait."""
        self.settle_here()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._errors.close()


def filled_in(command: Sequence[str], entry: InventoryEntry) -> list[str]:
    """A command of the inventory, with "{name}", "{address}", "{port}" and "{user}" replaced."""
    values = {"{name}": entry.name, "{address}": entry.address, "{port}": str(entry.port), "{user}": entry.user}
    words = []
    for word in command:
        for mark, value in values.items():
            word = word.replace(mark, value)
        words.append(word)
    return words


def start_proxy(entry: InventoryEntry) -> tuple[socket.socket, Proxy]:
    """Start the proxy command of `entry`; the socket that leads through it.

    Raises:
        HostError: it cannot be started.
    """
    command = filled_in(entry.proxy_command, entry)
    ours, theirs = socket.socketpair()
    errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the proxy
    try:
        # A session of its own: Ctrl-C at the terminal is the controller's to handle.
        process = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=errors, start_new_session=True
        )
    except OSError as error:
        ours.close()
        errors.close()
        raise HostError(
            f"its proxy command {command[0]!r} cannot be started: {error.strerror or error}.",
            host=entry.name,
            remedy="Correct proxy_command in the inventory, or ProxyCommand in the SSH configuration.",
        ) from error
    finally:
        theirs.close()
    return ours, Proxy(process, errors)


def make_socket(entry: InventoryEntry) -> socket.socket:
    """An unconnected TCP socket in the network in which `entry` is.

    Raises:
        OSError: none can be made.
    """
    if entry.open_socket is None:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    return entry.open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (entry.address, entry.port)))


async def open_stream(entry: InventoryEntry) -> tuple[socket.socket, Proxy | None]:
    """A non-blocking socket that leads to the SSH server of `entry`, and the proxy command that it leads through.

    Raises:
        HostError: no socket can be made, or the proxy command cannot be started.
        OSError: the host cannot be reached.
    """
    if entry.proxy_command:
        opened, proxy = start_proxy(entry)
        opened.setblocking(False)
        return opened, proxy
    loop = asyncio.get_running_loop()
    address = entry.address
    if entry.open_socket is None:
        found = await loop.getaddrinfo(address, entry.port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        address = str(found[0][4][0])
    try:
        opened = make_socket(entry)
    except OSError as error:
        raise HostError(f"no socket to it can be made: {error}.", host=entry.name) from error
    try:
        opened.setblocking(False)
        await loop.sock_connect(opened, (address, entry.port))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        opened.close()
        raise
    return opened, None


def open_connected(entry: InventoryEntry, *, timeout: float = CONNECT_TIMEOUT) -> socket.socket:
    """A blocking connection to a host's SSH server; jump hosts are the caller's to go through.

    Raises:
        HostError: the proxy command cannot be started.
        OSError: the host cannot be reached.
    """
    if entry.proxy_command:
        return start_proxy(entry)[0]
    opened = make_socket(entry)
    try:
        opened.settimeout(timeout)
        opened.connect((entry.address, entry.port))
    except BaseException:
        opened.close()
        raise
    return opened
