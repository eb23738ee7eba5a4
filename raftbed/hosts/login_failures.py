"""The sentences for all that can go wrong on the way to a host, whichever SSH library went it."""

from __future__ import annotations

import os

from raftbed.errors import HostError
from raftbed.hosts.host_keys import Finding
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.keys import key_files


def no_answer(entry: InventoryEntry, timeout: float) -> HostError:
    """Nothing came from its SSH server within `timeout` seconds."""
    return HostError(
        f"SSH at {_place(entry)} did not answer within {timeout:g} s.",
        host=entry.name,
        remedy="Is the host up, and does no firewall swallow packets to this port? If it hangs, restart it.",
    )


def address_unknown(entry: InventoryEntry, error: OSError) -> HostError:
    """Its name does not resolve."""
    return HostError(
        f"its address {entry.address!r} is not known here: {error.strerror or error}.",
        host=entry.name,
        remedy="Correct `address` in the inventory, or add the name to ~/.ssh/config or /etc/hosts.",
    )


def nobody_listens(entry: InventoryEntry, error: BaseException) -> HostError:
    """Its port is closed."""
    return HostError(
        f"nothing listens at {_place(entry)}: {said(error)}.",
        host=entry.name,
        remedy="Is its SSH server running (systemctl start ssh), and is `port` right?",
    )


def host_key_refused(entry: InventoryEntry, finding: Finding, shown: str, *, can_accept: bool = True) -> HostError:
    """It showed a key that cannot be trusted.

    Parameters:
        entry: the host.
        finding: "new" where none is known of it; otherwise it is another one than that.
        shown: fingerprint of the key that it showed, "" where that is not known.
        can_accept: the command that is told this has an option ``--accept-new-keys``.
    """
    if entry.host_key:
        return HostError(
            f"{_place(entry)} shows another SSH host key than this host was made with.",
            host=entry.name,
            remedy="Something else answers at its address; nothing was sent to it.",
        )
    file = entry.known_hosts[0] if entry.known_hosts else "~/.ssh/known_hosts"
    if finding == "new":
        accept = "add --accept-new-keys once" if can_accept else "log in with ssh once, and say yes"
        return HostError(
            f"the SSH host key of {_place(entry)} is not known: {shown}.",
            host=entry.name,
            remedy=f"If that is its key, {accept} (it is recorded in {file}).",
        )
    listed = f"[{entry.address}]:{entry.port}" if entry.port != 22 else entry.address
    fingerprint = f" ({shown})" if shown else ""
    return HostError(
        f"{_place(entry)} shows another SSH host key{fingerprint} than the one that is known.",
        host=entry.name,
        remedy="Somebody else may answer at its address; nothing was sent to it. If the host was installed anew: "
        f"ssh-keygen -f {file} -R '{listed}'",
    )


def login_refused(entry: InventoryEntry) -> HostError:
    """It does not let this user in with any of the keys."""
    keys = key_files(entry)
    port = f"-p {entry.port} " if entry.port != 22 else ""
    identity = f"-i {keys[0]} " if keys else ""
    if entry.key is not None:
        tried = f"the key {entry.key}"
    else:
        tried = f"the agent's keys and {', '.join(keys) if keys else 'those in ~/.ssh'}"
    return HostError(
        f"SSH at {_place(entry)} refuses to log in {entry.user!r} with {tried}.",
        host=entry.name,
        remedy="Name the right `user` and `key`, or bring the key there: "
        f"ssh-copy-id {identity}{port}{entry.user}@{entry.address}",
    )


def proxy_leads_nowhere(entry: InventoryEntry, reason: str) -> HostError:
    """What its proxy command leads to is no SSH server."""
    return HostError(
        f"its proxy command leads to no SSH server: {reason.rstrip('.')}.",
        host=entry.name,
        remedy=f"Try it by hand: {' '.join(entry.proxy_command)}",
    )


def failed(entry: InventoryEntry, reason: str) -> HostError:
    """Anything else."""
    return HostError(
        f"SSH to {_place(entry)} failed: {reason.rstrip('.')}.",
        host=entry.name,
        remedy=f"Try: ssh -v -p {entry.port} {entry.user}@{entry.address}" if entry.open_socket is None else "",
    )


def said(error: BaseException) -> str:
    """What an exception says, without a full stop."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error).strip().rstrip(".") or type(error).__name__


def _place(entry: InventoryEntry) -> str:
    return f"{entry.address}:{entry.port}"
