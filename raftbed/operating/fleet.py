"""Commands on several hosts at once, over fabric: one thread and one connection a host, one result a host.

A host that fails does not stop the others: its error is its result. Whatever waits has a bound.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import shlex
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

from raftbed.errors import CommandError, HostError
from raftbed.hosts.base import CommandResult
from raftbed.hosts.inventory import Inventory, InventoryEntry
from raftbed.hosts.sudo import Sudo

if TYPE_CHECKING:
    import fabric

_T = TypeVar("_T")
_KILLED: Final = 128 + 9
_GRACE: Final = 5.0
"""Seconds after which a command that its own host should have ended is given up here."""


class Remote:
    """One host, with a fabric connection that is opened when it is first needed. For one thread at a time.

    Parameters:
        entry: how it is reached.
    """

    def __init__(self, entry: InventoryEntry) -> None:
        self.entry = entry
        self._connection: fabric.Connection | None = None
        self._asks_password = False

    @property
    def name(self) -> str:
        """Its name within the cluster."""
        return self.entry.name

    def path(self, name: str) -> str:
        """A file of the node on this host."""
        return f"{self.entry.home}/run/{name}"

    def connection(self) -> fabric.Connection:
        """The connection, opened now unless it was before.

        Raises:
            HostError: it cannot be opened.
        """
        if self._connection is None:
            from raftbed.hosts.blocking import fabric_connection

            # What it would log (a port that is closed, say) is told as a result.
            logging.getLogger("paramiko").addHandler(logging.NullHandler())
            try:
                self._connection = fabric_connection(self.entry)
            except OSError as error:
                raise HostError(f"it cannot be reached: {error}.", host=self.name) from error
            if self.entry.sudo and self.entry.sudo_password:
                free = self._connection.run("sudo -k -n true", hide=True, warn=True, in_stream=False)
                self._asks_password = free.exited != 0
        return self._connection

    def close(self) -> None:
        """Close the connection; a command under way ends with an error."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def run(self, argv: Sequence[str], *, timeout: float = 10.0, check: bool = True) -> CommandResult:
        """Run a command as the administrator of the host and wait for its end. `argv` is never read by a shell.

        Raises:
            CommandError: with `check`, a status other than zero; always, when `timeout` seconds went by.
            HostError: the host cannot be reached.
        """
        import paramiko  # type: ignore[import-untyped]  # its stubs are a package of their own
        from invoke.exceptions import CommandTimedOut, Failure, ThreadException

        shown = shlex.join(argv)
        connection = self.connection()
        started = time.monotonic()
        try:
            result = connection.run(
                self._line(argv, timeout), hide=True, warn=True, in_stream=self._input(), encoding="utf-8",
                timeout=timeout + _GRACE,
            )  # fmt: skip
        except CommandTimedOut as error:
            self.close()
            raise self._too_slow(shown, timeout) from error
        except (Failure, ThreadException, paramiko.SSHException, OSError, EOFError) as error:
            self.close()
            raise HostError(f"the connection was lost while `{shown}` ran: {error}.", host=self.name) from error
        if result.exited < 0:
            self.close()
            raise HostError(f"the connection was lost while `{shown}` ran.", host=self.name)
        if result.exited == _KILLED and time.monotonic() - started >= timeout:
            raise self._too_slow(shown, timeout)
        found = CommandResult(result.exited, result.stdout, result.stderr)
        Sudo(self.entry).examine(found)
        if check and result.exited != 0:
            raise CommandError(host=self.name, command=shown, status=result.exited, stderr=result.stderr)
        return found

    def lines(self, argv: Sequence[str]) -> Iterator[str]:
        """What a command writes to its standard output, line by line, as long as it goes on.

        Its standard input stays open until the connection is closed: by that the command knows when to end.

        Raises:
            CommandError: it ended with a status other than zero.
            HostError: the host cannot be reached, or the connection was lost.
        """
        import paramiko

        shown = shlex.join(argv)
        try:
            channel = self.connection().create_session()
            channel.exec_command(self._line(argv, None))
            if self._asks_password:
                channel.sendall(f"{self.entry.sudo_password}\n".encode())
            with channel.makefile("rb") as stream:
                for line in stream:
                    yield line.decode(errors="replace").rstrip("\r\n")
            status = channel.recv_exit_status()
            said = channel.makefile_stderr("rb").read().decode(errors="replace")
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise HostError(f"the connection was lost while `{shown}` ran: {error}.", host=self.name) from error
        if status != 0:
            raise CommandError(host=self.name, command=shown, status=status, stderr=said)

    def open_port(self, address: str, port: int, *, timeout: float) -> socket.socket:
        """A connection to a port of this host's, or of one that it reaches.

        Raises:
            OSError, HostError: it cannot be made.
        """
        if self.entry.tunnel:
            import paramiko

            transport = self.connection().transport
            try:
                tunnel: socket.socket = transport.open_channel(
                    "direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=timeout
                )
            except paramiko.SSHException as error:
                raise OSError(str(error)) from error
            tunnel.settimeout(timeout)
            return tunnel
        if self.entry.open_socket is None:
            return socket.create_connection((address, port), timeout=timeout)
        opened = self.entry.open_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)))
        try:
            opened.settimeout(timeout)
            opened.connect((address, port))
        except BaseException:
            opened.close()
            raise
        return opened

    def _line(self, argv: Sequence[str], timeout: float | None) -> str:
        """The line for the host's shell. It waits for the command, and so can tell how a signal ended it."""
        words = list(argv)
        if timeout is not None:
            # The host's own: what is left of a command whose connection is lost ends there, too.
            words = ["timeout", "-s", "KILL", str(math.ceil(timeout)), *words]
        if self._asks_password:
            # "-k": a password that sudo remembers would be one it does not read.
            words = ["sudo", "-k", "-S", "-p", "", "--", *words]
        elif self.entry.sudo:
            words = ["sudo", "-n", "--", *words]
        return f"{shlex.join(words)}; exit $?"

    def _input(self) -> io.StringIO:
        """What a command reads: the password that sudo asks for, or nothing; and then the end, for which some wait."""
        return io.StringIO(f"{self.entry.sudo_password}\n" if self._asks_password else "")

    def _too_slow(self, shown: str, timeout: float) -> CommandError:
        return CommandError(host=self.name, command=shown, status=None, stderr="",
                            remedy=f"It was given {timeout:g} s and was killed.")  # fmt: skip


