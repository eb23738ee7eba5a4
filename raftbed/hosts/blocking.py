"""Blocking SSH libraries over the same inventory: paramiko and fabric, for the operator's commands and for scripts."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.keys import key_files
from raftbed.hosts.local_user import ensure_name_and_home
from raftbed.hosts.login import last_jump
from raftbed.hosts.login_failures import (
    address_unknown,
    failed,
    host_key_refused,
    login_refused,
    no_answer,
    nobody_listens,
    proxy_leads_nowhere,
    said,
)
from raftbed.hosts.streams import CONNECT_TIMEOUT, Proxy, open_connected, start_proxy

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
    proxy: Proxy | None = None
    shown: list[str] = []
    begun = time.monotonic()
    try:
        _trust(client, entry)
        client.set_missing_host_key_policy(_refuse(shown))
        if entry.jump:
            jump = paramiko_client(last_jump(entry), timeout=timeout)
            sock = jump.get_transport().open_channel("direct-tcpip", (entry.address, entry.port), ("127.0.0.1", 0))
        elif entry.proxy_command:
            sock, proxy = start_proxy(entry)
        else:
            sock = open_connected(entry, timeout=timeout)
        client.connect(**_paramiko_options(entry, timeout), sock=sock)
    except BaseException as error:
        client.close()
        failure = None
        if isinstance(error, OSError | EOFError | paramiko.SSHException):
            late = time.monotonic() - begun >= timeout
            failure = _failure(entry, error, shown, proxy, timeout if late else None)
        if jump is not None:
            jump.close()
        if proxy is not None:
            proxy.close()
            proxy.wait_closed_here()
        if failure is None:
            raise
        raise failure from error
    return client


def _refuse(shown: list[str]) -> paramiko.MissingHostKeyPolicy:
    """Refuses a host whose key nobody knows, and notes the fingerprint of the key."""
    import paramiko

    class Refuse(paramiko.RejectPolicy):  # type: ignore[misc]  # paramiko has no types
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            shown.append(key.fingerprint)
            super().missing_host_key(client, hostname, key)

    return Refuse()


def _failure(
    entry: InventoryEntry, error: Exception, shown: list[str], proxy: Proxy | None, waited: float | None
) -> HostError:
    """The sentence for what ended `paramiko_client`; `waited` are the seconds that it may last, when they are over."""
    import paramiko

    if shown:
        return host_key_refused(entry, "new", shown[0], can_accept=False)
    if isinstance(error, paramiko.BadHostKeyException):
        return host_key_refused(entry, "changed", error.key.fingerprint, can_accept=False)
    if isinstance(error, paramiko.AuthenticationException):
        return login_refused(entry)
    if proxy is not None:
        if waited is None:
            proxy.settle_here()
        return proxy_leads_nowhere(
            entry, proxy.complaint() or (f"no answer within {waited:g} s" if waited else said(error))
        )
    if isinstance(error, TimeoutError) or waited is not None:
        return no_answer(entry, waited or CONNECT_TIMEOUT)
    if isinstance(error, socket.gaierror):
        return address_unknown(entry, error)
    if isinstance(error, ConnectionRefusedError | paramiko.ChannelException):
        return nobody_listens(entry, error)
    return failed(entry, "it closed the connection" if isinstance(error, EOFError) else said(error))


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

    ensure_name_and_home()
    client = paramiko_client(entry, timeout=timeout)
    connection = fabric.Connection(
        entry.address, user=entry.user, port=entry.port, config=Config(lazy=True, overrides={"load_ssh_configs": False})
    )
    connection.client = client
    connection.transport = client.get_transport()
    return connection
