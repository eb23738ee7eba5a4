"""sudo on a host: without a password, or with one that is sent over the connection and never stands in a command."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from raftbed.errors import HostError
from raftbed.hosts.base import CommandResult
from raftbed.hosts.inventory import InventoryEntry

if TYPE_CHECKING:
    import asyncssh

_WITHOUT: Final = "sudo -n -- "
# "-k": a password that sudo remembers would be one it does not read, and the command would find it in its input.
_WITH: Final = "sudo -k -S -p '' -- "


class Sudo:
    """How commands become root's on one host.

    Parameters:
        entry: the host.

    Attributes:
        prefix: what a command line begins with; "" where the user is root.
        password: what sudo reads first of the command's input; b"" when it asks for none.
    """

    def __init__(self, entry: InventoryEntry) -> None:
        self._entry = entry
        self.prefix = _WITHOUT if entry.sudo else ""
        self.password = b""
        self._learned = not (entry.sudo and entry.sudo_password)

    async def learn(self, connection: asyncssh.SSHClientConnection, *, timeout: float) -> None:
        """Find out whether sudo asks this user for a password at all, and whether the one that is known is right.

        Raises:
            HostError: it is wrong, or sudo refuses the user.
        """
        import asyncssh

        if self._learned:
            return
        try:
            async with asyncio.timeout(timeout):
                free = await connection.run("sudo -k -n true", encoding=None)
                if free.exit_status != 0:
                    password = self._entry.sudo_password.encode() + b"\n"
                    given = await connection.run(f"{_WITH}true", input=password, encoding=None)
                    if given.exit_status != 0:
                        raise self._refused(_text(given.stderr))
                    self.prefix, self.password = _WITH, password
        except (TimeoutError, asyncssh.Error, OSError) as error:
            raise HostError(f"sudo did not answer within {timeout:g} s.", host=self._entry.name) from error
        self._learned = True

    def examine(self, result: CommandResult) -> None:
        """Look at how a command ended.

        Raises:
            HostError: sudo refused it, so that it did not run.
        """
        if self.prefix and result.status in (1, 127) and ("sudo: " in result.stderr):
            refused = ("a password is required", "not in the sudoers", "not allowed", "not found", "may not run")
            if any(words in result.stderr for words in refused):
                raise self._refused(result.stderr)

    def _refused(self, stderr: str) -> HostError:
        said = " ".join(stderr.split())[-300:] or "no reason given"
        user = self._entry.user
        if "not found" in said:
            remedy = "Install sudo there, or log in as root."
        elif self._entry.sudo_password:
            remedy = f"Is the password that of {user!r}, and may {user!r} use sudo?"
        else:
            remedy = (
                f"Add --ask-sudo-password, or allow it without: {user} ALL=(ALL) NOPASSWD: ALL in /etc/sudoers.d/{user}"
            )
        return HostError(f"sudo refuses {user!r}: {said.rstrip('.')}.", host=self._entry.name, remedy=remedy)


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
