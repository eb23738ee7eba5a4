"""Host keys: what a host may show, from an inventory or from known_hosts files, and the recording of new ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry

if TYPE_CHECKING:
    import asyncssh

Finding = Literal["", "new", "changed"]


class HostKeyCheck:
    """Decides whether the key that a host shows is its own.

    Parameters:
        entry: the host; its own `host_key` counts alone, else its `known_hosts`.

    Attributes:
        finding: why a key was refused: "new", nobody has recorded one for this host; "changed", another one is.
        shown: fingerprint of the key that was shown.

    Raises:
        HostError: a known_hosts file is malformed or cannot be read.
    """

    def __init__(self, entry: InventoryEntry) -> None:
        import asyncssh

        self._entry = entry
        self.finding: Finding = ""
        self.shown = ""
        self._pinned = [asyncssh.import_public_key(entry.host_key)] if entry.host_key else []
        self._known = None if self._pinned else self._read()

    @property
    def known_hosts(self) -> Any:
        """What asyncssh takes as `known_hosts`."""
        return self._known if self._known is not None else (self._pinned, [], [])

    def client_factory(self) -> Callable[[], asyncssh.SSHClient]:
        """Makes what asyncssh asks about keys that `known_hosts` does not have."""
        import asyncssh

        judge = self._judge

        class Client(asyncssh.SSHClient):
            def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
                return judge(host, addr, port, key)

        return Client

    @property
    def is_known(self) -> bool:
        """A key of the host is known."""
        return bool(self._pinned) or self._is_known(self._entry.address, "", self._entry.port)

    def _read(self) -> asyncssh.SSHKnownHosts:
        import asyncssh

        text = ""
        for name in self._entry.known_hosts:
            path = Path(name).expanduser()
            try:
                text += path.read_text(encoding="utf-8", errors="replace") + "\n" if path.exists() else ""
            except OSError as error:
                raise HostError(f"{path} cannot be read: {error.strerror or error}.", host=self._entry.name) from error
        try:
            return asyncssh.import_known_hosts(text)
        except ValueError as error:
            files = ", ".join(self._entry.known_hosts)
            raise HostError(f"{files}: a line is malformed: {error}.", host=self._entry.name) from error

    def _is_known(self, host: str, addr: str, port: int) -> bool:
        import asyncssh

        assert self._known is not None
        found = asyncssh.match_known_hosts(self._known, host, addr, port if port != 22 else None)
        return any(found[:2])

    def _judge(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.shown = key.get_fingerprint()
        if self._pinned or self._is_known(host, addr, port):
            self.finding = "changed"
            return False
        if not self._entry.accept_new_keys:
            self.finding = "new"
            return False
        self._record(f"[{host}]:{port}" if port != 22 else host, key)
        return True

    def _record(self, host: str, key: asyncssh.SSHKey) -> None:
        path = Path(self._entry.known_hosts[0]).expanduser()
        line = f"{host} {key.export_public_key().decode().split(' #')[0].strip()}\n"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            with open(fd, "r+b", buffering=0) as stream:
                size = stream.seek(0, os.SEEK_END)
                unended = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
                stream.write(b"\n" * unended + line.encode())  # one write: other hosts are recorded at the same time
        except OSError as error:
            raise HostError(
                f"its new host key cannot be recorded in {path}: {error.strerror or error}.", host=self._entry.name
            ) from error
