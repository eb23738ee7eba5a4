"""Snapshots on disk: one file each, written beside its place, synced, and then put there (docs/storage.md).

::

    file   = data footer footer-length u32 footer-checksum u32 MAGIC
    data   = (length u32 | piece)*         as the state machine made the pieces
    footer = SnapshotMeta, msgpack         with the size and the CRC-32 of the data

The data comes first, so that an offset in it is an offset in the file, and size and checksum are known when they are
written. A file without a sound footer was never finished; a file in its place always has one.
"""

from __future__ import annotations

import contextlib
import logging
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from raftbed.nodes.raft.interfaces import ReceivedChunk
from raftbed.nodes.raft.messages import SnapshotMeta
from raftbed.nodes.storage.base import CorruptRecord, StorageError
from raftbed.nodes.storage.files import Directory, DiskDirectory, File
from raftbed.nodes.storage.frames import framed, unframed

_log = logging.getLogger("raftbed.nodes")
_MAGIC = b"raftbed snapshot"
_TAIL = struct.Struct("<II16s")
_NAME = re.compile(r"[0-9]{20}-[0-9]+-[0-9a-f]{8}\.snapshot")
_WRITING, _RECEIVING = "writing.partial", "receiving.partial"
_BLOCK = 1 << 20
_META = msgspec.msgpack.Decoder(SnapshotMeta)
_REMEDY = "Restore it from another node: stop this one, move its data directory away, and let it be brought up anew."


