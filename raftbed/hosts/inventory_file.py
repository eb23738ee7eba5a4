"""Inventories that users write: a TOML file, or a list of destinations on the command line.

A file has a table ``[defaults]`` and one table ``[[hosts]]`` for each host; both take the same keys, and what the host
says wins. Each host is then completed by the SSH configuration, as ssh itself would do it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from raftbed.errors import UsageError
from raftbed.hosts.inventory import Inventory, InventoryEntry
from raftbed.hosts.local_user import expand_home
from raftbed.hosts.ssh_config import default_config, parse_destination, resolve

MOST_HOSTS: Final = 50

_TEXT: Final = ("address", "user", "key", "jump", "python", "home", "peer", "known_hosts", "ssh_config", "host_key")
_LISTS: Final = ("proxy_command", "power_off", "power_on", "labels")
_FLAGS: Final = ("sudo", "tunnel")
KEYS: Final = ("name", "port", *_TEXT, *_LISTS, *_FLAGS)
"""What a host of an inventory file may say."""

_NAME: Final = r"[a-z][a-z0-9-]{0,14}"


@dataclass(frozen=True, slots=True)
class Access:
    """What the command line adds to an inventory, or to machines.

    Attributes:
        accept_new_keys: record the host keys of hosts that are not known yet.
        sudo_password: for hosts with sudo.
        up: bring machines up that are not, where raftbed can.
    """

    accept_new_keys: bool = False
    sudo_password: str = ""
    up: bool = False

    def __repr__(self) -> str:
        return f"Access(accept_new_keys={self.accept_new_keys}, up={self.up})"


def is_inventory(kind: str) -> bool:
    """Whether what `--hosts` was given is an inventory: a TOML file, or destinations, at least one "@" or ","."""
    return kind.endswith(".toml") or "@" in kind or "," in kind


def clean_command(kind: str) -> str:
    """The command that removes what runs left on hosts."""
    if kind == "vagrant":  # the machines are the user's; whatever ran on one ends with its reboot
        return "vagrant reload"
    return f"raftbed cluster clean --hosts {shlex.quote(kind)}" if is_inventory(kind) else "raftbed clean"


def outlives_runs(kind: str) -> bool:
    """Whether hosts, and the processes on them, are there before and after a run, because they are the user's."""
    return kind == "vagrant" or is_inventory(kind)


def read_inventory(kind: str, access: Access | None = None) -> Inventory:
    """The inventory that `--hosts` names.

    Parameters:
        kind: path of a TOML file, or destinations separated by commas, "user@a,user@b:2222".
        access: what the command line adds.

    Raises:
        UsageError: names the file, the host, the key and what to write instead.
    """
    entries = _read_file(expand_home(kind)) if kind.endswith(".toml") else _read_list(kind)
    granted = access or Access()
    granted_to = [
        replace(entry, accept_new_keys=granted.accept_new_keys, sudo_password=granted.sudo_password)
        for entry in entries
    ]
    return Inventory({entry.name: entry for entry in granted_to})


def _read_list(text: str) -> list[InventoryEntry]:
    destinations = [part.strip() for part in text.split(",") if part.strip()]
    if not 1 <= len(destinations) <= MOST_HOSTS:
        raise UsageError(f"--hosts names {len(destinations)} hosts.", remedy=f"Name 1 to {MOST_HOSTS}.")
    if len(set(destinations)) != len(destinations):
        raise UsageError(f"--hosts {text}: a host is named twice.", remedy="Name each host once.")
    entries = []
    for number, destination in enumerate(destinations, start=1):
        user, host, port = parse_destination(destination)
        entry = InventoryEntry(name=f"n{number}", address=host, python="python3", ssh_config=default_config())
        entries.append(_completed(entry, user=user, port=port, tunnel=None))
    return entries


def _read_file(path: Path) -> list[InventoryEntry]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path}: the inventory cannot be read: {error.strerror or error}.", remedy="Write one: docs/hosts.md"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML: {error}.", remedy="docs/hosts.md has an example.") from error
    unknown = [key for key in content if key not in ("defaults", "hosts")]
    if unknown:
        raise _wrong(path, "", unknown[0], "there is no such table", "Tables: [defaults] and [[hosts]].")
    defaults, hosts = content.get("defaults", {}), content.get("hosts", [])
    if not isinstance(defaults, dict):
        raise _wrong(path, "", "defaults", "is no table", "Write [defaults] above its keys.")
    if not isinstance(hosts, list) or not all(isinstance(host, dict) for host in hosts):
        raise _wrong(path, "", "hosts", "is no list of tables", "Write [[hosts]], with two brackets, above each host.")
    if not 1 <= len(hosts) <= MOST_HOSTS:
        raise _wrong(path, "", "hosts", f"there are {len(hosts)}", f"Write 1 to {MOST_HOSTS} tables [[hosts]].")
    for key in ("name", "address", "peer", "host_key"):
        if key in defaults:
            raise _wrong(path, "defaults", key, "differs from host to host", "Write it in each [[hosts]].")
    entries = [_entry(path, number, defaults, host) for number, host in enumerate(hosts, start=1)]
    _distinct(path, entries)
    return entries


