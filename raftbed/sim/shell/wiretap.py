"""What whole nodes say to each other, read along on their connections, for the message diagram of the report.

Theory of operation
-------------------
A network of whole nodes carries bytes. Between nodes they are Raft's frames (`raftbed.nodes.wire`), after the HTTP by
which a connection begins. A tap cuts what a process writes into frames, as the process at the other end does, and
remembers at which byte each one ends: a message has left when its frame was written, and has arrived when the process
at the other end has read that byte. One whose end is never read is lost: the connection broke, or the process did.

A tap only looks. It draws nothing at random, so that a run goes the same way with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from raftbed.nodes.wire import ANSWERS, METHODS, NUMBERS, OK, STREAM_PATH, Frames, NotARaftMessage, decode_request
from raftbed.sim.message_log import MessageLog
from raftbed.sim.timeline import Timeline

_HEAD_END = b"\r\n\r\n"
_BEFORE_A_MESSAGE = 9  # bytes of a frame: length, number, kind

Note = Callable[[int, int, memoryview], dict[str, Any] | None]
"""Notes a frame, given its number, its kind and its message; returns the record, or None."""


class Tap:
    """One direction of a connection.

    Parameters:
        begins: how the stream begins, when it is one of frames.
        note: takes each frame as it leaves.
        timeline: when that is.
    """

    def __init__(self, begins: bytes, note: Note, timeline: Timeline) -> None:
        self._begins = begins
        self._note = note
        self._timeline = timeline
        self._head = b""
        self._frames: Frames | None = None
        self._over = False  # it is no stream of frames, or not any more
        self._cut = 0  # bytes that were cut into messages
        self._read = 0
        self._on_the_way: deque[tuple[int, dict[str, Any]]] = deque()  # at which byte each message ends

    def written(self, data: bytes) -> None:
        """A process writes to its end of the connection."""
        if self._over:
            return
        if self._frames is None:
            data = self._begin(data)
        if self._frames is None:
            return
        try:
            for number, kind, message in self._frames.feed(data):
                self._cut += _BEFORE_A_MESSAGE + len(message)
                record = self._note(number, kind, message)
                if record is not None:
                    self._on_the_way.append((self._cut, record))
        except NotARaftMessage:  # nobody can tell any more where a message begins
            self._over = True

    def read(self, count: int) -> None:
        """The process at the other end reads so many bytes more."""
        self._read += count
        while self._on_the_way and self._on_the_way[0][0] <= self._read:
            self._on_the_way.popleft()[1]["arrived"] = self._timeline.now

    def _begin(self, data: bytes) -> bytes:
        """Pass over the HTTP; returns what came behind it."""
        self._head += data
        head, end, rest = self._head.partition(_HEAD_END)
        if not end:
            return b""
        if not head.startswith(self._begins):
            self._over = True
            return b""
        self._cut = len(head) + len(end)
        self._frames, self._head = Frames(), b""
        return rest


class Wiretap:
    """Both directions of a connection between two nodes.

    Parameters:
        log: takes the messages.
        timeline: when they leave and arrive.
        asker: the node that made the connection.
        answerer: the other one.

    Attributes:
        requests: of what the asker writes.
        answers: of what the answerer does.
    """

    def __init__(self, log: MessageLog, timeline: Timeline, asker: str, answerer: str) -> None:
        self._log = log
        self._timeline = timeline
        self._asker = asker
        self._answerer = answerer
        self._asked: dict[int, tuple[str, Any]] = {}  # number to the request that waits for its answer
        self.requests = Tap(f"GET {STREAM_PATH} ".encode(), self._request, timeline)
        self.answers = Tap(b"HTTP/1.1 101 ", self._answer, timeline)

    def _request(self, number: int, kind: int, message: memoryview) -> dict[str, Any]:
        now = self._timeline.now
        try:
            method, request = decode_request(kind, message)
        except NotARaftMessage as error:
            name = METHODS[kind][0] if kind < len(METHODS) else "?"
            return self._log.note(now, self._asker, self._answerer, name, f"{name}: {error}", answer=False)
        self._asked[number] = (method, request)
        return self._log.request(now, self._asker, self._answerer, method, request)

    def _answer(self, number: int, status: int, message: memoryview) -> dict[str, Any]:
        now = self._timeline.now
        method, request = self._asked.pop(number, ("?", None))
        if status != OK or method == "?":
            text = f"{method}: refuses: {bytes(message).decode(errors='replace')}"
            return self._log.note(now, self._answerer, self._asker, method, text, answer=True)
        try:
            response = ANSWERS[NUMBERS[method]].decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            text = f"{method}: cannot be read: {error}"
            return self._log.note(now, self._answerer, self._asker, method, text, answer=True)
        return self._log.answer(now, self._answerer, self._asker, method, request, response)
