"""Whose a data directory is: a file in it says so, written before the node promises anything.

A node that takes another's directory would go by another's votes and log, and a node of two names would be counted
twice. A directory that was written before there was this file is taken over as it is.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from raftbed.nodes.storage import StorageError
from raftbed.nodes.storage.files import Directory, DiskDirectory

FILE = "identity.json"
_PART = f"{FILE}.part"
_SCHEMA = "raftbed.data/1"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whose the data is.

    Attributes:
        cluster: the cluster's name.
        id: the node's.
        schema: of the file.
    """

    schema: str = _SCHEMA
    cluster: str
    id: str

    def __str__(self) -> str:
        return f"node {self.id} of cluster {self.cluster!r}"


def identity_of(data: Path) -> Identity | None:
    """Whose the directory is; None where nobody has said.

    Raises:
        StorageError: what is said there cannot be read.
    """
    path = data / FILE
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Identity)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(
            f"{path}: is not as a node wrote it ({error}). Remove it if you know whose directory this is: the node "
            f"that is started next on it writes another."
        ) from error
    if found.schema != _SCHEMA:
        raise StorageError(f"{path}: is of schema {found.schema!r}; this version reads {_SCHEMA!r}.")
    return found


def claim(data: Path, identity: Identity) -> None:
    """See to it that the directory is that node's, and stays so over a power failure.

    Raises:
        StorageError: it is another's, or cannot be written; names both, and the remedy.
    """
    if _is_settled(data, identity):
        return
    try:
        directory = DiskDirectory(data)
    except BlockingIOError as error:
        raise StorageError(f"{data}: another process uses this directory.") from error
    except OSError as error:
        raise StorageError(f"{data}: the log cannot be opened: {error}") from error
    with contextlib.closing(directory):
        if _is_settled(data, identity):
            return  # by a process that had the lock a moment ago
        try:
            write(directory, identity)
        except OSError as error:
            raise StorageError(f"{data / FILE}: cannot be written: {error.strerror}.") from error


def write(directory: Directory, identity: Identity) -> None:
    """Write the file, whole or not at all, whenever the power fails.

    Raises:
        OSError: it cannot be written.
    """
    file = directory.open(_PART, truncate_to=0)
    try:
        file.append(msgspec.json.encode(identity) + b"\n")
        file.sync()
    finally:
        file.close()
    directory.rename(_PART, FILE)
    directory.sync()


def _is_settled(data: Path, identity: Identity) -> bool:
    found = identity_of(data)
    if found is not None and found != identity:
        raise StorageError(
            f"{data}: is the directory of {found}, not of {identity}. Give this node a directory of its own, or start "
            f"it with that id and cluster."
        )
    return found is not None