def _entry(path: Path, number: int, defaults: Mapping[str, Any], host: Mapping[str, Any]) -> InventoryEntry:
    name = host.get("name", f"n{number}")
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise _wrong(path, f"hosts[{number}]", "name", f"{name!r} is no name", 'Write one such as "n1" or "web-3".')
    values = _checked(path, "defaults", defaults) | _checked(path, name, host)
    if "address" not in values:
        raise _wrong(path, name, "address", "is missing", 'Write: address = "192.0.2.1", or its name in ~/.ssh/config')
    user, address, written_port = _destination(path, name, values["address"])
    jump = values.get("jump", "")
    for hop in filter(None, jump.split(",")):
        _destination(path, name, hop, key="jump")
    if jump and values.get("proxy_command"):
        raise _wrong(path, name, "jump", "stands beside proxy_command", "Keep one of them.")
    key = _file(path, name, "key", values.get("key", ""))
    config = _file(path, name, "ssh_config", values.get("ssh_config", ""))
    known_hosts = _beside(path, values["known_hosts"]) if "known_hosts" in values else ""
    entry = InventoryEntry(
        name=name,
        address=address,
        key=Path(key) if key else None,
        host_key=values.get("host_key", ""),
        home=values.get("home", "/var/lib/raftbed"),
        python=values.get("python", "python3"),
        peer=values.get("peer", ""),
        sudo=values.get("sudo", False),
        jump=jump,
        proxy_command=tuple(values.get("proxy_command", ())),
        ssh_config=(config,) if config else default_config(),
        known_hosts=(known_hosts,) if known_hosts else (),
        power_off=tuple(values.get("power_off", ())),
        power_on=tuple(values.get("power_on", ())),
        labels=tuple(values.get("labels", ())),
    )
    port = values.get("port", written_port)
    return _completed(entry, user=values.get("user", user), port=port, tunnel=values.get("tunnel"))


def _completed(entry: InventoryEntry, *, user: str, port: int | None, tunnel: bool | None) -> InventoryEntry:
    found = resolve(entry, user=user, port=port)
    # Who needs another host, or a program, to reach SSH can hardly reach the nodes directly. And a node that peers and
    # the controller reach at two addresses would have to listen at all that its host has, to whoever comes.
    indirect = bool(found.jump or found.proxy_command or found.peer not in ("", found.address))
    return replace(found, tunnel=indirect if tunnel is None else tunnel)


def _checked(path: Path, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a table, each of the right type."""
    for key, value in table.items():
        if key not in KEYS:
            raise _wrong(path, name, key, "there is no such key", f"Keys: {', '.join(KEYS)}.")
        if key in _TEXT and (not isinstance(value, str) or not value):
            raise _wrong(path, name, key, f"{value!r} is no text", f'Write: {key} = "..."')
        if key in _FLAGS and not isinstance(value, bool):
            raise _wrong(path, name, key, f"{value!r} is neither true nor false", f"Write: {key} = true")
        if key in _LISTS and not (
            isinstance(value, list) and value and all(isinstance(word, str) and word for word in value)
        ):
            raise _wrong(path, name, key, f"{value!r} is no list of texts", f'Write: {key} = ["...", "..."]')
        if key == "port" and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535):
            raise _wrong(path, name, key, f"{value!r} is no port", "Write: port = 22")
    if not re.fullmatch(r"[^@\s-][^@\s]*", table.get("user", "x")):
        raise _wrong(path, name, "user", f"{table['user']!r} is no user", 'Write: user = "root"')
    if "peer" in table:
        _check_peer(path, name, table["peer"])
    home = table.get("home", "/")
    if not home.startswith("/") or (os.path.normpath(home) != home.rstrip("/") and home != "/"):
        raise _wrong(path, name, "home", f"{home!r} is no absolute path", 'Write: home = "/var/lib/raftbed"')
    if home == "/" and "home" in table:
        raise _wrong(path, name, "home", "would be the root directory", 'Write: home = "/var/lib/raftbed"')
    return dict(table)


def _check_peer(path: Path, name: str, peer: str) -> None:
    try:
        ipaddress.IPv4Address(peer)
    except ValueError:
        raise _wrong(path, name, "peer", f"{peer!r} is no IPv4 address", 'Write: peer = "10.0.0.1"') from None


def _destination(path: Path, name: str, text: str, key: str = "address") -> tuple[str, str, int | None]:
    try:
        return parse_destination(text)
    except UsageError as error:
        raise _wrong(path, name, key, error.message.rstrip("."), error.remedy) from error


def _file(path: Path, name: str, key: str, written: str) -> str:
    """The path of a file that the inventory names, which must exist."""
    if not written:
        return ""
    found = _beside(path, written)
    if not os.path.isfile(found):
        raise _wrong(path, name, key, f"there is no file {found}", "Correct the path; it counts from the inventory.")
    return found


def _beside(path: Path, written: str) -> str:
    """An absolute path; a relative one counts from the inventory's directory."""
    return str(Path(os.path.abspath(path)).parent / expand_home(written))


def _distinct(path: Path, entries: Sequence[InventoryEntry]) -> None:
    names: set[str] = set()
    peers: dict[str, str] = {}
    for entry in entries:
        if entry.name in names:
            raise _wrong(path, entry.name, "name", "is given twice", "Give each host its own.")
        names.add(entry.name)
        other = peers.setdefault(entry.peer_address, entry.name)
        if other != entry.name:
            key = "peer" if entry.peer else "address"
            raise _wrong(path, entry.name, key, f"{entry.peer_address} is that of {other}",
                         "Give each host an address of its own.")  # fmt: skip


def _wrong(path: Path, host: str, key: str, what: str, remedy: str) -> UsageError:
    place = f"{host}: " if host else ""
    return UsageError(f"{path}: {place}{key}: {what}.", remedy=remedy)
