"""The controller's side of a lab: requests to it, sockets from it, and the way back to one that was kept."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from raftbed.errors import HostError
from raftbed.hosts import labs
from raftbed.hosts.inventory import Inventory

LAB_TIMEOUT: Final = 30.0
"""Seconds for a lab to answer a request."""

_SOCKET_TIMEOUT: Final = 10.0
_UP_TIMEOUT: Final = 1.0
_MESSAGE_LIMIT: Final = 1 << 18


class SocketOpener:
    """Gets sockets made inside the lab; callable as a `SocketFactory`, from any thread.

    Parameters:
        channel: the connection to the lab's maker of sockets.
        down: tells of an address whether its host is known to be down; such a host would answer nobody, and cost all
            who ask it the time that they wait.
    """

    def __init__(self, channel: socket.socket, down: Callable[[str], bool] | None = None) -> None:
        self._channel = channel
        self._down = down
        self._channel.settimeout(_SOCKET_TIMEOUT)
        self._lock = threading.Lock()

    def __call__(self, address_info: tuple[Any, ...]) -> socket.socket:
        """An unconnected socket for an entry of getaddrinfo.

        Raises:
            OSError: the lab is gone, the kernel refuses such a socket, or the host at that address is down.
        """
        if self._down is not None and self._down(str(address_info[4][0])):
            raise OSError(errno.EHOSTDOWN, os.strerror(errno.EHOSTDOWN))
        family, kind, protocol = (int(number) for number in address_info[:3])
        with self._lock:
            try:
                self._channel.send(f"{family} {kind} {protocol}".encode())
                message, descriptors, _, _ = socket.recv_fds(self._channel, 1024, 1)
            except OSError as error:
                raise OSError(errno.ENETDOWN, "the lab of the local hosts is gone") from error
        if not descriptors:
            if not message:
                raise OSError(errno.ENETDOWN, "the lab of the local hosts is gone")
            raise OSError(errno.EPROTONOSUPPORT, message.decode(errors="replace"))
        os.set_inheritable(descriptors[0], False)
        return socket.socket(family, kind, protocol, fileno=descriptors[0])

    def close(self) -> None:
        """No more sockets."""
        self._channel.close()


class LabConnection:
    """Requests to a lab, one after another.

    Parameters:
        channel: the control connection; requests and answers are JSON datagrams.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._channel.setblocking(False)
        self._last = 0
        self._lock = asyncio.Lock()

    async def request(self, action: str, **arguments: Any) -> tuple[dict[str, Any], list[int]]:
        """The lab's answer, and the file descriptors that came with it.

        Raises:
            HostError: the lab refused, failed, or is gone.
        """
        async with self._lock:
            self._last += 1
            try:
                self._channel.send(json.dumps({"id": self._last, "do": action, **arguments}).encode())
            except OSError as error:
                raise HostError(f"the lab of the local hosts is gone ({error}).") from error
            return await self.answer()

    async def answer(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for the answer to the last request, or for the lab's first word; see `request`."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._channel.fileno(), readable.set)
        try:
            async with asyncio.timeout(LAB_TIMEOUT):
                while True:
                    await readable.wait()
                    readable.clear()
                    try:
                        message, descriptors, _, _ = socket.recv_fds(self._channel, _MESSAGE_LIMIT, 4)
                    except BlockingIOError:
                        continue  # the loop called twice for one message
                    answer: dict[str, Any] = json.loads(message) if message else {}
                    if not message or answer["id"] == self._last:
                        break
                    for descriptor in descriptors:  # the answer to a request whose caller was cancelled
                        os.close(descriptor)
        except TimeoutError as error:
            raise HostError(f"the lab of the local hosts did not answer within {LAB_TIMEOUT:.0f} s.") from error
        except OSError as error:
            raise HostError(f"the lab of the local hosts is gone ({error}).") from error
        finally:
            loop.remove_reader(self._channel.fileno())
        if not message:
            raise HostError("the lab of the local hosts is gone.")
        if "error" in answer:
            raise HostError(f"the lab of the local hosts: {answer['error']}.")
        return answer, descriptors

    def close(self) -> None:
        """Close the connection: a lab that is not kept ends with it."""
        self._channel.close()


def attach(lab: labs.LabInfo, *, timeout: float = LAB_TIMEOUT) -> tuple[Inventory, SocketOpener]:
    """The way back to hosts that were kept: their inventory, and what makes sockets for it, which the caller closes.

    Raises:
        HostError: the lab does not answer.
    """
    try:
        with labs.call_lab(lab.directory, timeout) as channel:
            channel.send(json.dumps({"id": 1, "do": "sockets"}).encode())
            _, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_LIMIT, 1)
    except OSError as error:
        raise HostError(f"the lab in {lab.directory} does not answer: {error}.", remedy=labs.removal(lab)) from error
    if not descriptors:
        raise HostError(f"the lab in {lab.directory} gives no sockets.", remedy=labs.removal(lab))
    os.set_inheritable(descriptors[0], False)
    names: dict[str, str] = {}
    opener = SocketOpener(socket.socket(fileno=descriptors[0]), lambda address: _is_down(lab.directory, names, address))
    inventory = Inventory.load(lab.directory / labs.INVENTORY, opener)
    names.update({entry.address: name for name, entry in inventory.items()})
    return inventory, opener


def _is_down(directory: Path, names: Mapping[str, str], address: str) -> bool:
    """A lab says that the host at an address is down; False where nothing is known."""
    if address not in names:
        return False
    try:
        with labs.call_lab(directory, _UP_TIMEOUT) as channel:
            channel.send(json.dumps({"id": 1, "do": "up"}).encode())
            return names[address] not in json.loads(channel.recv(_MESSAGE_LIMIT))["up"]
    except (OSError, ValueError, KeyError):
        return False