class Fleet:
    """Hosts to work on side by side.

    Parameters:
        entries: how they are reached.
    """

    def __init__(self, entries: Iterable[InventoryEntry]) -> None:
        self.remotes: Mapping[str, Remote] = {entry.name: Remote(entry) for entry in entries}

    @property
    def entries(self) -> Inventory:
        """How they are reached."""
        return Inventory({name: remote.entry for name, remote in self.remotes.items()})

    def only(self, names: Collection[str]) -> Fleet:
        """Some of them, over the same connections."""
        some = Fleet(())
        some.remotes = {name: remote for name, remote in self.remotes.items() if name in names}
        return some

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        for remote in self.remotes.values():
            remote.close()

    def each(self, work: Callable[[Remote], _T]) -> dict[str, _T | HostError]:
        """Do the same on every host; what it returned, or why it failed, by host and in their order."""

        def attempt(remote: Remote) -> _T | HostError:
            try:
                return work(remote)
            except HostError as error:
                return error

        with ThreadPoolExecutor(max_workers=max(1, len(self.remotes))) as threads:
            try:
                return dict(zip(self.remotes, threads.map(attempt, self.remotes.values()), strict=True))
            except BaseException:
                self.close()  # whatever the threads wait for ends
                raise

    def run(self, argv: Sequence[str], *, timeout: float = 10.0) -> dict[str, CommandResult | HostError]:
        """Run one command on every host."""
        return self.each(lambda remote: remote.run(argv, timeout=timeout, check=False))
