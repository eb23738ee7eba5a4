"""A port on loopback for each node of a cluster whose hosts are in a network of their own.

`raftbed cluster forward` runs it in the foreground. `up --forward` starts it as a process of its own, which ends with
the lab that it leads into. Nothing listens unless the user asks, and never beyond 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from raftbed.errors import HostError, RaftbedError
from raftbed.hosts import labs
from raftbed.hosts.inventory import Inventory, InventoryEntry
from raftbed.hosts.ssh import SSHHost
from raftbed.operating import clusters
from raftbed.operating.clusters import Cluster, ForwardRecord
from raftbed.private_files import write_private

LOOPBACK: Final = "127.0.0.1"
FIRST_PORT: Final = 8401
_CHUNK: Final = 1 << 16
_CONNECT_TIMEOUT: Final = 10.0


def listen(nodes: Sequence[str], first_port: int | None) -> dict[str, socket.socket]:
    """A listening socket on loopback for each node.

    Parameters:
        nodes: in the order of their ports.
        first_port: of the first node; the others follow. None: 8401 and on if all are free, else any.

    Raises:
        HostError: a port that was asked for is taken.
    """
    start = FIRST_PORT if first_port is None else first_port
    try:
        return _listen(nodes, range(start, start + len(nodes)))
    except OSError as error:
        if first_port is not None:
            raise HostError(
                f"ports {start} to {start + len(nodes) - 1} of {LOOPBACK} are not all free: {error.strerror}.",
                remedy="Choose others (--port), or let raftbed choose.",
            ) from error
    return _listen(nodes, [0] * len(nodes))


def _listen(nodes: Sequence[str], ports: Sequence[int]) -> dict[str, socket.socket]:
    opened: dict[str, socket.socket] = {}
    try:
        for node, port in zip(nodes, ports, strict=True):
            opened[node] = socket.create_server((LOOPBACK, port))
    except OSError:
        for listener in opened.values():
            listener.close()
        raise
    return opened


def forward(cluster: Cluster, first_port: int | None, ready: Callable[[Mapping[str, int]], None]) -> None:
    """Forward until the lab ends, or until SIGINT or SIGTERM.

    Parameters:
        cluster: where the ports lead.
        first_port: see `listen`.
        ready: called with the ports once they are open.

    Raises:
        HostError: the lab does not answer, a port is taken, or a forward is open already.
    """
    current = cluster.forward()
    if current is not None:
        taken = ", ".join(map(str, current.ports.values()))
        raise HostError(f"ports of {LOOPBACK} lead to the cluster {cluster.name} already: {taken}.")
    record = cluster.deployed()
    with cluster.inventory() as inventory:
        listeners = listen(list(record.nodes), first_port)
        ports = {node: int(listener.getsockname()[1]) for node, listener in listeners.items()}
        path = cluster.directory / clusters.FORWARD
        own = ForwardRecord(os.getpid(), labs.start_time(os.getpid()), ports)
        write_private(path, msgspec.json.encode(own))
        try:
            ready(ports)
            targets = {node: known.address for node, known in record.nodes.items()}
            asyncio.run(_serve(cluster, inventory, listeners, targets))
        finally:
            path.unlink(missing_ok=True)


async def _serve(
    cluster: Cluster, inventory: Inventory, listeners: Mapping[str, socket.socket], targets: Mapping[str, str]
) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    with _lab_watch(cluster, over):
        hosts = {node: SSHHost(inventory.entry(node)) for node in listeners}
        try:
            servers = [
                await asyncio.start_server(await _forwarder(hosts[node], targets[node]), sock=listener)
                for node, listener in listeners.items()
            ]
            await over.wait()
            for server in servers:
                server.close()
        finally:
            await asyncio.gather(*(host.disconnect() for host in hosts.values()))


@contextlib.contextmanager
def _lab_watch(cluster: Cluster, over: asyncio.Event) -> Iterator[None]:
    """Set `over` when the lab ends."""
    if cluster.lab is None:
        yield
        return
    try:
        holder = os.pidfd_open(cluster.lab.lab)
    except ProcessLookupError:
        over.set()
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(holder, over.set)
    try:
        yield
    finally:
        loop.remove_reader(holder)
        os.close(holder)


_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _forwarder(remote: SSHHost, address: str) -> _Handler:
    host, _, port = address.rpartition(":")
    tunnel = (await remote.endpoint(int(port))).unix_socket

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                if tunnel:
                    far_reader, far_writer = await asyncio.open_unix_connection(tunnel)
                else:
                    far_reader, far_writer = await _connect(remote.entry, host, int(port))
        except (OSError, TimeoutError):
            writer.transport.abort()  # as a node that is down would do it
            return
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

    return handle


async def _connect(entry: InventoryEntry, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if entry.open_socket is None:
        return await asyncio.open_connection(host, port)
    opened = entry.open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)))
    try:
        opened.setblocking(False)
        await asyncio.get_running_loop().sock_connect(opened, (host, port))
        return await asyncio.open_connection(sock=opened)
    except BaseException:
        opened.close()
        raise


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end; the other goes on, unless the connection is broken."""
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


def start_in_background(cluster: Cluster) -> dict[str, int]:
    """Start a process that forwards until the lab ends; the ports, once they are open.

    Raises:
        HostError: it did not start; says why.
    """
    receiving, sending = os.pipe()
    command = [sys.executable, "-P", "-m", "raftbed.operating.forwarding", str(cluster.directory), str(sending)]
    try:
        # A session of its own: it outlives the terminal, and Ctrl-C there is not meant for it.
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(sending,),
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(sending)
    with open(receiving, "rb") as stream:
        said = stream.read()  # to its end: the ports, or an error, or nothing from one that died
    try:
        return msgspec.json.decode(said, type=dict[str, int])
    except msgspec.DecodeError as error:
        reason = said.decode(errors="replace") or "it ended at once."
        raise HostError(f"the forward on loopback could not be started: {reason}") from error


def main(arguments: Sequence[str]) -> int:
    """Forward for a cluster; what became of it is written to a file descriptor that is then closed."""
    directory, descriptor = Path(arguments[0]), int(arguments[1])

    def tell(ports: Mapping[str, int]) -> None:
        os.write(descriptor, msgspec.json.encode(ports))
        os.close(descriptor)

    try:
        forward(clusters.find(str(directory)), None, tell)
    except RaftbedError as error:
        with contextlib.suppress(OSError):  # it was closed: the error came later, and nobody listens any more
            os.write(descriptor, str(error).encode())
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
