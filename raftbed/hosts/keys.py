"""Private keys of the user's: which are tried, and passphrases, which are asked for once and kept in memory only."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
from collections.abc import Iterable
from typing import Any

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry

_unlocked: dict[str, Any] = {}
"""Path of an encrypted key to the key, once its passphrase was given."""

_ATTEMPTS = 3


def key_files(entry: InventoryEntry) -> list[str]:
    """The private keys that are tried for `entry`, beside those of the agent; none: the usual files."""
    if entry.key is not None:
        return [str(entry.key)]
    return [name for name in entry.identities if os.path.exists(name)]


def client_keys(entry: InventoryEntry) -> list[Any]:
    """The same for asyncssh, with those that were unlocked as keys."""
    return [_unlocked.get(name, name) for name in key_files(entry)]


async def unlock(entries: Iterable[InventoryEntry]) -> None:
    """Ask for the passphrase of each key that is encrypted and not with the agent, where there is a terminal.

    Raises:
        HostError: no passphrase fits, or there is nobody to ask.
    """
    import asyncssh

    for entry in entries:
        if entry.key is None or str(entry.key) in _unlocked:
            continue  # keys that were not named are not worth a question
        path = str(entry.key)
        try:
            asyncssh.read_private_key(path)
        except OSError:
            continue  # connecting says it
        except asyncssh.KeyImportError as error:
            if "assphrase" not in str(error):
                raise HostError(
                    f"{path} is no private key: {error}.", host=entry.name, remedy="Name another `key`."
                ) from error
            if not await _agent_has(path):
                _unlocked[path] = _ask(entry, path)


def _ask(entry: InventoryEntry, path: str) -> Any:
    import asyncssh

    if not sys.stdin.isatty():
        raise HostError(
            f"the private key {path} is encrypted, and the agent does not have it.",
            host=entry.name,
            remedy=f"Run: ssh-add {path}",
        )
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
            return asyncssh.read_private_key(path, getpass.getpass(f"Passphrase of {path}: "))
    raise HostError(f"no passphrase fits the private key {path}.", host=entry.name, remedy=f"Run: ssh-add {path}")


async def _agent_has(path: str) -> bool:
    import asyncssh

    public = f"{path}.pub"
    if not os.environ.get("SSH_AUTH_SOCK"):
        return False
    try:
        async with asyncssh.connect_agent() as agent:
            keys = await agent.get_keys()
        if not os.path.exists(public):  # noqa: ASYNC240  a look at the local disk
            return bool(keys)  # which of them it is, nobody can tell
        return asyncssh.read_public_key(public).public_data in {key.public_data for key in keys}
    except (OSError, ValueError, asyncssh.Error):
        return False
