"""Raft messages on the wire: frames on a connection that begins as HTTP on the node's only port.

::

    GET /raft/stream HTTP/1.1          the peer's answer: 101 Switching Protocols, or an ordinary HTTP answer that says
    Upgrade: raftbed-raft              why not (another cluster, say)
    X-Raftbed-Cluster: NAME
    X-Raftbed-Target: NODE

    request  = length u32 | number u32 | method u8 | message       length counts what follows it; integers are
    answer   = length u32 | number u32 | status u8 | message       little-endian, messages are msgpack

`number` is the request's, chosen by who asks; answers come in any order. Status 0 is an answer, anything else a refusal
with a sentence. A message costs some tens of microseconds this way, and an HTTP request some hundreds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    Normal,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.commands import MAX_DEPTH, is_too_deep
from raftbed.nodes.raft.events import Method

CLUSTER_HEADER = "X-Raftbed-Cluster"
TARGET_HEADER = "X-Raftbed-Target"
UPGRADE = "raftbed-raft"
STREAM_PATH = "/raft/stream"
MAX_MESSAGE = 64 << 20
OK, REFUSED = 0, 1
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<IIB")

METHODS: tuple[tuple[Method, type[Any], type[Any]], ...] = (
    ("append_entries", AppendEntriesRequest, AppendEntriesResponse),
    ("vote", VoteRequest, VoteResponse),
    ("pre_vote", VoteRequest, VoteResponse),
    ("install_snapshot", InstallSnapshotRequest, InstallSnapshotResponse),
    ("timeout_now", TimeoutNowRequest, TimeoutNowResponse),
)
"""Every method with its request and its answer. The place in this table is the number on the wire."""
NUMBERS: dict[str, int] = {name: number for number, (name, _, _) in enumerate(METHODS)}
_APPEND = NUMBERS["append_entries"]
_REQUESTS = [msgspec.msgpack.Decoder(request) for _, request, _ in METHODS]
ANSWERS = [msgspec.msgpack.Decoder(answer) for _, _, answer in METHODS]
encode = msgspec.msgpack.Encoder().encode


class NotARaftMessage(ValueError):
    """What came in is no message of this protocol; one sentence."""


def decode_request(number: int, data: bytes | memoryview) -> tuple[Method, Any]:
    """The method and the request of a message.

    Raises:
        NotARaftMessage: it is none.
    """
    if number >= len(METHODS):
        raise NotARaftMessage(f"There is no method {number}.")
    try:
        request = _REQUESTS[number].decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotARaftMessage(f"Not a Raft message: {error}.") from error
    if not request.is_well_formed():
        raise NotARaftMessage("Not a Raft message: it has a gap, or what no node says: terms, indexes, sizes, members.")
    if len(data) > MAX_DEPTH and number == _APPEND:  # each level takes a byte
        for entry in request.entries:
            if type(entry.payload) is Normal and is_too_deep(entry.payload.data):
                raise NotARaftMessage(f"Not a Raft message: a command is nested deeper than {MAX_DEPTH} levels.")
    return METHODS[number][0], request


def frame(number: int, kind: int, message: bytes) -> bytes:
    """A request or an answer as it goes over the wire."""
    return _HEAD.pack(len(message) + 5, number, kind) + message


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # of the frame that is not whole yet, put together once it is
        self._size = 0  # of all of them
        self._awaited = 0  # bytes before which there is nothing to be done

    def feed(self, data: bytes) -> Iterator[tuple[int, int, memoryview]]:
        """The frames that are whole now: number, kind and message.

        Raises:
            NotARaftMessage: a length that cannot be.
        """
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._awaited:
                return
            data = b"".join(self._parts)
            self._parts = []
        start, view, awaited = 0, memoryview(data), _HEAD.size
        while start + _HEAD.size <= len(data):
            length, number, kind = _HEAD.unpack_from(data, start)
            if not 5 <= length <= MAX_MESSAGE:
                raise NotARaftMessage(f"A frame of {length} bytes.")
            end = start + _LENGTH.size + length
            if end > len(data):
                awaited = end - start
                break
            yield number, kind, view[start + _HEAD.size : end]
            start = end
        if start < len(data):
            self._parts, self._size, self._awaited = [data[start:]], len(data) - start, awaited
