"""The user's SSH configuration, and destinations as one writes them for ssh: "user@host:port"."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any, Final

from raftbed.errors import UsageError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.local_user import ensure_name_and_home, expand_home, has_home, has_name

USER_CONFIG: Final = "~/.ssh/config"
USER_KNOWN_HOSTS: Final = "~/.ssh/known_hosts"
SYSTEM_KNOWN_HOSTS: Final = "/etc/ssh/ssh_known_hosts"


def parse_destination(text: str) -> tuple[str, str, int | None]:
    """User ("" when there is none), host, and port (None) of "[user@]host[:port]".

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"(?:([^@\s-][^@\s]*)@)?([A-Za-z0-9._-]+)(?::(\d{1,5}))?", text.strip())
    if match is None or match[2].startswith("-"):
        raise UsageError(f"{text!r} is no destination of SSH.", remedy="Write: user@host or user@host:port")
    port = int(match[3]) if match[3] else None
    if port is not None and not 1 <= port <= 65535:
        raise UsageError(f"{text!r}: there is no port {port}.", remedy="Choose from 1 to 65535.")
    return match[1] or "", match[2], port


def default_config() -> tuple[str, ...]:
    """The user's own configuration, if there is one."""
    path = os.path.expanduser(USER_CONFIG)
    return (path,) if os.access(path, os.R_OK) else ()


def resolve(entry: InventoryEntry, *, user: str = "", port: int | None = None) -> InventoryEntry:
    """`entry` with what the SSH configuration says of it; what the entry or the parameters say counts more.

    Parameters:
        entry: `address` is the name to look up; its jump host, proxy command and known_hosts win where they are set.
        user: whom to log in as; "" asks the configuration, and takes the user who runs this otherwise.
        port: of the SSH server; None asks the configuration, and takes 22 otherwise.

    Raises:
        UsageError: the configuration is malformed, or nobody says whom to log in as.
    """
    import asyncssh

    if not has_home():
        raise UsageError("the home directory of this user, where SSH keeps what it knows, is not known.",
                         remedy="Set HOME.")  # fmt: skip
    named = has_name()
    ensure_name_and_home()
    try:
        found = asyncssh.SSHClientConnectionOptions(
            host=entry.address,
            port=port if port is not None else (),
            username=user or (),
            config=list(entry.ssh_config) or None,
            client_keys=None,
            agent_path=None,
        )
    except (asyncssh.ConfigParseError, OSError, ValueError) as error:
        raise UsageError(f"{', '.join(entry.ssh_config)}: {error}", remedy="Correct the SSH configuration.") from error
    if not (named or user or found.config.get("User")):
        raise UsageError(f"{entry.address}: nobody says whom to log in as, and the user who runs this has no name.",
                         remedy="Write: user@host, or set `user` in the inventory.")  # fmt: skip
    jump, proxy_command = entry.jump, entry.proxy_command
    if not jump and not proxy_command:
        proxy_command = tuple(found.proxy_command or ())
        jump = str(found.tunnel or "") if not proxy_command else ""
    known_hosts = entry.known_hosts
    if not known_hosts and not entry.host_key:
        listed = found.known_hosts if isinstance(found.known_hosts, list) else []
        known_hosts = tuple(map(str, listed)) or (USER_KNOWN_HOSTS, SYSTEM_KNOWN_HOSTS)
    identities: Any = found.config.get("IdentityFile", ())
    return replace(
        entry,
        address=found.host,
        ssh_alias=entry.address if found.host != entry.address else "",
        port=found.port,
        user=found.username,
        jump=jump,
        proxy_command=proxy_command,
        known_hosts=tuple(str(expand_home(name)) for name in known_hosts),
        identities=tuple(str(expand_home(str(name))) for name in identities or ()),
    )
