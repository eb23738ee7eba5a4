"""SSH to a host of the inventory: asyncssh carries the runs, fabric and paramiko the operator's commands.

One connection per host stays open; it is opened anew when it broke before a command was sent, never after: a command
that may have run is not repeated. Host keys are checked against those that the inventory knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shlex
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from raftbed.errors import CommandError, HostError
from raftbed.hosts.base import COMMAND_TIMEOUT, CommandResult, Endpoint
from raftbed.hosts.blocking import fabric_connection, paramiko_client
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.login import connect, connect_when_up
from raftbed.hosts.streams import CONNECT_TIMEOUT, open_connected
from raftbed.hosts.sudo import Sudo
from raftbed.hosts.tunnel import Tunnels

if TYPE_CHECKING:
    import asyncssh

__all__ = [
    "CONNECT_TIMEOUT",
    "SSHHost",
    "connect",
    "connect_when_up",
    "fabric_connection",
    "open_connected",
    "paramiko_client",
]

_SESSIONS: Final = 8  # an ordinary sshd allows ten at once on one connection
_SILENCE: Final = 10.0
"""Seconds for which a host that let a new connection time out is not asked again: whoever waits for several things of a
host that hangs waits for the first."""

_CHUNK: Final = 1 << 18
_NO_SUCH_FILE: Final = 44

_PUT_SCRIPT: Final = """set -e
mkdir -p -- "${1%/*}/"
trap 'rm -f -- "$2"' EXIT
umask 077
cat > "$2"
[ "$(wc -c < "$2")" -eq "$4" ] || { echo "the transfer was cut off" >&2; exit 1; }
chmod -- "$3" "$2"
mv -f -- "$2" "$1"
trap - EXIT
"""

_GET_SCRIPT: Final = f"""[ -f "$1" ] || exit {_NO_SUCH_FILE}
exec tail -c "$2" -- "$1"
"""


class SSHHost:
    """A host that is reached over SSH: all of `raftbed.hosts.base.Host` but crash and reboot.

    Parameters:
        entry: how it is reached.
    """

    def __init__(self, entry: InventoryEntry) -> None:
        self.entry = entry
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._sessions = asyncio.Semaphore(_SESSIONS)
        self._silent_until = 0.0  # on the loop's clock; see `_SILENCE`
        self._sudo = Sudo(entry)
        self._tunnels = Tunnels(entry, self._connected)

    @property
    def name(self) -> str:
        """Its name within the run."""
        return self.entry.name

    @property
    def address(self) -> str:
        """The address its peers reach it at."""
        return self.entry.peer_address

    @property
    def home(self) -> str:
        """Where raftbed keeps its own."""
        return self.entry.home

    @property
    def python(self) -> str:
        """Interpreter for nodes."""
        return self.entry.python

    @property
    def shares_interpreter(self) -> bool:
        """Sees the controller's interpreter."""
        return self.entry.shares_interpreter

    @property
    def is_connected(self) -> bool:
        """A connection is open, as far as is known here."""
        return self._connection is not None and not self._connection.is_closed()

    async def connect(self, *, timeout: float = CONNECT_TIMEOUT, booting: bool = False) -> None:
        """Open the connection now instead of with the first command; with `booting`, wait for the port to open.

        Raises:
            HostError: as for `connect` and `connect_when_up`.
        """
        async with self._connecting:
            if not self.is_connected:
                if not booting and asyncio.get_running_loop().time() < self._silent_until:
                    raise HostError("SSH did not answer when it was asked last.", host=self.name)
                opener = connect_when_up if booting else connect
                try:
                    opened = await opener(self.entry, timeout=timeout)
                except HostError as error:
                    if isinstance(error.__cause__, TimeoutError):
                        self._fell_silent()
                    raise
                try:
                    await self._sudo.learn(opened, timeout=timeout)
                except BaseException:
                    opened.abort()
                    raise
                self._connection = opened

    def _fell_silent(self) -> None:
        if self.entry.open_socket is None:  # a local host is busy at most
            self._silent_until = asyncio.get_running_loop().time() + _SILENCE

    async def _connected(self) -> asyncssh.SSHClientConnection:
        await self.connect()
        if self._connection is None:
            raise HostError("the connection was closed.", host=self.name)
        return self._connection

    async def endpoint(self, port: int) -> Endpoint:
        """How the controller reaches a TCP port of this host; see `raftbed.hosts.base.Host.endpoint`."""
        if self.entry.tunnel:
            return await self._tunnels.endpoint(port)
        # Peers and the controller come to one address, or the server must listen at all of them.
        one = self.entry.address == self.address and self.entry.open_socket is None
        return Endpoint(f"{self.entry.address}:{port}", listen=self.address if one else "0.0.0.0")  # noqa: S104  as said

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = COMMAND_TIMEOUT, check: bool = True
    ) -> CommandResult:
        """Run a command and wait for its end; see `raftbed.hosts.base.Host.run`."""
        command = shlex.join(argv)
        async with self._session(command, timeout) as process:
            status, stdout, stderr = await asyncio.gather(
                self._finish(process, stdin, command), process.stdout.read(), process.stderr.read()
            )
        result = CommandResult(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
        self._sudo.examine(result)
        if check and status != 0:
            raise CommandError(host=self.name, command=command, status=status, stderr=result.stderr)
        return result

    async def put(self, content: bytes | Path, path: str, *, mode: int = 0o644, timeout: float = 60.0) -> None:
        """Write a file whole or not at all; directories above it are made. See `raftbed.hosts.base.Host.put`."""
        if not path.startswith("/"):
            raise HostError(f"put needs an absolute path, not {path!r}.", host=self.name)
        size = os.stat(content).st_size if isinstance(content, Path) else len(content)
        beside = f"{path}.{os.urandom(4).hex()}.part"
        command = shlex.join(["/bin/sh", "-c", _PUT_SCRIPT, "put", path, beside, f"{mode:o}", str(size)])
        shown = f"put {path}"
        async with self._session(command, timeout, shown=shown) as process:
            status, stderr = await asyncio.gather(self._finish(process, content, shown), process.stderr.read())
        if status != 0:
            raise CommandError(host=self.name, command=shown, status=status, stderr=stderr.decode(errors="replace"))

    async def get(self, path: str, destination: Path, *, limit: int = 256 << 20, timeout: float = 60.0) -> bool:
        """Copy a file, at most its last `limit` bytes; see `raftbed.hosts.base.Host.get`."""
        command = shlex.join(["/bin/sh", "-c", _GET_SCRIPT, "get", path, str(limit)])
        shown = f"get {path}"
        beside = destination.with_name(f".{destination.name}.{os.getpid()}.part")
        try:
            with _open_private(beside) as stream:
                async with self._session(command, timeout, shown=shown) as process:
                    status, stderr, _ = await asyncio.gather(
                        self._finish(process, b"", shown), process.stderr.read(), self._copy(process, stream, limit)
                    )
            if status == _NO_SUCH_FILE:
                return False
            if status != 0:
                raise CommandError(host=self.name, command=shown, status=status, stderr=stderr.decode(errors="replace"))
            beside.replace(destination)
            return True
        except OSError as error:
            raise HostError(
                f"{destination} on this machine cannot be written: {error.strerror or error}.", host=self.name
            ) from error
        finally:
            beside.unlink(missing_ok=True)

    async def explain(self, error: HostError) -> HostError:
        """`error`, or a better one where more is known of why this host cannot be reached."""
        return error

    def abandon(self) -> None:
        """Forget the connection without a word to the other side, which is gone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    async def disconnect(self) -> None:
        """Close the connection; harmless when there is none."""
        await self._tunnels.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(1.0):
                    await connection.wait_closed()

    async def _open(self, command: str) -> asyncssh.SSHClientProcess[bytes]:
        import asyncssh

        for attempt in (1, 2):
            await self.connect()
            connection = self._connection
            if connection is None:
                continue
            process: asyncssh.SSHClientProcess[bytes] | None = None

            def session() -> asyncssh.SSHClientProcess[bytes]:
                nonlocal process  # called when the channel is open, just before the command is sent
                process = asyncssh.SSHClientProcess()
                return process

            try:
                await connection.create_session(session, command, encoding=None)
                assert process is not None
                return process
            except (asyncssh.Error, OSError) as error:
                failed = HostError(f"SSH session for `{command}` failed: {error}.", host=self.name)
                if process is not None:  # the command was sent, and may have run
                    if isinstance(error, asyncssh.ChannelOpenError) and not connection.is_closed():
                        raise failed from error  # the host refused it
                    raise ConnectionResetError(str(error)) from error
                self.abandon()
                if attempt == 2:
                    raise failed from error
        raise HostError("the connection was closed.", host=self.name)

    @contextlib.asynccontextmanager
    async def _session(
        self, command: str, timeout: float, *, shown: str = ""
    ) -> AsyncIterator[asyncssh.SSHClientProcess[bytes]]:
        """A command under way, ended when `timeout` seconds are over or the caller is cancelled.

        The host's own timeout(1) ends it a little later at most, because OpenSSH delivers no signals to commands of
        root, and because a connection that is lost delivers none at all.
        """
        import asyncssh

        process: asyncssh.SSHClientProcess[bytes] | None = None
        ended = False
        try:
            async with asyncio.timeout(timeout), self._sessions:
                process = await self._open(
                    f"exec {self._sudo.prefix}timeout -s KILL {math.ceil(timeout) + 1} {command}"
                )
                if self._sudo.password:
                    process.stdin.write(self._sudo.password)
                yield process
                ended = True
        except TimeoutError as error:
            if process is None:
                if self._connection is None or self._connection.is_closed():
                    self._fell_silent()
                silent = HostError(f"SSH did not answer within {timeout:g} s.", host=self.name)
                raise await self.explain(silent) from error
            raise CommandError(
                host=self.name,
                command=shown or command,
                status=None,
                stderr="",
                remedy=f"It was given {timeout:g} s and was killed; is the host hanging?",
            ) from error
        except (asyncssh.Error, ConnectionError) as error:
            raise await self.explain(self._lost(shown or command, error)) from error
        finally:
            if process is not None:
                if not ended:
                    with contextlib.suppress(OSError, asyncssh.Error):
                        process.kill()
                process.close()

    def _lost(self, command: str, error: BaseException | None = None) -> HostError:
        reason = f": {error}" if error is not None and str(error) else ""
        return HostError(f"the connection was lost while `{command}` ran{reason}.", host=self.name)

    async def _finish(self, process: asyncssh.SSHClientProcess[bytes], stdin: bytes | Path, command: str) -> int:
        """Send all input, then wait for the end: the exit status."""
        # A command may end without reading its input; its exit status tells what that means.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if isinstance(stdin, Path):
                with stdin.open("rb") as stream:
                    while chunk := stream.read(_CHUNK):
                        process.stdin.write(chunk)
                        await process.stdin.drain()
            elif stdin:
                process.stdin.write(stdin)
                await process.stdin.drain()
            process.stdin.write_eof()
        await process.channel.wait_closed()
        if process.exit_signal is not None:
            return 128 + _signal_number(process.exit_signal[0])
        if process.exit_status is None:
            raise self._lost(command)
        return process.exit_status

    @staticmethod
    async def _copy(process: asyncssh.SSHClientProcess[bytes], stream: BinaryIO, limit: int) -> None:
        left = limit  # the file may grow while tail reads it
        while chunk := await process.stdout.read(_CHUNK):
            stream.write(chunk[:left])
            left -= min(left, len(chunk))


def _open_private(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def _signal_number(name: str) -> int:
    import signal

    return int(getattr(signal, f"SIG{name}", 0))
