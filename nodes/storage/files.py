"""The little that the log store asks of a file system: a seam at which tests cut writes, tear tails and fail syncs.

A file may have zeros written ahead of what is appended. Appending then overwrites blocks that the file has already, and
a sync writes them and nothing else; where the file grows, each sync waits for the file system's journal too. Blocks
that were only reserved (fallocate) would not do: the journal would have to say that they are written now. The method is
that of etcd's write-ahead log and of databases.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Protocol

WRITTEN_AHEAD = 1 << 20
"""Bytes of zeros ahead of a large file's end: enough to be rare, few enough for one sync not to take long by them."""
_LEAST_AHEAD = 64 << 10
_PAGE = 4096
_CLOSED = -1
_ZEROS = bytes(WRITTEN_AHEAD + _PAGE)


class File(Protocol):
    """A file that is only ever appended to."""

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end.

        Raises:
            OSError: it could not be written, or only in part.
        """
        ...

    def sync(self) -> None:
        """Return when everything appended so far survives a power failure.

        Raises:
            OSError: it may not survive.
        """
        ...

    def close(self) -> None:
        """Close it; what was written ahead of its end is cut off, durably. Done once, even when it fails.

        Raises:
            OSError: it may be there still.
        """
        ...


class Directory(Protocol):
    """One flat directory."""

    def names(self) -> list[str]:
        """The names of its files, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The whole content of a file."""
        ...

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """Part of the content of a file; less than `size` bytes at its end."""
        ...

    def size(self, name: str) -> int:
        """How many bytes a file has."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what had that name."""
        ...

    def open(self, name: str, *, truncate_to: int | None = None) -> File:
        """Open a file to append, made when it is missing; with `truncate_to`, cut it to that size first, durably."""
        ...

    def write_again(self, name: str, offset: int, data: bytes) -> None:
        """Write bytes that a file has at `offset` there once more, durably; nothing else of it changes.

        That they could be read does not say that they are on disk: what a sync could not write may be in the system's
        memory still, as if it had been written, and no later sync would write it.

        Raises:
            OSError: they may not survive a power failure.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file."""
        ...

    def sync(self) -> None:
        """Return when files that were made or removed stay so over a power failure."""
        ...

    def path(self, name: str) -> str:
        """How a file is called in messages."""
        ...

    def close(self) -> None:
        """Let go of the directory and its lock."""
        ...


class DiskFile:
    """A `File` on a real file system.

    Parameters:
        fd: an open file descriptor.
        end: where the file ends, and the first append goes.
        ahead: most bytes of zeros that are written ahead at a time; 0: none. Less while the file is small.
    """

    def __init__(self, fd: int, end: int, ahead: int = 0) -> None:
        self._fd = fd
        self._end = self._zeros_end = end
        self._ahead = min(ahead, len(_ZEROS))

    def append(self, data: bytes) -> None:
        """See `File`."""
        self._end += _write_all(self._fd, data, self._end)
        if self._end > self._zeros_end:
            self._zeros_end = self._end
            if self._ahead:
                self._write_ahead()

    def _write_ahead(self) -> None:
        size = min(self._ahead, max(self._end, _LEAST_AHEAD))
        size += -(self._end + size) % _PAGE
        try:
            self._zeros_end += _write_all(self._fd, memoryview(_ZEROS)[:size], self._end)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self._ahead = 0  # what there is room for still is for what is appended
            os.ftruncate(self._fd, self._end)

    def sync(self) -> None:
        """See `File`."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """See `File`."""
        fd, self._fd = self._fd, _CLOSED  # even if closing fails: another file may have the number by then
        if fd == _CLOSED:
            return
        try:
            if self._zeros_end > self._end:
                os.ftruncate(fd, self._end)
                os.fsync(fd)
        finally:
            os.close(fd)


class DiskDirectory:
    """A `Directory` on a real file system, locked against a second process.

    Parameters:
        path: made, private, when it is missing.
        ahead: most bytes of zeros that are written ahead in its files at a time.

    Raises:
        OSError: it cannot be made or opened.
        BlockingIOError: another process has it open.
    """

    def __init__(self, path: Path, *, ahead: int = 0) -> None:
        import fcntl

        _make_directory(path)
        self._path = path
        self._ahead = ahead
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise

    def names(self) -> list[str]:
        """See `Directory`."""
        return sorted(os.listdir(self._path))

    def read(self, name: str) -> bytes:
        """See `Directory`."""
        return (self._path / name).read_bytes()

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """See `Directory`."""
        with open(self._path / name, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def size(self, name: str) -> int:
        """See `Directory`."""
        return (self._path / name).stat().st_size

    def rename(self, old: str, new: str) -> None:
        """See `Directory`."""
        os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def open(self, name: str, *, truncate_to: int | None = None) -> DiskFile:
        """See `Directory`."""
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        try:
            if truncate_to is not None:
                os.ftruncate(fd, truncate_to)
                os.fsync(fd)
            return DiskFile(fd, os.fstat(fd).st_size, self._ahead)
        except OSError:
            os.close(fd)
            raise

    def write_again(self, name: str, offset: int, data: bytes) -> None:
        """See `Directory`."""
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            _write_all(fd, data, offset)
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, name: str) -> None:
        """See `Directory`."""
        os.unlink(name, dir_fd=self._fd)

    def sync(self) -> None:
        """See `Directory`."""
        os.fsync(self._fd)

    def path(self, name: str) -> str:
        """See `Directory`."""
        return str(self._path / name)

    def close(self) -> None:
        """See `Directory`."""
        os.close(self._fd)


def _make_directory(path: Path) -> None:
    """Make a directory and those above it, as far as they are missing, so that they stay over a power failure.

    Each is synced before one is made in it. So of those that are there, only the innermost may have been made by a
    process that was killed before it had synced the name.
    """
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    if not path.is_mount():
        with contextlib.suppress(PermissionError):  # it is in one that we may not list: then we have not made it either
            _sync_directory(path.parent)
    for place in reversed(missing):
        place.mkdir(mode=0o700 if place == missing[0] else 0o777, exist_ok=True)
        _sync_directory(place.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of `data` there; how many bytes that is."""
    view = memoryview(data)
    written = 0
    while written < len(view):
        written += os.pwrite(fd, view[written:], offset + written)
    return written
