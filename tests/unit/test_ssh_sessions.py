"""A command is sent to a host once: again only where it was certainly not sent before."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.ssh import SSHHost


class Session(asyncssh.SSHServerSession[bytes]):
    """Notes the command instead of running it; then it ends well, unless its host is told to fail."""

    def __init__(self, commands: list[str], failure: str) -> None:
        self._commands = commands
        self._failure = failure

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        self._commands.append(command)
        if self._failure == "connection lost before the confirmation":
            self._channel.get_connection().abort()
        return self._failure != "refused"

    def session_started(self) -> None:
        if self._failure == "connection closed with the confirmation":
            self._channel.get_connection().close()
        else:
            self._channel.exit(0)


@contextlib.asynccontextmanager
async def host_that_fails_once(directory: Path, failure: str) -> AsyncIterator[tuple[SSHHost, list[str]]]:
    """A host at which the first command fails in one way, and the commands that it was sent."""
    commands: list[str] = []
    failures = [failure]

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

        def session_requested(self) -> Session | bool:
            now = failures.pop() if failures else ""
            return False if now == "no channel" else Session(commands, now)

    key = asyncssh.generate_private_key("ssh-ed25519")
    (directory / "key").write_bytes(key.export_private_key())
    server = await asyncssh.listen("127.0.0.1", 0, server_factory=Server, server_host_keys=[key], encoding=None)
    public = key.export_public_key().decode().strip()
    host = SSHHost(InventoryEntry("n1", "127.0.0.1", directory / "key", public, port=server.get_port()))
    try:
        yield host, commands
    finally:
        await host.disconnect()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("connection lost before the confirmation", "the connection was lost while `start it` ran"),
        ("connection closed with the confirmation", "the connection was lost while `start it` ran"),
        ("refused", "SSH session for .* failed: Session request failed"),
    ],
)
async def test_a_command_that_was_sent_is_never_sent_again(tmp_path, failure, message):
    async with host_that_fails_once(tmp_path, failure) as (host, commands):
        with pytest.raises(HostError, match=f"n1: {message}"):
            await host.run(["start", "it"])
        assert len(commands) == 1
        await host.run(["another"])  # the host itself can be used again
        assert len(commands) == 2


@pytest.mark.parametrize("failure", ["no channel", ""])
async def test_a_command_that_could_not_be_sent_is_tried_once_more(tmp_path, failure):
    async with host_that_fails_once(tmp_path, failure) as (host, commands):
        assert (await host.run(["start", "it"])).status == 0
        assert len(commands) == 1
