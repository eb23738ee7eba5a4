"""Blocking SSH libraries over the same inventory: paramiko and fabric, for the operator's commands and for scripts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.keys import key_files
from raftbed.hosts.login import last_jump
from raftbed.hosts.streams import CONNECT_TIMEOUT, open_connected

if TYPE_CHECKING:
    import fabric
    import paramiko  # type: ignore[import-untyped]  # its stubs are a package of their own


def paramiko_client(entry: InventoryEntry, *, timeout: float = CONNECT_TIMEOUT) -> paramiko.SSHClient:
    """A connected paramiko client; the caller closes it.

    Raises:
        HostError: as for `connect`.
    """
    import paramiko

    client = paramiko.SSHClient()
    jump: paramiko.SSHClient | None = None
    try:
        _trust(client, entry)
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        if entry.jump:
            jump = paramiko_client(last_jump(entry), timeout=timeout)
            sock = jump.get_transport().open_channel("direct-tcpip", (entry.address, entry.port), ("127.0.0.1", 0))
        else:
            sock = open_connected(entry, timeout=timeout)
        client.connect(**_paramiko_options(entry, timeout), sock=sock)
    except BaseException as error:
        client.close()
        if jump is not None:
            jump.close()
        if isinstance(error, OSError | paramiko.SSHException):
            raise HostError(f"SSH to {entry.address}:{entry.port} failed: {error}.", host=entry.name) from error
        raise
    return client


def _trust(client: paramiko.SSHClient, entry: InventoryEntry) -> None:
    """Make known to `client` what the host may show."""
    import paramiko

    if not entry.host_key:
        for name in entry.known_hosts:
            if os.path.exists(name):
                client.load_system_host_keys(name)
        return
    kind, encoded = entry.host_key.split()[:2]
    names = (entry.address, f"[{entry.address}]:{entry.port}")
    host_key = paramiko.hostkeys.HostKeyEntry.from_line(f"{','.join(names)} {kind} {encoded}")
    if host_key is None:
        raise HostError(f"the inventory's host key is of an unknown kind: {kind}.", host=entry.name)
    for name in names:
        client.get_host_keys().add(name, kind, host_key.key)


def _paramiko_options(entry: InventoryEntry, timeout: float) -> dict[str, Any]:
    made_for_the_run = bool(entry.host_key and entry.key)
    return {
        "hostname": entry.address,
        "port": entry.port,
        "username": entry.user,
        "key_filename": key_files(entry) or None,
        "look_for_keys": not made_for_the_run and entry.key is None,
        "allow_agent": not made_for_the_run,
        "timeout": timeout,
        "banner_timeout": timeout,
        "auth_timeout": timeout,
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
