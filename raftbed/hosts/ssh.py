"""SSH to a host of the inventory: asyncssh carries the runs, fabric and paramiko the operator's commands.

One connection per host stays open; it is opened anew when it broke, before a command is sent, never after: a command
that may have run is not repeated. Host keys are checked against those that the inventory knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import shlex
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from raftbed.errors import CommandError, HostError
from raftbed.hosts.base import CommandResult
from raftbed.hosts.inventory import InventoryEntry

if TYPE_CHECKING:
    import asyncssh
    import fabric
    import paramiko  # type: ignore[import-untyped]  # its stubs are a package of their own

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for a connection to be made and the login to succeed."""

_KEEPALIVE: Final = 5
_SESSIONS: Final = 8  # an ordinary sshd allows ten at once on one connection
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


def open_connected(entry: InventoryEntry, *, timeout: float = CONNECT_TIMEOUT) -> socket.socket:
    """A blocking TCP connection to a host's SSH server.

    Raises:
        OSError: it cannot be reached.
    """
    opened = _make_socket(entry)
    try:
        opened.settimeout(timeout)
        opened.connect((entry.address, entry.port))
    except BaseException:
        opened.close()
        raise
    return opened


def _make_socket(entry: InventoryEntry) -> socket.socket:
    if entry.open_socket is None:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    return entry.open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (entry.address, entry.port)))


async def connect(entry: InventoryEntry, *, timeout: float = CONNECT_TIMEOUT) -> asyncssh.SSHClientConnection:
    """An asyncssh connection to a host.

    Raises:
        HostError: it cannot be reached, shows another host key, or refuses the login; says which.
    """
    import asyncssh

    opened = _guarded_socket(entry)
    try:
        async with asyncio.timeout(timeout):
            opened.setblocking(False)
            await asyncio.get_running_loop().sock_connect(opened, (entry.address, entry.port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return await asyncssh.connect(
                sock=opened,
                username=entry.user,
                client_keys=[str(entry.key)],
                known_hosts=([asyncssh.import_public_key(entry.host_key)], [], []),
                server_host_key_algs=[entry.host_key.split()[0]],
                agent_path=None,
                config=None,
                preferred_auth="publickey",
                compression_algs=None,
                keepalive_interval=_KEEPALIVE,
                keepalive_count_max=3,
                encoding=None,
            )
    except TimeoutError as error:
        opened.close()
        raise HostError(
            f"SSH to {entry.address}:{entry.port} did not answer within {timeout:g} s.", host=entry.name
        ) from error
    except asyncssh.HostKeyNotVerifiable as error:
        opened.close()
        raise HostError(
            f"{entry.address}:{entry.port} shows another SSH host key than this host was made with.",
            host=entry.name,
            remedy="Something else answers at its address; nothing was sent to it.",
        ) from error
    except (OSError, asyncssh.Error) as error:
        opened.close()
        raise HostError(f"SSH to {entry.address}:{entry.port} failed: {error}.", host=entry.name) from error
    except BaseException:
        opened.close()
        raise


def _guarded_socket(entry: InventoryEntry) -> socket.socket:
    try:
        return _make_socket(entry)
    except OSError as error:
        raise HostError(f"no socket to it can be made: {error}.", host=entry.name) from error


async def connect_when_up(entry: InventoryEntry, *, timeout: float) -> asyncssh.SSHClientConnection:
    """Like `connect`, for a host that is just booting: as long as nobody listens at its port, try again.

    Raises:
        HostError: as for `connect`, or the port is still closed after `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = 0.005
    while True:
        try:
            return await connect(entry, timeout=max(0.1, deadline - loop.time()))
        except HostError as error:
            cause = error.__cause__
            refused = isinstance(cause, OSError) and cause.errno in {
                errno.ECONNREFUSED,
                errno.EHOSTUNREACH,
                errno.ECONNRESET,
            }
            if not refused or loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.1)


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

    @property
    def name(self) -> str:
        """Its name within the run."""
        return self.entry.name

    @property
    def address(self) -> str:
        """The address its peers reach it at."""
        return self.entry.address

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

    async def connect(self, *, timeout: float = CONNECT_TIMEOUT, booting: bool = False) -> None:
        """Open the connection now instead of with the first command; with `booting`, wait for the port to open.

        Raises:
            HostError: as for `connect` and `connect_when_up`.
        """
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                opener = connect_when_up if booting else connect
                self._connection = await opener(self.entry, timeout=timeout)

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 10.0, check: bool = True
    ) -> CommandResult:
        """Run a command and wait for its end; see `raftbed.hosts.base.Host.run`."""
        command = shlex.join(argv)
        async with self._session(command, timeout) as process:
            status, stdout, stderr = await asyncio.gather(
                self._finish(process, stdin, command), process.stdout.read(), process.stderr.read()
            )
        result = CommandResult(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
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
            try:
                process: asyncssh.SSHClientProcess[bytes] = await connection.create_process(command, encoding=None)
                return process
            except (asyncssh.Error, OSError) as error:
                # No session was opened, so nothing ran: this alone may be tried again.
                self.abandon()
                if attempt == 2:
                    raise HostError(f"SSH session for `{command}` failed: {error}.", host=self.name) from error
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
                process = await self._open(f"exec timeout -s KILL {math.ceil(timeout) + 1} {command}")
                yield process
                ended = True
        except TimeoutError as error:
            if process is None:
                silent = HostError(f"SSH did not answer within {timeout:g} s.", host=self.name)
                raise await self.explain(silent) from error
            raise CommandError(
                host=self.name,
                command=shown or command,
                status=None,
                stderr="",
                remedy=f"It was given {timeout:g} s and was killed.",
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


def paramiko_client(entry: InventoryEntry, *, timeout: float = CONNECT_TIMEOUT) -> paramiko.SSHClient:
    """A connected paramiko client; the caller closes it.

    Raises:
        HostError: as for `connect`.
    """
    import paramiko

    client = paramiko.SSHClient()
    try:
        kind, encoded = entry.host_key.split()[:2]
        names = (entry.address, f"[{entry.address}]:{entry.port}")
        host_key = paramiko.hostkeys.HostKeyEntry.from_line(f"{','.join(names)} {kind} {encoded}")
        if host_key is None:
            raise HostError(f"the inventory's host key is of an unknown kind: {kind}.", host=entry.name)
        for name in names:
            client.get_host_keys().add(name, kind, host_key.key)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(**_paramiko_options(entry, timeout))
    except (OSError, paramiko.SSHException) as error:
        client.close()
        raise HostError(f"SSH to {entry.address}:{entry.port} failed: {error}.", host=entry.name) from error
    return client


def _paramiko_options(entry: InventoryEntry, timeout: float) -> dict[str, Any]:
    return {
        "hostname": entry.address,
        "port": entry.port,
        "username": entry.user,
        "key_filename": str(entry.key),
        "sock": open_connected(entry, timeout=timeout),
        "look_for_keys": False,
        "allow_agent": False,
        "timeout": timeout,
    }


def fabric_connection(entry: InventoryEntry, *, timeout: float = CONNECT_TIMEOUT) -> fabric.Connection:
    """An open fabric connection over `paramiko_client`; the caller closes it.

    Raises:
        HostError: as for `connect`.
    """
    import fabric
    from fabric.config import Config

    client = paramiko_client(entry, timeout=timeout)
    connection = fabric.Connection(
        entry.address, user=entry.user, port=entry.port, config=Config(lazy=True, overrides={"load_ssh_configs": False})
    )
    connection.client = client
    connection.transport = client.get_transport()
    return connection
