"""Standard input and output, joined to a socket: what OpenSSH runs as a ProxyCommand."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Final

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry

_CHUNK: Final = 1 << 16


def connect(entry: InventoryEntry) -> socket.socket:
    """A connection to a host's SSH server, for `join`.

    Raises:
        HostError: it cannot be made.
    """
    from raftbed.hosts.streams import open_connected

    if entry.jump:
        raise HostError(
            f"its SSH server is behind {entry.jump}, and ssh finds its way there by itself.",
            host=entry.name,
            remedy="Use what this prints: raftbed cluster ssh-config",
        )
    try:
        opened = open_connected(entry)
    except OSError as error:
        reason = error.strerror or error
        raise HostError(f"{entry.address}:{entry.port} cannot be reached: {reason}.", host=entry.name) from error
    opened.settimeout(None)
    return opened


def join(opened: socket.socket, source: int, sink: int) -> None:
    """Copy what comes from `source` into a connection, and what comes out of it to `sink`, until it ends.

    Parameters:
        opened: a connected, blocking socket; closed in the end.
        source: file descriptor to read from; its end closes the sending half of the connection only.
        sink: file descriptor to write to.
    """
    # A daemon: it may wait for input that never comes, long after the connection has ended.
    threading.Thread(target=_send, args=(opened, source), daemon=True).start()
    with opened, contextlib.suppress(ConnectionError):
        while chunk := opened.recv(_CHUNK):
            _write_all(sink, chunk)


def _send(opened: socket.socket, source: int) -> None:
    with contextlib.suppress(OSError):
        while chunk := os.read(source, _CHUNK):
            opened.sendall(chunk)
        opened.shutdown(socket.SHUT_WR)


def _write_all(sink: int, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[os.write(sink, left) :]
