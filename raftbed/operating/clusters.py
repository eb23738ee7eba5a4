"""Clusters that were left running: where they are remembered, and how one of them is picked.

A cluster of local hosts is a kept lab (:mod:`raftbed.hosts.labs`), whether `raftbed cluster up` or `raftbed run
--keep` left it; its record, ``cluster.json``, lies in the lab's directory and goes away with it. A cluster on other
machines has a directory of its own. New ones are made below ``$XDG_STATE_HOME/raftbed/clusters``, by default
``~/.local/state/raftbed/clusters``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from raftbed.errors import HostError, StoreError, UsageError
from raftbed.hosts import labs
from raftbed.hosts.inventory import Inventory
from raftbed.hosts.local_user import has_home
from raftbed.private_files import write_private

CLUSTER_SCHEMA: Final = "raftbed.cluster/1"
RECORD: Final = "cluster.json"
FORWARD: Final = "forward.json"


class NodeRecord(msgspec.Struct, frozen=True):
    """How a node is reached and started.

    Attributes:
        address: "host:port" at which its peers reach it.
        command: what starts it, word by word.
        environment: what that command needs in its environment.
    """

    address: str
    command: list[str]
    environment: dict[str, str]


class ClusterRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a cluster beside its inventory.

    Attributes:
        name: as the user gave it; for hosts that a run kept, the name of the run.
        hosts: their kind, or the inventory that they came from.
        created: wall-clock time, ISO 8601 with zone.
        identity: by what its nodes know their cluster.
        bundle: SHA-256 of the nodes' code.
        bug: the planted bug, or None.
        nodes: by name.
    """

    name: str
    hosts: str
    created: str
    identity: str
    bundle: str
    bug: str | None
    nodes: dict[str, NodeRecord]
    schema: str = CLUSTER_SCHEMA


class ForwardRecord(msgspec.Struct, frozen=True):
    """A forward on loopback that is open.

    Attributes:
        pid: of the process that forwards.
        start: when it started, in clock ticks since boot.
        ports: name of a node to the port on 127.0.0.1 that leads to it.
    """

    pid: int
    start: int
    ports: dict[str, int]


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that was left running.

    Attributes:
        name: for people, and for ``--cluster``.
        directory: where its files lie.
        record: None where nothing was deployed, or the record cannot be read.
        lab: the lab of local hosts, None for hosts of another kind.
    """

    name: str
    directory: Path
    record: ClusterRecord | None
    lab: labs.LabInfo | None

    @contextlib.contextmanager
    def inventory(self) -> Iterator[Inventory]:
        """How its hosts are reached; sockets into a lab can be made while this lasts.

        Raises:
            HostError: the lab does not answer, or the inventory cannot be read.
        """
        if self.lab is None:
            yield Inventory.load(self.directory / labs.INVENTORY)
            return
        from raftbed.hosts.lab_client import attach

        inventory, opener = attach(self.lab)
        try:
            yield inventory
        finally:
            opener.close()

    def deployed(self) -> ClusterRecord:
        """Its record.

        Raises:
            HostError: nothing was deployed to it.
        """
        if self.record is None:
            raise HostError(f"nobody noted what was deployed to the cluster {self.name}.")
        return self.record

    def forward(self) -> ForwardRecord | None:
        """The forward that is open, if there is one."""
        try:
            found = msgspec.json.decode((self.directory / FORWARD).read_bytes(), type=ForwardRecord)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.start and labs.start_time(found.pid) == found.start else None


def clusters_directory() -> Path:
    """Where new clusters are made; it need not exist."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(os.path.abspath(base), "raftbed", "clusters")


