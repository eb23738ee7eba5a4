"""Machines on loopback: SSH servers whose commands run right here, each with something wrong with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import asyncssh


class Machine:
    """An SSH server at 127.0.0.1; what raftbed keeps on it lies in a directory of the test's.

    Parameters:
        directory: for its keys, its home and its programs.
        user: the only one who may log in.
        wrapper: what its commands are run by; every command line is added to it.
        programs: name to shell script, found before all others by its commands.
        deaf_to: commands that contain one of these words never end, and are never begun.
    """

    def __init__(
        self,
        directory: Path,
        *,
        user: str = "root",
        wrapper: Sequence[str] = ("sh", "-c"),
        programs: dict[str, str] | None = None,
        deaf_to: Iterable[str] = (),
    ) -> None:
        self.directory = directory
        self.user = user
        self.home = directory / "home"
        self._wrapper = list(wrapper)
        self._deaf_to = tuple(deaf_to)
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self.key = directory / "key"
        self.key.write_bytes(self.client_key.export_private_key())
        self.key.chmod(0o600)
        self.programs = directory / "bin"
        self.programs.mkdir()
        for name, script in (programs or {}).items():
            (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.programs / name).chmod(0o755)
        self.commands: list[str] = []
        self.port = 0
        self._server: asyncssh.SSHAcceptor | None = None

    async def start(self) -> None:
        machine = self

        class Server(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return True

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                return username == machine.user and key == machine.client_key.convert_to_public()

            def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
                return True  # it can be a jump host

        self._server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=Server,
            server_host_keys=[self._key],
            process_factory=self._run,
            encoding=None,
        )
        self.port = self._server.get_port()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def known_host(self) -> str:
        """Its line in a known_hosts file."""
        return f"[127.0.0.1]:{self.port} {self._key.export_public_key().decode()}"

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        command = process.command or ""
        self.commands.append(command)
        if any(word in command for word in self._deaf_to):
            await process.wait_closed()
            return
        environment = {**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"}
        child = await asyncio.create_subprocess_exec(
            *self._wrapper,
            command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )

        async def feed() -> None:
            assert child.stdin is not None
            with contextlib.suppress(OSError):
                while chunk := await process.stdin.read(1 << 16):
                    child.stdin.write(chunk)
                    await child.stdin.drain()
                child.stdin.close()

        async def show(source: Any, sink: Any) -> None:
            while chunk := await source.read(1 << 16):
                sink.write(chunk)

        feeding = asyncio.create_task(feed())
        await asyncio.gather(show(child.stdout, process.stdout), show(child.stderr, process.stderr))
        status = await child.wait()
        feeding.cancel()
        process.exit(status if status >= 0 else 128 - status)


class SilentServer:
    """Accepts connections and says nothing, as a machine does that hangs."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])