class DiskSnapshots:
    """Implements :class:`raftbed.nodes.storage.base.SnapshotStore` on disk.

    Parameters:
        directory: where the files are; a path, or a `Directory` of a test's making.
    """

    def __init__(self, directory: Path | Directory) -> None:
        self._place = directory
        self._directory: Directory | None = None
        self._current: SnapshotMeta | None = None
        self._incoming: File | None = None
        self._incoming_id = ""
        self._incoming_size = self._incoming_checksum = 0
        self._oldest = 0  # snapshots that end before this entry are obsolete

    def open(self) -> SnapshotMeta | None:
        """See `SnapshotStore`."""
        try:
            directory = self._directory = DiskDirectory(self._place) if isinstance(self._place, Path) else self._place
            for name in directory.names():
                if name.endswith(".partial"):
                    self._remove_unfinished(directory, name)
            names = [name for name in directory.names() if _NAME.fullmatch(name)]
            directory.sync()  # the node that gave the last one its name may have been killed before it had synced that
            if names:
                self._current = self._footer(names[-1])
                self._verify(names[-1], self._current)
        except OSError as error:
            raise StorageError(f"{self._path('')}: the snapshots cannot be read: {error}.") from error
        return self._current

    def _remove_unfinished(self, directory: Directory, name: str) -> None:
        try:
            directory.remove(name)
        except OSError as error:  # nothing of it is used: it is cut off when the next one is begun
            _log.warning("%s: an unfinished snapshot cannot be removed: %s", directory.path(name), error)

    def _footer(self, name: str) -> SnapshotMeta:
        assert self._directory is not None
        size = self._directory.size(name)
        tail = self._directory.read_at(name, max(size - _TAIL.size, 0), _TAIL.size)
        if len(tail) == _TAIL.size:
            length, checksum, magic = _TAIL.unpack(tail)
            footer = self._directory.read_at(name, max(size - _TAIL.size - length, 0), length)
            if magic == _MAGIC and zlib.crc32(footer) == checksum:
                meta = _META.decode(footer)
                if meta.size + length + _TAIL.size == size and _name(meta) == name:
                    return meta
        raise CorruptRecord(f"{self._path(name)}: is no whole snapshot. {_REMEDY}")

    # -- reading --------------------------------------------------------------------------------------------------

    def pieces(self) -> Iterator[bytes]:
        """See `SnapshotStore`."""
        assert self._current is not None
        return unframed(self._blocks(_name(self._current), self._current.size))

    def received_pieces(self) -> Iterator[bytes]:
        """See `SnapshotStore`."""
        return unframed(self._blocks(_RECEIVING, self._incoming_size))

    def read(self, snapshot: SnapshotMeta, offset: int, size: int) -> bytes:
        """See `SnapshotStore`."""
        assert self._directory is not None
        return self._directory.read_at(_name(snapshot), offset, min(size, snapshot.size - offset))

    def _verify(self, name: str, meta: SnapshotMeta) -> None:
        """Before the state machine makes anything of it: damaged data may decode to something, or hang."""
        checksum = 0
        for block in self._blocks(name, meta.size):
            checksum = zlib.crc32(block, checksum)
        if checksum != meta.checksum:
            raise CorruptRecord(f"{self._path(name)}: does not have its checksum. {_REMEDY}")

    def _blocks(self, name: str, size: int) -> Iterator[bytes]:
        assert self._directory is not None
        for offset in range(0, size, _BLOCK):
            yield self._directory.read_at(name, offset, min(_BLOCK, size - offset))

    # -- writing --------------------------------------------------------------------------------------------------

    def write(
        self, snapshot: SnapshotMeta, pieces: Iterable[bytes], cancelled: Callable[[], bool]
    ) -> SnapshotMeta | None:
        """See `SnapshotStore`."""
        directory = self._directory
        assert directory is not None, "open comes first"
        in_place = False
        try:
            written = self._write_beside(directory, snapshot, pieces, cancelled)
            if written is None or cancelled():
                return None
            directory.rename(_WRITING, _name(written))
            in_place = True
            directory.sync()
        except OSError as error:
            raise StorageError(f"{self._path(_WRITING)}: the snapshot cannot be written: {error}.") from error
        finally:
            if not in_place:  # the log may need its room
                self._remove_partial(_WRITING)
        self._current = written
        return written

    def _write_beside(
        self, directory: Directory, snapshot: SnapshotMeta, pieces: Iterable[bytes], cancelled: Callable[[], bool]
    ) -> SnapshotMeta | None:
        size = unsynced = checksum = 0
        file = directory.open(_WRITING, truncate_to=0)
        try:
            for piece in pieces:
                if cancelled():
                    return None
                data = framed(piece)
                file.append(data)
                checksum = zlib.crc32(data, checksum)
                size += len(data)
                unsynced += len(data)
                if unsynced >= 8 * _BLOCK:  # little by little: one great sync would delay the log's
                    file.sync()
                    unsynced = 0
            written = msgspec.structs.replace(snapshot, size=size, checksum=checksum)
            self._finish(file, written)
        finally:
            file.close()
        return written

    def receive(self, snapshot: SnapshotMeta, offset: int, data: bytes, done: bool) -> ReceivedChunk:
        """See `SnapshotStore`."""
        assert self._directory is not None, "open comes first"
        try:
            if offset == 0:
                self._end_incoming()
                self._incoming = self._directory.open(_RECEIVING, truncate_to=0)
                self._incoming_id, self._incoming_size, self._incoming_checksum = snapshot.id, 0, 0
            if self._incoming is None or self._incoming_id != snapshot.id or offset != self._incoming_size:
                return ReceivedChunk(0)
            self._incoming.append(data)
            self._incoming_size += len(data)
            self._incoming_checksum = zlib.crc32(data, self._incoming_checksum)
            if not done:
                self._incoming.sync()
                return ReceivedChunk(self._incoming_size)
            if self._incoming_size != snapshot.size or self._incoming_checksum != snapshot.checksum:
                self._drop_incoming()
                return ReceivedChunk(0)
            self._finish(self._incoming, snapshot)
            self._end_incoming()
        except OSError as error:
            self._drop_incoming()  # nothing is written behind what may be missing, and the log may need the room
            raise StorageError(f"{self._path(_RECEIVING)}: the snapshot cannot be written: {error}.") from error
        return ReceivedChunk(snapshot.size, complete=True)

    def install(self, snapshot: SnapshotMeta) -> None:
        """See `SnapshotStore`."""
        assert self._directory is not None
        try:
            self._directory.rename(_RECEIVING, _name(snapshot))
            self._directory.sync()
        except OSError as error:
            raise StorageError(f"{self._path(_RECEIVING)}: the snapshot cannot be installed: {error}.") from error
        self._current = snapshot

    def discard_older(self, index: int) -> None:
        """See `SnapshotStore`."""
        self._oldest = max(self._oldest, index)

    def remove_obsolete(self) -> None:
        """See `SnapshotStore`."""
        assert self._directory is not None
        try:
            for name in self._directory.names():
                if _NAME.fullmatch(name) and int(name[:20]) < self._oldest:
                    self._directory.remove(name)
        except OSError as error:
            raise StorageError(f"{self._path('')}: old snapshots cannot be removed: {error}.") from error

    def close(self) -> None:
        """See `SnapshotStore`."""
        with contextlib.suppress(OSError):  # it has no name yet: whatever is left of it is removed at the next start
            self._end_incoming()
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def _finish(self, file: File, meta: SnapshotMeta) -> None:
        footer = msgspec.msgpack.encode(meta)
        file.append(footer + _TAIL.pack(len(footer), zlib.crc32(footer), _MAGIC))
        file.sync()

    def _end_incoming(self) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.close()

    def _drop_incoming(self) -> None:
        with contextlib.suppress(OSError):
            self._end_incoming()
        self._remove_partial(_RECEIVING)

    def _remove_partial(self, name: str) -> None:
        assert self._directory is not None
        with contextlib.suppress(OSError):  # not there, or cut off when the next one is begun, or removed at the start
            self._directory.remove(name)

    def _path(self, name: str) -> str:
        return self._directory.path(name) if self._directory is not None else str(self._place)


def _name(snapshot: SnapshotMeta) -> str:
    return f"{snapshot.id}.snapshot"
