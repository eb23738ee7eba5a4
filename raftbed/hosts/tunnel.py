"""Tunnels: TCP ports of a host, reached through its SSH connection, as Unix sockets in a private directory.

Unix sockets, since a port on loopback would be open to every user of this machine. Each connection to the socket
becomes a channel of the SSH connection, which is made anew when it broke.

Whoever connects to the socket is connected before anybody knows whether the way is open. Where it is not, HTTP clients
are told in their language: 502, with the word that nothing was done, which is certain.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from raftbed.errors import RaftbedError
from raftbed.hosts.base import Endpoint
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.tunnel_directory import TunnelDirectory

if TYPE_CHECKING:
    import asyncssh

_CHUNK: Final = 1 << 16
_PATIENCE: Final = 1.0  # seconds for a client to send its request and to take our answer


class Tunnels:
    """The tunnels to one host.

    Parameters:
        entry: the host.
        connected: gives its SSH connection.
    """

    def __init__(self, entry: InventoryEntry, connected: Callable[[], Awaitable[asyncssh.SSHClientConnection]]) -> None:
        self._entry = entry
        self._connected = connected
        self._directory: TunnelDirectory | None = None
        self._servers: dict[int, asyncio.Server] = {}

    async def endpoint(self, port: int) -> Endpoint:
        """The way to a TCP port of the host."""
        address = self._entry.peer_address
        if self._directory is None:
            self._directory = TunnelDirectory()
        path = str(self._directory.path / str(port))
        if port not in self._servers:

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._serve(reader, writer, port)

            self._servers[port] = await asyncio.start_unix_server(serve, path)
        return Endpoint(f"{address}:{port}", listen=address, unix_socket=path)

    async def close(self) -> None:
        """Close all; idempotent."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:

        try:
            await self._lead(reader, writer, port)
        finally:
            writer.close()

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        import asyncssh

        try:
            connection = await self._connected()
            far_reader, far_writer = await connection.open_connection(self._entry.peer_address, port, encoding=None)
        except (RaftbedError, asyncssh.Error, OSError) as error:
            await _decline(reader, writer, f"{self._entry.name}: port {port} cannot be reached: {error}")
            return
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            far_writer.close()


async def _pump(source: asyncio.StreamReader | asyncssh.SSHReader[bytes],
                sink: asyncio.StreamWriter | asyncssh.SSHWriter[bytes]) -> None:  # fmt: skip
    import asyncssh

    with contextlib.suppress(OSError, asyncssh.Error):
        while chunk := await source.read(_CHUNK):
            sink.write(chunk)
            await sink.drain()
    with contextlib.suppress(OSError, asyncssh.Error, RuntimeError):
        sink.write_eof()


async def _decline(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, why: str) -> None:
    body = json.dumps({"error": "connection-refused", "definite": True, "message": why}).encode()
    head = f"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await reader.read(_CHUNK)  # a Unix socket that is closed with unread data resets the other side
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            writer.write_eof()
            await writer.drain()
            while await reader.read(_CHUNK):
                pass
