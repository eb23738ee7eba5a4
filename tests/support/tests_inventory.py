"""Inventories that lead to local hosts as they would to anybody's machines: over SSH alone, through a relay or a proxy.

``python tests_inventory.py proxy LAB NODE`` joins standard input and output with the SSH server of a host in a lab, and
``python tests_inventory.py power LAB NODE off|on`` pulls its plug or starts it: what an inventory's `proxy_command`,
`power_off` and `power_on` run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raftbed.hosts import labs
from raftbed.hosts.lab_client import attach
from raftbed.hosts.local import LocalPool

TCP = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ())
THIS = str(Path(__file__).resolve())


class Relay:
    """A TCP relay on loopback that delays what passes, and that can be told to swallow it, or to break off.

    Parameters:
        pool: whose hosts it leads to.
        address: of the host behind it.
        delay: seconds for each direction.
    """

    def __init__(self, pool: LocalPool, address: str, *, delay: float = 0.0, port: int = 22) -> None:
        self._pool = pool
        self._target = (address, port)
        self._delay = delay
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.open = asyncio.Event()
        self.open.set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def hang(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self.open.clear()

    async def close(self) -> None:
        """Break all connections off, and refuse new ones."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        far = self._pool.socket_factory(TCP)
        far.setblocking(False)
        await asyncio.sleep(2 * self._delay)  # the handshake of TCP
        await self.open.wait()
        await loop.sock_connect(far, self._target)
        far_reader, far_writer = await asyncio.open_connection(sock=far)
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            for each in (writer, far_writer):
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        waiting: deque[tuple[float, bytes]] = deque()
        arrived = asyncio.Event()

        async def deliver() -> None:
            while True:
                while not waiting:
                    arrived.clear()
                    await arrived.wait()
                due, chunk = waiting.popleft()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self.open.wait()
                if not chunk:
                    sink.write_eof()
                    return
                sink.write(chunk)

        delivering = asyncio.create_task(deliver())
        try:
            with contextlib.suppress(OSError):
                while True:
                    chunk = await source.read(1 << 16)
                    waiting.append((loop.time() + self._delay, chunk))
                    arrived.set()
                    if not chunk:
                        break
            with contextlib.suppress(OSError):
                await delivering
        finally:
            delivering.cancel()


class RelayThread:
    """Relays on a loop of their own, in a thread, so that a busy test delays nobody.

    Parameters:
        pool: local hosts that are up.
        delay: seconds for each direction.
    """

    def __init__(self, pool: LocalPool, *, delay: float = 0.0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.relays = {name: self._call(self._start(pool, host.address, delay)) for name, host in pool.hosts.items()}

    async def _start(self, pool: LocalPool, address: str, delay: float) -> Relay:
        relay = Relay(pool, address, delay=delay)
        await relay.start()
        return relay

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def port(self, name: str) -> int:
        return self.relays[name].port

    def hang(self, name: str) -> None:
        self._loop.call_soon_threadsafe(self.relays[name].hang)

    def lose(self, name: str) -> None:
        self._call(self.relays[name].close())

    def close(self) -> None:
        for relay in self.relays.values():
            self._call(relay.close())
        self._call(self._end_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end_tasks(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


def known_hosts(pool: LocalPool, places: Mapping[str, str]) -> str:
    """A known_hosts file for local hosts, at the places where an inventory reaches them, "[127.0.0.1]:2201"."""
    return "".join(f"{place} {' '.join(pool.inventory[name].host_key.split()[:2])}\n" for name, place in places.items())


def toml(defaults: Mapping[str, Any], hosts: Mapping[str, Mapping[str, Any]]) -> str:
    """An inventory file; JSON's texts, numbers, lists and booleans are TOML's."""
    lines = ["[defaults]", *(f"{key} = {json.dumps(value)}" for key, value in defaults.items())]
    for name, values in hosts.items():
        lines += ["", "[[hosts]]", f'name = "{name}"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def inventory_through_relays(pool: LocalPool, relays: RelayThread, directory: Path, **defaults: Any) -> Path:
    """An inventory of the pool's hosts at their relays; nodes are reached through tunnels."""
    places = {name: f"[127.0.0.1]:{relays.port(name)}" for name in pool.hosts}
    (directory / "known_hosts").write_text(known_hosts(pool, places))
    hosts = {
        name: {"address": "127.0.0.1", "port": relays.port(name), "peer": host.address}
        for name, host in pool.hosts.items()
    }
    key = str(next(iter(pool.inventory.values())).key)
    settings = {"user": "root", "key": key, "known_hosts": "known_hosts", "tunnel": True, "python": sys.executable}
    (directory / "cluster.toml").write_text(toml({**settings, **defaults}, hosts))
    return directory / "cluster.toml"


def inventory_through_proxy(pool: LocalPool, lab: Path, directory: Path, **defaults: Any) -> Path:
    """An inventory of the pool's hosts by way of an SSH configuration with a ProxyCommand into the lab."""
    (directory / "known_hosts").write_text(known_hosts(pool, {name: f"lab-{name}" for name in pool.hosts}))
    key = str(next(iter(pool.inventory.values())).key)
    proxy = f"{sys.executable} {THIS} proxy {lab} %n"
    (directory / "ssh_config").write_text(
        f"Host lab-*\n  User root\n  IdentityFile {key}\n  ProxyCommand {proxy}\n"
        f"  UserKnownHostsFile {directory / 'known_hosts'}\n"
    )
    hosts = {name: {"address": f"lab-{name}", "peer": host.address} for name, host in pool.hosts.items()}
    power = [sys.executable, THIS, "power", str(lab), "{name}"]
    settings = {"ssh_config": "ssh_config", "python": sys.executable}
    settings |= {"power_off": [*power, "off"], "power_on": [*power, "on"]}
    (directory / "cluster.toml").write_text(toml({**settings, **defaults}, hosts))
    return directory / "cluster.toml"


def _proxy(lab: Path, name: str) -> None:
    """Join standard input and output, which may be one socket, with the host's SSH server."""
    inventory, opener = attach(labs.lab_info(lab))  # type: ignore[arg-type]
    far = opener(TCP)
    far.connect((inventory.entry(name.removeprefix("lab-")).address, 22))
    opener.close()

    def pump(read: Any, write: Any, finish: Any) -> None:
        with contextlib.suppress(OSError):
            while chunk := read():
                write(chunk)
        with contextlib.suppress(OSError):
            finish()

    def to_output(chunk: bytes) -> None:
        while chunk:
            chunk = chunk[os.write(1, chunk) :]

    back = threading.Thread(target=pump, args=(lambda: far.recv(1 << 16), to_output, lambda: os._exit(0)), daemon=True)
    back.start()
    pump(lambda: os.read(0, 1 << 16), far.sendall, lambda: far.shutdown(socket.SHUT_WR))
    back.join()


def _power(lab: Path, name: str, switch: str) -> None:
    with labs.call_lab(lab, 30.0) as channel:
        channel.send(json.dumps({"id": 1, "do": {"off": "crash", "on": "boot"}[switch], "hosts": [name]}).encode())
        answer = json.loads(channel.recv(1 << 16))
    if "error" in answer:
        sys.exit(answer["error"])


if __name__ == "__main__":
    verb, directory, *rest = sys.argv[1:]
    {"proxy": _proxy, "power": _power}[verb](Path(directory), *rest)
