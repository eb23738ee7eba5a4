"""Pieces of bytes in a stream of bytes: each has its length before it, so that it comes back as it was written."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

_LENGTH = struct.Struct("<I")


def framed(piece: bytes) -> bytes:
    """A piece as it stands in the stream."""
    return _LENGTH.pack(len(piece)) + piece


def unframed(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a stream, which comes cut up anyhow.

    Raises:
        ValueError: the stream ends within a piece.
    """
    buffer = bytearray()
    for data in stream:
        buffer += data
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            end = start + _LENGTH.size + length
            if len(buffer) < end:
                break
            yield bytes(buffer[start + _LENGTH.size : end])
            start = end
        del buffer[:start]
    if buffer:
        raise ValueError("the stream ends within a piece")