def new_directory(name: str) -> Path:
    """The place for a new cluster's files; its parents are made, itself is not.

    Raises:
        UsageError: the name cannot be used, or is in use.
        StoreError: the place cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}", name):
        raise UsageError(
            f"{name!r} is no name for a cluster.", remedy="Letters, digits, hyphens and underscores: at most 40."
        )
    if not os.environ.get("XDG_STATE_HOME") and not has_home():
        raise StoreError("a cluster's files have no place: the home directory of this user is not known.",
                         remedy="Set HOME, or XDG_STATE_HOME to a directory that you may write to.")  # fmt: skip
    parent = clusters_directory()
    labs.sweep(parent)
    directory = parent / name
    if directory.exists():
        raise UsageError(
            f"there is a cluster {name} already.",
            remedy=f"Take it down (raftbed cluster down --cluster {name}), or name the new one: --cluster NAME.",
        )
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{parent} cannot be made: {error.strerror or error}.",
            remedy="Set XDG_STATE_HOME to a directory that you may write to.",
        ) from error
    return directory


def tidy_up() -> None:
    """Remove the directory of clusters when there is none left."""
    with contextlib.suppress(OSError):
        clusters_directory().rmdir()
        clusters_directory().parent.rmdir()


def list_clusters() -> list[Cluster]:
    """The clusters of this user on this machine, those that can be talked to."""
    place = clusters_directory()
    directories = [lab.directory for lab in labs.list_labs(place)]
    directories += [path.parent for path in sorted(place.glob(f"*/{RECORD}"))]
    found = [cluster_at(directory) for directory in dict.fromkeys(directories)]
    return [cluster for cluster in found if cluster is not None]


def ways_to_take_down() -> dict[str, str]:
    """By what the nodes of each cluster of this user know it: the command that takes it down."""
    return {
        cluster.record.identity: f"raftbed cluster down --cluster {shlex.quote(cluster.name)}"
        for cluster in list_clusters()
        if cluster.record is not None
    }


def cluster_at(directory: Path) -> Cluster | None:
    """The cluster whose files lie in a directory; None when there is none that can be talked to."""
    record = read_record(directory)
    lab = labs.lab_info(directory)
    if lab is not None:
        own = directory.parent == clusters_directory()
        name = record.name if record else directory.name if own else str(directory)
        return Cluster(name, directory, record, lab) if lab.state == "kept" else None
    return Cluster(record.name, directory, record, None) if record else None


def find(choice: str | None) -> Cluster:
    """The cluster that the user means.

    Parameters:
        choice: a name, or a path of its directory (or of the run that kept it); None: the only one.

    Raises:
        UsageError: there is none, none of that name, or it is not clear which.
    """
    if choice is not None and os.sep in choice:
        # By its path it is found from anywhere, whatever the environment says of where clusters are remembered.
        path = Path(os.path.realpath(choice))
        found = cluster_at(path) or cluster_at(path / "lab")
        if found is not None:
            return found
    return pick(choice, list_clusters())


def pick(choice: str | None, clusters: Sequence[Cluster]) -> Cluster:
    """The cluster that the user means.

    Parameters:
        choice: a name; None: the only one.
        clusters: all that there are.

    Raises:
        UsageError: there is none, none of that name, or it is not clear which.
    """
    known = ", ".join(cluster.name for cluster in clusters)
    if not clusters:
        which = f" {choice!r}" if choice else ""
        raise UsageError(f"there is no cluster{which}.", remedy="Make one: raftbed cluster up")
    if choice is None:
        if len(clusters) > 1:
            raise UsageError(f"there are several clusters: {known}.", remedy="Say which one: --cluster NAME")
        return clusters[0]
    named = [cluster for cluster in clusters if cluster.name == choice]
    if not named:
        raise UsageError(f"there is no cluster {choice!r}.", remedy=f"There is: {known}.")
    if len(named) > 1:
        paths = ", ".join(str(cluster.directory) for cluster in named)
        raise UsageError(f"several clusters have the name {choice}.", remedy=f"Give the path of one: {paths}")
    return named[0]


def read_record(directory: Path) -> ClusterRecord | None:
    """The record in a cluster's directory; None when there is none that can be read."""
    try:
        return msgspec.json.decode((directory / RECORD).read_bytes(), type=ClusterRecord)
    except (OSError, msgspec.DecodeError):
        return None


def write_record(directory: Path, record: ClusterRecord) -> None:
    """Replace the record in a cluster's directory.

    Raises:
        StoreError: it cannot be written.
    """
    write_private(directory / RECORD, msgspec.json.format(msgspec.json.encode(record), indent=2))
