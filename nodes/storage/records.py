"""The records of the log store on disk.

::

    segment = header record*            header is a record of type HEADER
    record  = length u32 | checksum u32 | batch u64 | type u8 | payload (length - 1 bytes)

`batch` is the offset of the first record that was written in the same write: whatever lies before it was synced before
this record was written. `checksum` is the CRC-32 of segment number, offset of the record, batch, type and payload:
bytes that stand in the wrong place, or come from another file, are not taken for a record. Zeros, which are written
ahead of the last record, are none either: no length is 0. Integers are little-endian,
payloads are msgpack.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

HEADER, HARD_STATE, TRUNCATE, ENTRY, COMPACT = 1, 2, 3, 4, 5
_FRAME = struct.Struct("<IIQB")
_PLACE = struct.Struct("<QQQB")
_MAX_LENGTH = 1 << 30


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read back.

    Attributes:
        offset: of its first byte in the segment.
        end: of the byte after its last.
        batch: offset of the first record of the write that it was in.
        type: HEADER, HARD_STATE, TRUNCATE, ENTRY or COMPACT.
        payload: msgpack.
    """

    offset: int
    end: int
    batch: int
    type: int
    payload: bytes


def frame(segment: int, offset: int, batch: int, type_: int, payload: bytes) -> bytes:
    """A record as it stands on disk."""
    return _FRAME.pack(len(payload) + 1, checksum(segment, offset, batch, type_, payload), batch, type_) + payload


def checksum(segment: int, offset: int, batch: int, type_: int, payload: bytes) -> int:
    """CRC-32 of a record and its place."""
    return zlib.crc32(payload, zlib.crc32(_PLACE.pack(segment, offset, batch, type_)))


def record_at(segment: int, content: bytes, offset: int) -> Record | None:
    """The record at an offset; None where there is no whole and sound one."""
    if offset + _FRAME.size > len(content):
        return None
    length, check, batch, type_ = _FRAME.unpack_from(content, offset)
    end = offset + _FRAME.size - 1 + length
    if not 1 <= length <= _MAX_LENGTH or end > len(content) or batch > offset:
        return None
    payload = content[offset + _FRAME.size : end]
    if check != checksum(segment, offset, batch, type_, payload):
        return None
    return Record(offset, end, batch, type_, payload)


def records(segment: int, content: bytes) -> Iterator[Record]:
    """The sound records from the beginning on, up to the first place where there is none."""
    offset = 0
    while (record := record_at(segment, content, offset)) is not None:
        yield record
        offset = record.end


def later_batch_after(segment: int, content: bytes, broken: int) -> int | None:
    """The offset of a sound record that was written in a later write than what is broken; None where there is none.

    A power failure tears the write that was not synced yet. The disk may have kept any part of it, a later part
    without an earlier one too. But a record of a later write says that the broken one had been synced, and was
    changed after that.
    """
    written = len(content.rstrip(b"\0"))  # a record begins before the zeros that were written ahead, or not at all
    for candidate in range(broken + 1, min(written, len(content) - _FRAME.size + 1)):
        record = record_at(segment, content, candidate)
        if record is not None and record.batch > broken:
            return candidate
    return None
