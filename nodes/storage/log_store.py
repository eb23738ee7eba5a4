"""The durable store: an append-only log of records in segments (docs/node.md).

Theory of operation
-------------------
Term, vote, truncations and entries go into one stream of records, so that a round of the node is one write and one
fdatasync. The newest record of a kind counts; nothing is changed in place. A segment that has grown to its size, or to
a lesser one when the log is compacted, is followed by the next one, which begins with a header that repeats the hard
state, and says where the log begins and which entry comes next. Compacting writes where the log begins now; segments of
which no entry is needed any more are removed after that, from the first on: in another thread, because it takes a file
system a while to give up a large file, and a sync should not wait for that. What a crash leaves of them is removed at
the next start.

The last segment may end in zeros that were written ahead (`raftbed.nodes.storage.files`): no record has length 0. They
are cut off before the next segment is begun, and on opening.

On opening, all segments are read in order. Only the last may end in a tear, which a power failure leaves of a write
that was never synced and that nothing was promised on; it is cut off, durably, before anything new is written behind
it. A broken record with one of a later write behind it, or in an earlier segment, or a log with a gap, was not left by
a power failure but by something that changed what had been synced: the store refuses to open, because going on would
be silent loss.

That a record can be read does not say that it is on disk. After a failed sync, Linux takes for written what it could
not write, keeps it in memory, and tells whoever syncs next that all is well ("fsyncgate", 2018). A store stops at the
first sync that fails, so this can be true of its last write only: what is before it, in this segment and in earlier
ones, was synced before it was written. So what is left of the last write is written once more on opening, and synced,
before anything of it is trusted. It is written in its place, the same bytes: a power failure meanwhile can take nothing
that was durable.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from raftbed.nodes.raft.messages import BEGINNING, Entry, HardState, LogBase
from raftbed.nodes.storage.base import CorruptRecord, InitialState, StorageError
from raftbed.nodes.storage.files import WRITTEN_AHEAD, Directory, DiskDirectory, File
from raftbed.nodes.storage.records import (
    COMPACT,
    ENTRY,
    HARD_STATE,
    HEADER,
    TRUNCATE,
    Record,
    frame,
    later_batch_after,
    records,
)

SEGMENT_SIZE = 64 << 20
COMPACTED_SIZE = 1 << 20
"""Bytes after which a compaction begins the next segment: what it forgot is not to be read at every start."""
_VERSION = 1


class Header(msgspec.Struct, frozen=True, array_like=True):
    """Begins a segment: the format's version, the segment's number, and how things stood when it was made.

    `base` is what the log followed, `next_index` the first entry that may stand in this segment.
    """

    version: int
    segment: int
    hard_state: HardState
    base: LogBase = BEGINNING
    next_index: int = 1


_HEADER = msgspec.msgpack.Decoder(Header)
_STATE = msgspec.msgpack.Decoder(HardState)
_INDEX = msgspec.msgpack.Decoder(int)
_BASE = msgspec.msgpack.Decoder(LogBase)
_ENTRY = msgspec.msgpack.Decoder(Entry)


class DiskLogStore:
    """Implements :class:`raftbed.nodes.storage.base.LogStore` on disk.

    Parameters:
        directory: where the segments are; a path, or a `Directory` of a test's making.
        segment_size: bytes after which the next segment is begun.
    """

    def __init__(self, directory: Path | Directory, *, segment_size: int = SEGMENT_SIZE) -> None:
        self._place = directory
        self._segment_size = segment_size
        self._compacted_size = min(segment_size, COMPACTED_SIZE)
        self._directory: Directory | None = None
        self._file: File | None = None
        self._segment = 0
        self._next_offset = 0
        self._batch = 0  # where the write begins that is being put together
        self._hard_state = HardState()
        self._base = BEGINNING
        self._first = 1  # index of the first of the entries; after opening, the one after the base
        self._entries: list[Entry] = []
        self._last_in: dict[int, int] = {}  # segment to the greatest index that ever stood in it
        self._obsolete: deque[int] = deque()  # segments to be removed, in that order
        self._broken: str | None = None
        self._encode = msgspec.msgpack.Encoder().encode

    # -- recovery -------------------------------------------------------------------------------------------------

    def get_initial_state(self) -> InitialState:
        """See `LogStore`."""
        try:
            directory = self._open_directory()
            numbers = self._segments(directory)
            for number in numbers:
                self._replay(directory, number, last=number == numbers[-1])
            if not numbers:
                self._begin_segment(1)
            if self._first != self._base.index + 1:
                raise CorruptRecord(
                    f"{directory.path('')}: the log should begin with entry {self._base.index + 1}, but begins with "
                    f"{self._first}; a segment is missing. {_REMEDY}"
                )
        except OSError as error:
            self._fail(f"the log cannot be opened: {error}")
        if self._base.index:
            self._retire_segments(self._base.index)
        return InitialState(self._hard_state, tuple(self._entries), self._base)

    def _open_directory(self) -> Directory:
        if isinstance(self._place, Path):
            try:
                self._directory = DiskDirectory(self._place, ahead=min(WRITTEN_AHEAD, self._segment_size))
            except BlockingIOError as error:
                raise StorageError(f"{self._place}: another process uses this directory.") from error
        else:
            self._directory = self._place
        return self._directory

    def _segments(self, directory: Directory) -> list[int]:
        names = [name for name in directory.names() if _SEGMENT_NAME.fullmatch(name)]
        numbers = [int(name.removesuffix(".log")) for name in names]
        if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise CorruptRecord(f"{directory.path('')}: has segments {numbers}; one is missing. {_REMEDY}")
        return numbers

    def _replay(self, directory: Directory, number: int, *, last: bool) -> None:
        self._segment = number
        name = _name(number)
        content = directory.read(name)
        begin = end = 0  # of the last write, as far as its records are sound
        for record in records(number, content):
            self._take(record, directory.path(name), number)
            begin, end = record.batch, record.end
        if end < len(content):
            behind = later_batch_after(number, content, end)
            if behind is not None or not last:
                raise CorruptRecord(
                    f"{directory.path(name)}: the record at byte {end} is corrupted, though it was written whole: "
                    f"sound ones were written after it. {_REMEDY}"
                )
        if not last:
            if end == 0:
                raise CorruptRecord(f"{directory.path(name)}: has no header. {_REMEDY}")
            return
        if end:  # it may have been read from the system's memory, and be on no disk
            directory.write_again(name, begin, content[begin:end])
        # The tear, if there is one, is cut off; a segment torn within its header is begun again.
        self._file = directory.open(name, truncate_to=end)
        self._next_offset = self._batch = end
        if end == 0:
            self._write(self._header())
        directory.sync()

    def _take(self, record: Record, path: str, number: int) -> None:
        try:
            if (record.type == HEADER) != (record.offset == 0):
                raise CorruptRecord(f"{path}: the record at byte {record.offset} is out of place. {_REMEDY}")
            if record.type == HEADER:
                header = _HEADER.decode(record.payload)
                if header.version != _VERSION:
                    raise StorageError(f"{path}: has format {header.version}; this version reads {_VERSION}.")
                self._hard_state = header.hard_state
                if not self._last_in:  # the first that there is
                    self._base, self._first = header.base, header.next_index
                self._last_in[number] = header.next_index - 1
            elif record.type == HARD_STATE:
                self._hard_state = _STATE.decode(record.payload)
            elif record.type == TRUNCATE:
                self._truncate(_INDEX.decode(record.payload))
            elif record.type == COMPACT:
                self._compact(_BASE.decode(record.payload))
            elif record.type == ENTRY:
                entry = _ENTRY.decode(record.payload)
                if entry.index != self._next_index:
                    raise CorruptRecord(
                        f"{path}: the record at byte {record.offset} holds entry {entry.index}, but entry "
                        f"{self._next_index} is due. {_REMEDY}"
                    )
                self._entries.append(entry)
                self._last_in[number] = max(self._last_in.get(number, 0), entry.index)
            else:
                raise CorruptRecord(f"{path}: the record at byte {record.offset} has type {record.type}. {_REMEDY}")
        except msgspec.DecodeError as error:
            message = f"{path}: the record at byte {record.offset} of segment {number} cannot be decoded: {error}."
            raise CorruptRecord(f"{message} {_REMEDY}") from error

    # -- the log in memory ----------------------------------------------------------------------------------------

    @property
    def _next_index(self) -> int:
        return self._first + len(self._entries)

    def _truncate(self, start: int) -> None:
        if start < self._first:  # on opening: what it cut off stood in a segment that was removed
            self._entries, self._first = [], start
        else:
            del self._entries[start - self._first :]

    def _compact(self, base: LogBase) -> None:
        self._base = base
        if base.index >= self._next_index:
            self._entries = []
        else:
            del self._entries[: max(base.index + 1 - self._first, 0)]
        self._first = max(base.index + 1, self._first)

    # -- writing --------------------------------------------------------------------------------------------------

    def persist(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
        *,
        compact_to: LogBase | None = None,
    ) -> None:
        """See `LogStore`."""
        if self._broken is not None:
            raise StorageError(self._broken)
        assert self._file is not None, "get_initial_state comes first"
        parts: list[bytes] = []
        if hard_state is not None:
            parts.append(self._record(HARD_STATE, hard_state))
            self._hard_state = hard_state
        if truncate_from is not None:
            parts.append(self._record(TRUNCATE, truncate_from))
            self._truncate(truncate_from)
        if compact_to is not None:
            parts.append(self._record(COMPACT, compact_to))
            self._compact(compact_to)
        for entry in entries:
            assert entry.index == self._next_index, "a log has no gaps"
            parts.append(self._record(ENTRY, entry))
            self._entries.append(entry)
        if entries:
            self._last_in[self._segment] = max(self._last_in.get(self._segment, 0), entries[-1].index)
        try:
            self._write(b"".join(parts))
            if self._next_offset >= (self._segment_size if compact_to is None else self._compacted_size):
                self._begin_segment(self._segment + 1)
        except OSError as error:
            self._fail(f"the log cannot be written: {error}")
        if compact_to is not None:
            self._retire_segments(compact_to.index)

    def _retire_segments(self, index: int) -> None:
        """Those that begin the log and hold no entry after `index` are obsolete; never the one that is written to."""
        for number in sorted(self._last_in):
            if number == self._segment or self._last_in[number] > index:
                break
            self._obsolete.append(number)
            del self._last_in[number]

    def remove_obsolete(self) -> None:
        """See `LogStore`."""
        directory = self._directory
        assert directory is not None, "get_initial_state comes first"
        while self._obsolete:
            name = _name(self._obsolete[0])
            try:
                directory.remove(name)
            except OSError as error:  # those behind it stay too: a log with a gap is taken for a damaged one
                raise StorageError(
                    f"{directory.path(name)}: an obsolete segment cannot be removed: {error}."
                ) from error
            self._obsolete.popleft()

    def get_log_entries(self, start: int, stop: int) -> tuple[Entry, ...]:
        """See `LogStore`."""
        return tuple(self._entries[max(start - self._first, 0) : max(stop - self._first, 0)])

    def close(self) -> None:
        """See `LogStore`."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # then zeros are left behind its end, as after a crash
                self._file.close()
            self._file = None
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def _header(self) -> bytes:
        """The record that begins a segment."""
        self._last_in[self._segment] = self._next_index - 1
        header = Header(_VERSION, self._segment, self._hard_state, self._base, self._next_index)
        return self._record(HEADER, header)

    def _record(self, type_: int, value: object) -> bytes:
        """The record that comes next; records are written in the order in which they are made."""
        framed = frame(self._segment, self._next_offset, self._batch, type_, self._encode(value))
        self._next_offset += len(framed)
        return framed

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.append(data)
        self._file.sync()
        self._batch = self._next_offset

    def _begin_segment(self, number: int) -> None:
        assert self._directory is not None
        file, self._file = self._file, None
        if file is not None:
            file.close()  # durably without its zeros: in front of the next segment they would be damage
        self._segment, self._next_offset, self._batch = number, 0, 0
        self._file = self._directory.open(_name(number))
        self._write(self._header())
        self._directory.sync()

    def _fail(self, what: str) -> NoReturn:
        name = _name(self._segment) if self._segment else ""  # not one of them could be opened
        where = self._directory.path(name) if self._directory else str(self._place)
        self._broken = f"{where}: {what}."
        raise StorageError(self._broken)


# An empty directory in its place would be worse: a node that forgot what it voted for and what it acknowledged can help
# a majority to lose what was committed.
_REMEDY = "This node must not go on with what is left: remove it from the cluster, and add a new one under a new name."
_SEGMENT_NAME = re.compile(r"[0-9]{8}\.log")


def _name(number: int) -> str:
    return f"{number:08d}.log"
