"""The records of the log store on disk.

::

    segment = header record*            header is a record of type HEADER
    record  = length u32 | checksum u32 | type u8 | payload (length - 1 bytes)

`checksum` is the CRC-32 of segment number, offset of the record, type and payload: bytes that stand in the wrong place,
or come from another file, are not taken for a record. Integers are little-endian, payloads are msgpack.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

HEADER, HARD_STATE, TRUNCATE, ENTRY = 1, 2, 3, 4
_FRAME = struct.Struct("<IIB")
_PLACE = struct.Struct("<QQ")
_MAX_LENGTH = 1 << 30


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read back.

    Attributes:
        offset: of its first byte in the segment.
        end: of the byte after its last.
        type: HEADER, HARD_STATE, TRUNCATE or ENTRY.
        payload: msgpack.
    """

    offset: int
    end: int
    type: int
    payload: bytes


def frame(segment: int, offset: int, type_: int, payload: bytes) -> bytes:
    """A record as it stands on disk."""
    return _FRAME.pack(len(payload) + 1, checksum(segment, offset, type_, payload), type_) + payload


def checksum(segment: int, offset: int, type_: int, payload: bytes) -> int:
    """CRC-32 of a record and its place."""
    return zlib.crc32(payload, zlib.crc32(bytes([type_]), zlib.crc32(_PLACE.pack(segment, offset))))


def record_at(segment: int, content: bytes, offset: int) -> Record | None:
    """The record at an offset; None where there is no whole and sound one."""
    if offset + _FRAME.size > len(content):
        return None
    length, check, type_ = _FRAME.unpack_from(content, offset)
    end = offset + _FRAME.size - 1 + length
    if not 1 <= length <= _MAX_LENGTH or end > len(content):
        return None
    payload = content[offset + _FRAME.size : end]
    if check != checksum(segment, offset, type_, payload):
        return None
    return Record(offset, end, type_, payload)


def records(segment: int, content: bytes) -> Iterator[Record]:
    """The sound records from the beginning on, up to the first place where there is none."""
    offset = 0
    while (record := record_at(segment, content, offset)) is not None:
        yield record
        offset = record.end


def sound_record_after(segment: int, content: bytes, offset: int) -> int | None:
    """The offset of a sound record anywhere behind `offset`; None where there is none.

    A power failure tears the end of a file: behind a tear is nothing sound. A sound record behind a broken one means
    that something that had been written was changed.
    """
    for candidate in range(offset + 1, len(content) - _FRAME.size + 1):
        if record_at(segment, content, candidate) is not None:
            return candidate
    return None
