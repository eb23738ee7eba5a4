"""A configuration for OpenSSH out of an inventory, and the host keys that belong to it, as text.

With it `ssh`, and whatever reads ssh_config(5) or runs `ssh`, reaches hosts that are in a lab's network: the
ProxyCommand of a host asks `raftbed cluster proxy` for the way in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.streams import filled_in

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+=,~-]+")


def ssh_config(entries: Iterable[InventoryEntry], *, known_hosts: str, proxy: Sequence[str]) -> str:
    """The text of the configuration, a ``Host`` block for each entry.

    Parameters:
        entries: the hosts.
        known_hosts: path of the file with their host keys, where the inventory knows them.
        proxy: the command, without the name of the host, that leads into the network of hosts that are in one of
            their own.

    Raises:
        HostError: something in the inventory cannot be written so that OpenSSH would read the same.
    """
    return "\n".join(_block(entry, known_hosts, proxy) for entry in entries)


def known_hosts_lines(entries: Iterable[InventoryEntry]) -> str:
    """The host keys that the inventory knows, as sshd(8) describes the file; each under name and address."""
    lines = []
    for entry in entries:
        if entry.host_key:
            names = [entry.address, entry.name] if entry.name != entry.address else [entry.address]
            if entry.port != 22:
                names = [f"[{name}]:{entry.port}" for name in names]
            kind, key = entry.host_key.split()[:2]
            lines.append(f"{','.join(names)} {kind} {key}\n")
    return "".join(lines)


def _block(entry: InventoryEntry, known_hosts: str, proxy: Sequence[str]) -> str:
    files = [known_hosts] if entry.host_key else list(entry.known_hosts)
    keys = [str(entry.key)] if entry.key else list(entry.identities)
    checking = "accept-new" if entry.accept_new_keys and not entry.host_key else "yes"
    settings = [
        ("HostName", _word(entry, entry.address)),
        ("Port", str(entry.port)),
        ("User", _word(entry, entry.user)),
        *(("IdentityFile", _path(entry, key)) for key in keys),
        *([("IdentitiesOnly", "yes"), ("IdentityAgent", "none")] if entry.key else []),
        *([("UserKnownHostsFile", " ".join(_path(entry, file) for file in files))] if files else []),
        *([("GlobalKnownHostsFile", "/dev/null"), ("UpdateHostKeys", "no")] if entry.host_key else []),
        ("StrictHostKeyChecking", checking),
        *_way(entry, proxy),
    ]
    return f"Host {_word(entry, entry.name)}\n" + "".join(f"    {name} {value}\n" for name, value in settings)


def _way(entry: InventoryEntry, proxy: Sequence[str]) -> list[tuple[str, str]]:
    if entry.open_socket is not None:
        return [("ProxyCommand", _command(entry, [*proxy, entry.name]))]
    if entry.proxy_command:
        return [("ProxyCommand", _command(entry, filled_in(entry.proxy_command, entry)))]
    return [("ProxyJump", _word(entry, entry.jump))] if entry.jump else []


def _command(entry: InventoryEntry, words: Sequence[str]) -> str:
    """A command line for the user's shell; ssh itself replaces what stands behind a percent sign."""
    return _on_one_line(entry, shlex.join(words)).replace("%", "%%")


def _path(entry: InventoryEntry, path: str) -> str:
    """A path, in which ssh replaces what stands behind a percent sign, and variables, which it cannot be kept from."""
    if "${" in path:
        raise HostError(f"the path {path!r} cannot stand in an SSH configuration.", host=entry.name,
                        remedy="OpenSSH would take ${...} in it for a variable: rename the directory.")  # fmt: skip
    return _word(entry, path.replace("%", "%%"))


def _word(entry: InventoryEntry, value: str) -> str:
    """One word of the configuration file, in quotes where it needs them."""
    _on_one_line(entry, value)
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _on_one_line(entry: InventoryEntry, value: str) -> str:
    if not value.isprintable():
        raise HostError(f"{value!r} cannot stand in an SSH configuration.", host=entry.name)
    return value
