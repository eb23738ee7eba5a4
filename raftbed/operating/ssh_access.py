"""SSH sessions to the nodes of a cluster with the user's own client, and the files that it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from raftbed.operating.clusters import Cluster, write_private
from raftbed.operating.ssh_config import known_hosts_lines, ssh_config

KNOWN_HOSTS: Final = "known_hosts"


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
