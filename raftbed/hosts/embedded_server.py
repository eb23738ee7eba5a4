"""An SSH server for local hosts where OpenSSH is not installed, or cannot run because only one user id exists.

asyncssh does the protocol; here is what sshd does beside it: run commands in a session of their own with a clean
environment, deliver signals, report how they ended, offer a terminal, SFTP and SCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import Callable, Mapping
from typing import Final, cast

import asyncssh
from asyncssh.channel import SSHChannel

_CHUNK: Final = 1 << 16
_SSH_SIGNALS: Final = {
    name: getattr(signal, f"SIG{name}")
    for name in ("ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2")
}


def serve(environment: Mapping[str, str], ready: Callable[[], None]) -> None:
    """Serve on port 22 until the process is killed.

    Parameters:
        environment: of the commands that are run.
        ready: called once the port is open.
    """
    asyncio.run(_serve(environment, ready))


def _file_server(channel: SSHChannel[bytes]) -> asyncssh.SFTPServer:
    return asyncssh.SFTPServer(cast("asyncssh.SSHServerChannel[bytes]", channel))


class CommandSession(asyncssh.SSHServerProcess[bytes]):
    """One session of a client: a command, a shell, SFTP or SCP.

    Parameters:
        environment: of the command.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(self._handle, _file_server, 3, True)
        self._environment = environment
        self.command_pid = 0

    async def _handle(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        try:
            await _run_command(self, self._environment)
        except (OSError, asyncssh.Error) as error:
            with contextlib.suppress(OSError, asyncssh.Error):
                self.stderr.write(f"{error}\n".encode())
                self.exit(255)

    def signal_received(self, signal: str) -> None:
        """Deliver a signal of the client's to the command and what it started."""
        if self.command_pid and signal in _SSH_SIGNALS:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.command_pid, _SSH_SIGNALS[signal])


class Server(asyncssh.SSHServer):
    """One connection of a client.

    Parameters:
        environment: of the commands that it runs.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Remember the connection: sessions are made on it."""
        self._connection = conn

    def session_requested(self) -> tuple[asyncssh.SSHServerChannel[bytes], CommandSession]:
        """Open a session whose streams carry bytes."""
        if self._connection is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, "no connection")
        return self._connection.create_server_channel(encoding=None), CommandSession(self._environment)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """Let the client connect from here, as OpenSSH does: the host's network leads nowhere else."""
        return True


async def _serve(environment: Mapping[str, str], ready: Callable[[], None]) -> None:
    server = await asyncssh.listen(
        "0.0.0.0",  # noqa: S104  inside the host's own network namespace
        22,
        server_factory=lambda: Server(environment),
        server_host_keys=["/etc/ssh/ssh_host_ed25519_key"],
        authorized_client_keys="/etc/ssh/authorized_keys",
        line_editor=False,
        agent_forwarding=False,
        compression_algs=None,
        password_auth=False,
        kbdint_auth=False,
        config=[],
    )
    ready()
    await server.wait_closed()


async def _run_command(process: CommandSession, environment: Mapping[str, str]) -> None:
    shell = environment["SHELL"]
    argv = [shell, "-c", process.command] if process.command is not None else [shell, "-l"]
    if process.term_type is not None:
        await _run_on_terminal(process, argv, {**environment, "TERM": process.term_type})
        return
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
        cwd=environment["HOME"],
        start_new_session=True,
        limit=4 * _CHUNK,
    )
    process.command_pid = child.pid
    if child.stdin is None or child.stdout is None or child.stderr is None:
        raise OSError("the command has no pipes")
    feeding = asyncio.create_task(_feed(process, child.stdin))
    await asyncio.gather(_copy(child.stdout, process.stdout), _copy(child.stderr, process.stderr))
    status = await child.wait()
    feeding.cancel()
    _report_end(process, status)


def _report_end(process: CommandSession, status: int) -> None:
    if status >= 0:
        process.exit(status)
        return
    with contextlib.suppress(ValueError):
        name = signal.Signals(-status).name.removeprefix("SIG")
        if name in _SSH_SIGNALS:
            process.exit_with_signal(name)
            return
    process.exit(128 - status)


async def _copy(source: asyncio.StreamReader, destination: asyncssh.SSHWriter[bytes]) -> None:
    try:
        while chunk := await source.read(_CHUNK):
            destination.write(chunk)
            await destination.drain()
    except (OSError, asyncssh.Error):
        while await source.read(_CHUNK):
            pass  # the client is gone; the command must not block on a full pipe


async def _feed(process: CommandSession, destination: asyncio.StreamWriter) -> None:
    """Standard input, from the client to the command."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while True:
            try:
                chunk = await process.stdin.read(_CHUNK)
            except (asyncssh.BreakReceived, asyncssh.TerminalSizeChanged):
                continue
            if not chunk:
                break
            destination.write(chunk)
            await destination.drain()
    with contextlib.suppress(OSError):
        destination.close()


async def _run_on_terminal(process: CommandSession, argv: list[str], environment: Mapping[str, str]) -> None:
    """A command with a pseudo-terminal: what an interactive `ssh` asks for."""
    master, slave = pty.openpty()
    try:
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=dict(environment),
            cwd=environment["HOME"],
            start_new_session=True,
        )
    finally:
        os.close(slave)
    process.command_pid = child.pid
    os.set_blocking(master, False)
    typing = asyncio.create_task(_type(process, master))
    try:
        # Copied here and not by redirection, which may report the end before the last output.
        await _show(process, master)
        status = await child.wait()
    finally:
        typing.cancel()
        await asyncio.wait([typing])
        os.close(master)
    _report_end(process, status)


async def _show(process: CommandSession, master: int) -> None:
    """What the terminal says, to the client, until nobody holds the terminal any more."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(master, readable.set)
    try:
        while True:
            await readable.wait()
            readable.clear()
            try:
                chunk = os.read(master, _CHUNK)
            except BlockingIOError:
                continue
            except OSError:  # EIO: the last process on the terminal is gone
                return
            with contextlib.suppress(OSError, asyncssh.Error):
                process.stdout.write(chunk)
                await process.stdout.drain()
    finally:
        loop.remove_reader(master)


async def _type(process: CommandSession, master: int) -> None:
    """What the client types, to the terminal."""
    with contextlib.suppress(OSError, asyncssh.Error):
        while True:
            try:
                chunk = await process.stdin.read(_CHUNK)
            except asyncssh.TerminalSizeChanged as changed:
                size = struct.pack("HHHH", changed.height, changed.width, changed.pixwidth, changed.pixheight)
                fcntl.ioctl(master, termios.TIOCSWINSZ, size)
                continue
            except asyncssh.BreakReceived:
                continue
            if not chunk:
                return
            while chunk:
                try:
                    chunk = chunk[os.write(master, chunk) :]
                except BlockingIOError:
                    await asyncio.sleep(0.01)  # the command does not read what is typed
