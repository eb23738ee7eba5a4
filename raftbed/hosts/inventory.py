"""The inventory: how each host of a run is reached over SSH, whoever asks: a run, or the operator's commands."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raftbed.errors import HostError
from raftbed.hosts.base import SocketFactory


@dataclass(frozen=True, slots=True)
class InventoryEntry:
    """One host and all that it takes to open an SSH connection to it.

    Attributes:
        name: its name within the run, "n1".
        address: the IPv4 address at which its peers and, through `open_socket`, the controller reach it.
        port: of its SSH server.
        user: whom to log in as.
        key: path of the private key to log in with.
        host_key: the public key that the host must show, as in an OpenSSH public key file.
        open_socket: makes sockets that reach the host, or None when ordinary sockets do.
        home: the directory below which raftbed keeps everything of its own on this host.
        python: path of a Python interpreter for nodes, or "".
        shares_interpreter: whether `python` and its packages are the controller's own.
    """

    name: str
    address: str
    key: Path
    host_key: str
    port: int = 22
    user: str = "root"
    open_socket: SocketFactory | None = None
    home: str = "/var/lib/raftbed"
    python: str = ""
    shares_interpreter: bool = False


class Inventory(Mapping[str, InventoryEntry]):
    """The hosts of a run, by name, in order.

    Parameters:
        entries: by name.
    """

    def __init__(self, entries: Mapping[str, InventoryEntry]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> InventoryEntry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def entry(self, name: str) -> InventoryEntry:
        """A host by name.

        Raises:
            HostError: there is no such host.
        """
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join(self._entries) or "none"
            raise HostError("there is no such host.", host=name, remedy=f"Hosts of this run: {known}.") from None

    def save(self, path: Path) -> None:
        """Write it to a private file, without what makes sockets: whoever reads it brings that along."""
        records = []
        for entry in self._entries.values():
            record = {name: getattr(entry, name) for name in InventoryEntry.__slots__ if name != "open_socket"}
            records.append({**record, "key": str(entry.key)})
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as stream:
            json.dump({"hosts": records}, stream, indent=2)

    @classmethod
    def load(cls, path: Path, open_socket: SocketFactory | None = None) -> Inventory:
        """Read what `save` wrote.

        Raises:
            HostError: it cannot be read or is malformed.
        """
        try:
            records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["hosts"]
            entries = [InventoryEntry(**{**record, "key": Path(record["key"])}) for record in records]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError(f"the inventory {path} cannot be read: {error}.") from error
        return cls({entry.name: replace(entry, open_socket=open_socket) for entry in entries})
