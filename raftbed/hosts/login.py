"""Logging in to a host with asyncssh, and the sentences for all that can go wrong on the way."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from raftbed.errors import HostError
from raftbed.hosts.host_keys import HostKeyCheck
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.keys import client_keys
from raftbed.hosts.local_user import ensure_name_and_home
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
from raftbed.hosts.streams import CONNECT_TIMEOUT, Proxy, open_stream

if TYPE_CHECKING:
    import asyncssh

_KEEPALIVE: Final = 5
_BOOTING: Final = {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ECONNRESET}


async def connect(entry: InventoryEntry, *, timeout: float = CONNECT_TIMEOUT) -> asyncssh.SSHClientConnection:
    """An asyncssh connection to a host.

    Raises:
        HostError: it cannot be reached, shows another host key, or refuses the login; says which, and what to do.
    """
    import asyncssh

    check = HostKeyCheck(entry)
    _look_at_key(entry)
    ensure_name_and_home()
    jump: asyncssh.SSHClientConnection | None = None
    stream: socket.socket | None = None
    proxy: Proxy | None = None
    try:
        async with asyncio.timeout(timeout):
            if entry.jump:
                jump = await connect(last_jump(entry), timeout=timeout)
            else:
                stream, proxy = await open_stream(entry)
            way = {"tunnel": jump} if jump is not None else {"sock": stream, "tunnel": None}
            connection = await asyncssh.connect(**way, **_options(entry, check))
            owned: Any = jump if jump is not None else proxy
            if owned is not None:
                connection.set_tunnel(owned)  # it is closed with the connection
            return connection
    except BaseException as error:
        failure = await _failure(entry, error, check, proxy, timeout)
        if stream is not None:
            stream.close()
        if jump is not None:
            jump.close()
        if proxy is not None:
            proxy.close()
            await proxy.wait_closed()
        if failure is None:
            raise
        raise failure from error


async def connect_when_up(entry: InventoryEntry, *, timeout: float) -> asyncssh.SSHClientConnection:
    """Like `connect`, for a host that is just booting: as long as nobody listens at its port, try again.

    Raises:
        HostError: as for `connect`, or the port is still closed after `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    pause = 0.005 if entry.open_socket is not None else 0.1
    while True:
        try:
            return await connect(entry, timeout=max(0.1, deadline - loop.time()))
        except HostError as error:
            if not _is_booting(entry, error.__cause__) or loop.time() + pause > deadline:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 1.0 if entry.open_socket is None else 0.1)


def _is_booting(entry: InventoryEntry, cause: BaseException | None) -> bool:
    import asyncssh

    if isinstance(cause, OSError) and cause.errno in _BOOTING:
        return True
    # A way that leads through others says no more than that it broke off.
    indirect = bool(entry.proxy_command or entry.jump)
    return indirect and isinstance(cause, asyncssh.ConnectionLost | asyncssh.ChannelOpenError)


def _options(entry: InventoryEntry, check: HostKeyCheck) -> dict[str, Any]:
    options: dict[str, Any] = {
        "host": entry.ssh_alias or entry.address,
        "port": entry.port,
        "username": entry.user,
        "known_hosts": check.known_hosts,
        "client_factory": check.client_factory(),
        "proxy_command": None,
        "compression_algs": None,
        "keepalive_interval": _KEEPALIVE,
        "keepalive_count_max": 3,
        "login_timeout": 60,
        "encoding": None,
        "config": list(entry.ssh_config) or None,
    }
    if entry.host_key and entry.key is not None:  # made for this run: nothing of the user's counts
        options["server_host_key_algs"] = [entry.host_key.split()[0]]
        return {**options, "client_keys": [str(entry.key)], "agent_path": None, "preferred_auth": "publickey"}
    keys = client_keys(entry)
    if keys:
        options["client_keys"] = keys
        options["ignore_encrypted"] = True  # the agent may have them
    return {**options, "preferred_auth": "publickey", "gss_kex": False, "gss_auth": False}


def last_jump(entry: InventoryEntry) -> InventoryEntry:
    """The jump host next to `entry`, which is itself reached through those before it."""
    from raftbed.hosts.ssh_config import parse_destination, resolve

    before, _, last = entry.jump.rpartition(",")
    user, address, port = parse_destination(last)
    jump = InventoryEntry(
        name=f"{entry.name} (jump host {last})",
        address=address,
        key=entry.key,
        ssh_config=entry.ssh_config,
        known_hosts=entry.known_hosts,
        accept_new_keys=entry.accept_new_keys,
    )
    return replace(resolve(jump, user=user, port=port), jump=before)


def _look_at_key(entry: InventoryEntry) -> None:
    if entry.key is not None and not os.access(entry.key, os.R_OK):
        what = "cannot be read" if entry.key.exists() else "does not exist"
        raise HostError(
            f"the private key {entry.key} {what}.", host=entry.name, remedy="Name another key in the inventory."
        )


# -- what went wrong ------------------------------------------------------------------------------------------------


async def _failure(
    entry: InventoryEntry, error: BaseException, check: HostKeyCheck, proxy: Proxy | None, timeout: float
) -> HostError | None:
    """The sentence for what ended `connect`; None for what is not ours to explain."""
    import asyncssh

    if isinstance(error, HostError) or not isinstance(error, Exception):
        return None
    if proxy is not None and not isinstance(error, asyncssh.HostKeyNotVerifiable | asyncssh.PermissionDenied):
        if not isinstance(error, TimeoutError):
            await proxy.settle()
        waited = f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else said(error)
        return proxy_leads_nowhere(entry, proxy.complaint() or waited)
    if isinstance(error, TimeoutError):
        return no_answer(entry, timeout)
    if isinstance(error, socket.gaierror):
        return address_unknown(entry, error)
    if isinstance(error, asyncssh.HostKeyNotVerifiable | asyncssh.KeyExchangeFailed) and (
        check.finding or (isinstance(error, asyncssh.KeyExchangeFailed) and check.is_known)
    ):
        return host_key_refused(entry, check.finding, check.shown)
    if isinstance(error, asyncssh.PermissionDenied):
        return login_refused(entry)
    if isinstance(error, ConnectionRefusedError | asyncssh.ChannelOpenError):
        return nobody_listens(entry, error)
    return failed(entry, said(error))
