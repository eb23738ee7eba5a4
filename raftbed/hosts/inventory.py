"""The inventory: how each host of a run is reached over SSH, whoever asks: a run, or the operator's commands."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from raftbed.errors import HostError
from raftbed.hosts.base import SocketFactory


@dataclass(frozen=True, slots=True)
class InventoryEntry:
    """One host and all that it takes to open an SSH connection to it.

    Attributes:
        name: its name within the run, "n1".
        address: name or address at which the controller reaches its SSH server, and, without `peer`, its peers reach
            it.
        port: of its SSH server.
        user: whom to log in as.
        key: path of the private key to log in with; None tries those of the SSH configuration, the usual files and
            the agent.
        host_key: the public key that the host must show, as in an OpenSSH public key file; "" checks what it shows
            against `known_hosts`.
        open_socket: makes sockets that reach the host, or None when ordinary sockets do.
        home: the directory below which raftbed keeps everything of its own on this host.
        python: path of a Python interpreter for nodes, or "".
        shares_interpreter: whether `python` and its packages are the controller's own.
        peer: the IPv4 address at which its peers reach it, where that is not `address`.
        sudo: `user` is not root, and commands run through sudo.
        jump: the host to go through, "user@host:port", several separated by commas; as `ssh -J`.
        proxy_command: a program whose standard input and output lead to the SSH server, and its arguments.
        ssh_config: files of SSH configuration that count for it, the first that sets something wins.
        ssh_alias: its name in that configuration, where that is not `address`.
        identities: private keys that the configuration names for it.
        known_hosts: files with the host keys that are known; the first takes new ones.
        accept_new_keys: record the key of a host that is not known yet, instead of refusing it.
        tunnel: its nodes are reached through the SSH connection, not directly.
        power_off: a command of the controller's machine that cuts its power; "{name}" and "{address}" are replaced.
        power_on: the same for switching it on.
        labels: whatever the user notes of it.
        sudo_password: for sudo, where it wants one; lives in memory only.
    """

    name: str
    address: str
    key: Path | None = None
    host_key: str = ""
    port: int = 22
    user: str = "root"
    open_socket: SocketFactory | None = None
    home: str = "/var/lib/raftbed"
    python: str = ""
    shares_interpreter: bool = False
    peer: str = ""
    sudo: bool = False
    jump: str = ""
    proxy_command: tuple[str, ...] = ()
    ssh_config: tuple[str, ...] = ()
    ssh_alias: str = ""
    identities: tuple[str, ...] = ()
    known_hosts: tuple[str, ...] = ()
    accept_new_keys: bool = False
    tunnel: bool = False
    power_off: tuple[str, ...] = ()
    power_on: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    sudo_password: str = field(default="", repr=False)

    @property
    def peer_address(self) -> str:
        """The address at which its peers reach it."""
        return self.peer or self.address

    @property
    def login(self) -> str:
        """Where it is logged in, for messages: "user@address:port"."""
        return f"{self.user}@{self.address}:{self.port}"


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
        """Write it to a private file, without passwords, and without what makes sockets: who reads it brings that."""
        unsaved = {"open_socket", "sudo_password"}
        records = []
        for entry in self._entries.values():
            record = {name: getattr(entry, name) for name in InventoryEntry.__slots__ if name not in unsaved}
            records.append({**record, "key": str(entry.key) if entry.key else None})
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
            entries = [_entry(record) for record in records]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError(f"the inventory {path} cannot be read: {error}.") from error
        return cls({entry.name: replace(entry, open_socket=open_socket) for entry in entries})


def _entry(record: dict[str, Any]) -> InventoryEntry:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.items()
    }
    values["key"] = Path(values["key"]) if values.get("key") else None
    return InventoryEntry(**values)
