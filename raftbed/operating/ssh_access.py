"""SSH sessions to the nodes of a cluster with the user's own client, and the files that it needs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.prerequisites import find_program
from raftbed.operating.clusters import Cluster
from raftbed.operating.ssh_config import known_hosts_lines, ssh_config
from raftbed.private_files import write_private

KNOWN_HOSTS: Final = "known_hosts"
CONFIGURATION: Final = "ssh_config"


def proxy_command(directory: Path) -> list[str]:
    """The command that leads into the network of a cluster's hosts; the name of a node follows it."""
    # "-P": whatever lies in the directory that ssh is called in is not to be imported.
    own = [sys.executable, "-P", "-m", "raftbed.cli"]
    return [*own, "cluster", "proxy", "--cluster", str(directory)]


def configuration(cluster: Cluster) -> str:
    """A configuration for OpenSSH; also writes the file of host keys that it names.

    Raises:
        RaftbedError: something in the inventory cannot stand in one, or the file cannot be written.
    """
    with cluster.inventory() as inventory:
        entries = list(inventory.values())
    known_hosts = cluster.directory / KNOWN_HOSTS
    write_private(known_hosts, known_hosts_lines(entries).encode())
    return ssh_config(entries, known_hosts=str(known_hosts), proxy=proxy_command(cluster.directory))


def log_in(cluster: Cluster, node: str) -> int:
    """An interactive session on the host of a node: OpenSSH takes this process over, where it is installed.

    Returns:
        the exit status of the shell, where OpenSSH is not installed.

    Raises:
        HostError: there is no such node, or its host cannot be reached.
    """
    with cluster.inventory() as inventory:
        entry = inventory.entry(node)
        program = find_program("ssh")
        if program:
            path = cluster.directory / CONFIGURATION
            write_private(path, configuration(cluster).encode())
            sys.stdout.flush()
            os.execv(program, ["ssh", "-F", str(path), node])  # noqa: S606  no shell is wanted
        return _log_in_without_ssh(entry)


def _log_in_without_ssh(entry: InventoryEntry) -> int:
    from invoke.exceptions import UnexpectedExit

    from raftbed.hosts.blocking import fabric_connection

    try:
        with fabric_connection(entry) as connection:
            return int(connection.shell().exited)
    except UnexpectedExit as ended:
        return int(ended.result.exited)
    except OSError as error:
        raise HostError(f"it cannot be reached: {error.strerror or error}.", host=entry.name) from error
