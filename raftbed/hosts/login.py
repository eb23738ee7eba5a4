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
        for opened in (jump, proxy):
            if opened is not None:
                opened.close()
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

    place = f"{entry.address}:{entry.port}"
    if isinstance(error, HostError) or not isinstance(error, Exception):
        return None
    if proxy is not None and not isinstance(error, asyncssh.HostKeyNotVerifiable | asyncssh.PermissionDenied):
        if not isinstance(error, TimeoutError):
            await proxy.settle()
        return _through_proxy(entry, error, proxy, timeout)
    if isinstance(error, TimeoutError):
        return HostError(
            f"SSH at {place} did not answer within {timeout:g} s.",
            host=entry.name,
            remedy="Is the host up, and does no firewall swallow packets to this port? If it hangs, restart it.",
        )
    if isinstance(error, socket.gaierror):
        return HostError(
            f"its address {entry.address!r} is not known here: {error.strerror or error}.",
            host=entry.name,
            remedy="Correct `address` in the inventory, or add the name to ~/.ssh/config or /etc/hosts.",
        )
    if isinstance(error, asyncssh.HostKeyNotVerifiable | asyncssh.KeyExchangeFailed) and (
        check.finding or (isinstance(error, asyncssh.KeyExchangeFailed) and check.is_known)
    ):
        return _host_key(entry, check)
    if isinstance(error, asyncssh.PermissionDenied):
        return _refused_login(entry)
    if isinstance(error, ConnectionRefusedError | asyncssh.ChannelOpenError):
        return HostError(
            f"nothing listens at {place}: {_said(error)}.",
            host=entry.name,
            remedy="Is its SSH server running (systemctl start ssh), and is `port` right?",
        )
    return HostError(
        f"SSH to {place} failed: {_said(error)}.",
        host=entry.name,
        remedy=f"Try: ssh -v -p {entry.port} {entry.user}@{entry.address}" if entry.open_socket is None else "",
    )


def _host_key(entry: InventoryEntry, check: HostKeyCheck) -> HostError:
    place = f"{entry.address}:{entry.port}"
    if entry.host_key:
        return HostError(
            f"{place} shows another SSH host key than this host was made with.",
            host=entry.name,
            remedy="Something else answers at its address; nothing was sent to it.",
        )
    file = entry.known_hosts[0] if entry.known_hosts else "~/.ssh/known_hosts"
    if check.finding == "new":
        return HostError(
            f"the SSH host key of {place} is not known: {check.shown}.",
            host=entry.name,
            remedy=f"If that is its key, add --accept-new-keys once (it is recorded in {file}).",
        )
    listed = f"[{entry.address}]:{entry.port}" if entry.port != 22 else entry.address
    shown = f" ({check.shown})" if check.shown else ""
    return HostError(
        f"{place} shows another SSH host key{shown} than the one that is known.",
        host=entry.name,
        remedy="Somebody else may answer at its address; nothing was sent to it. If the host was installed anew: "
        f"ssh-keygen -f {file} -R '{listed}'",
    )


def _refused_login(entry: InventoryEntry) -> HostError:
    port = f"-p {entry.port} " if entry.port != 22 else ""
    with_key = f"the key {entry.key}" if entry.key else "the agent's keys and those in ~/.ssh"
    identity = f"-i {entry.key} " if entry.key else ""
    return HostError(
        f"SSH at {entry.address}:{entry.port} refuses to log in {entry.user!r} with {with_key}.",
        host=entry.name,
        remedy="Name the right `user` and `key`, or bring the key there: "
        f"ssh-copy-id {identity}{port}{entry.user}@{entry.address}",
    )


def _through_proxy(entry: InventoryEntry, error: BaseException, proxy: Proxy, timeout: float) -> HostError:
    said = proxy.complaint() or (f"no answer within {timeout:g} s" if isinstance(error, TimeoutError) else _said(error))
    return HostError(
        f"its proxy command leads to no SSH server: {said.rstrip('.')}.",
        host=entry.name,
        remedy=f"Try it by hand: {' '.join(entry.proxy_command)}",
    )


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error).strip().rstrip(".") or type(error).__name__
