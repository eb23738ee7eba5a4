"""Stores that forget everything with their process: for tests and simulations."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from raftbed.nodes.raft.interfaces import ReceivedChunk
from raftbed.nodes.raft.messages import Entry, HardState, LogBase, SnapshotMeta
from raftbed.nodes.storage.base import InitialState
from raftbed.nodes.storage.frames import framed, unframed


class MemoryStore:
    """Implements :class:`raftbed.nodes.storage.base.LogStore` in memory.

    It outlives the node that uses it, so that a test can restart a node on it; closing it changes nothing.
    """

    def __init__(self) -> None:
        self._hard_state = HardState()
        self._entries: list[Entry] = []
        self._base = LogBase()

    def get_initial_state(self) -> InitialState:
        """See `LogStore`."""
        return InitialState(self._hard_state, tuple(self._entries), self._base)

    def persist(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
        *,
        compact_to: LogBase | None = None,
    ) -> None:
        """See `LogStore`."""
        if hard_state is not None:
            self._hard_state = hard_state
        if truncate_from is not None:
            del self._entries[max(truncate_from - self._base.index - 1, 0) :]
        if compact_to is not None:
            del self._entries[: compact_to.index - self._base.index]
            self._base = compact_to
        self._entries.extend(entries)

    def remove_obsolete(self) -> None:
        """See `LogStore`."""

    def get_log_entries(self, start: int, stop: int) -> tuple[Entry, ...]:
        """See `LogStore`."""
        first = self._base.index + 1
        return tuple(self._entries[max(start - first, 0) : max(stop - first, 0)])

    def close(self) -> None:
        """See `LogStore`."""


class MemorySnapshots:
    """Implements :class:`raftbed.nodes.storage.base.SnapshotStore` in memory; outlives its node likewise."""

    def __init__(self) -> None:
        self._current: tuple[SnapshotMeta, bytes] | None = None
        self._incoming = bytearray()
        self._incoming_id = ""

    def open(self) -> SnapshotMeta | None:
        """See `SnapshotStore`."""
        self._incoming_id = ""
        return self._current[0] if self._current else None

    def pieces(self) -> Iterator[bytes]:
        """See `SnapshotStore`."""
        assert self._current is not None
        return unframed([self._current[1]])

    def write(
        self, snapshot: SnapshotMeta, pieces: Iterable[bytes], cancelled: Callable[[], bool]
    ) -> SnapshotMeta | None:
        """See `SnapshotStore`."""
        data = bytearray()
        for piece in pieces:
            if cancelled():
                return None
            data += framed(piece)
        written = msgspec.structs.replace(snapshot, size=len(data), checksum=zlib.crc32(data))
        self._current = (written, bytes(data))
        return written

    def read(self, snapshot: SnapshotMeta, offset: int, size: int) -> bytes:
        """See `SnapshotStore`."""
        if self._current is None or self._current[0].id != snapshot.id:
            raise KeyError(f"there is no snapshot {snapshot.id}")
        return self._current[1][offset : offset + size]

    def receive(self, snapshot: SnapshotMeta, offset: int, data: bytes, done: bool) -> ReceivedChunk:
        """See `SnapshotStore`."""
        if offset == 0:
            self._incoming, self._incoming_id = bytearray(), snapshot.id
        if self._incoming_id != snapshot.id or offset != len(self._incoming):
            return ReceivedChunk(0)
        self._incoming += data
        if not done:
            return ReceivedChunk(len(self._incoming))
        if len(self._incoming) != snapshot.size or zlib.crc32(self._incoming) != snapshot.checksum:
            self._incoming_id = ""
            return ReceivedChunk(0)
        return ReceivedChunk(snapshot.size, complete=True)

    def received_pieces(self) -> Iterator[bytes]:
        """See `SnapshotStore`."""
        return unframed([bytes(self._incoming)])

    def install(self, snapshot: SnapshotMeta) -> None:
        """See `SnapshotStore`."""
        self._current = (snapshot, bytes(self._incoming))
        self._incoming = bytearray()

    def discard_older(self, index: int) -> None:
        """See `SnapshotStore`."""

    def remove_obsolete(self) -> None:
        """See `SnapshotStore`."""

    def close(self) -> None:
        """See `SnapshotStore`."""
