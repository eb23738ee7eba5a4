"""A short way through aiohttp for the requests that are many: reads and writes of keys.

aiohttp wakes a task for each request, which makes another one, with a request and a writer object: more than half of
what a replicated write cost (docs/benchmarks.md). Here aiohttp reads the request as ever, but one that came whole, on
a connection that waits for one, is answered by a callback, while the connection's task sleeps on. Every other request
goes aiohttp's way: what is malformed, large, in pieces, pipelined, of HTTP/1.0, or is not about a key.

And a head that aiohttp has read twice is not read again (`Heads`): clients send the same one over and over, but for the
key. That is taken byte for byte, and only where aiohttp's parser stands between two requests.

This relies on how aiohttp's `RequestHandler` works within, which only a new version of aiohttp may change. So it is
taken only with versions that were tried (`is_usable`); with others everything goes aiohttp's way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import aiohttp
from aiohttp import web
from aiohttp.http import HttpVersion11, RawRequestMessage

from raftbed.nodes.service import Answer, Query

Tell = Callable[[Answer], None]
Begin = Callable[[Query, bytes, Tell], None]
"""Begins to answer a request, given its body; the answer is told at once or later, once."""
Render = Callable[[Answer], bytes]
"""An answer as it goes over the wire, on an HTTP/1.1 connection that is kept."""

_TRIED = ("3.14.",)
_PREFIX = "/kv/"
_RELIED_ON = (
    "_close",
    "_force_close",
    "_handler_waiter",
    "_keepalive_handle",
    "_keepalive_timeout",
    "_messages",
    "_next_keepalive_close_time",
    "_parser",
    "_paused",
    "_process_keepalive",
    "_request_in_progress",
    "_upgraded",
    "_waiter",
)


def is_usable() -> bool:
    """The aiohttp that is installed is one that was tried, and has what is relied on."""
    return aiohttp.__version__.startswith(_TRIED) and all(hasattr(web.RequestHandler, name) for name in _RELIED_ON)


_LINE = re.compile(rb"(GET|POST) (/kv/[\w.~!$&'()*+,;=:@%/-]{1,1000}) HTTP/1\.1\r\n")
"""A request line that nobody can read otherwise."""
_END = b"\r\n\r\n"
MOST_HEADS, LONGEST_HEAD = 1024, 2048  # which are remembered, and their bytes


class Heads:
    """Fields of requests as aiohttp read them, by their bytes; forgotten when they become too many.

    They are remembered when they come for the second time: a client may send others in every request, and objects that
    live for a while are work for the garbage collector.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Mapping[str, str], int]] = {}  # with the length of the body
        self._seen: set[int] = set()  # hashes of fields that came once

    def __len__(self) -> int:
        return len(self._known)

    def find(self, data: bytes) -> tuple[Query, bytes] | None:
        """The request that `data` is, and its body; None: it is not exactly one, or has to be read."""
        line = _LINE.match(data)
        if line is None:
            return None
        start = line.end()
        end = data.find(_END, start)
        known = self._known.get(data[start:end]) if end >= 0 else None
        if known is None or len(data) - end - 4 != known[1]:
            return None
        method, path = line.groups()
        return Query(method.decode(), path.decode(), "", known[0]), data[end + 4 :]

    def learn(self, data: bytes, message: RawRequestMessage, body: bytes) -> bool:
        """Take note of the head of a request that aiohttp read when `data` came in; False: `data` is not exactly that.

        Part of the request may have come before. It then has one field more than stands here: the one of which this
        request line became the end.
        """
        line = _LINE.match(data)
        end = data.find(_END, line.end()) if line is not None else -1
        if line is None or end < 0 or end - line.end() > LONGEST_HEAD or data[end + 4 :] != body:
            return False
        fields = data[line.end() : end]
        if len(message.raw_headers) != fields.count(b"\r\n") + 1:
            return False
        mark = hash(fields)
        if mark in self._seen:
            if len(self._known) >= MOST_HEADS:
                self._known.clear()
            self._known[fields] = (message.headers, len(body))
        else:
            if len(self._seen) >= MOST_HEADS:
                self._seen.clear()
            self._seen.add(mark)
        return True


class ShortcutServer(web.Server):
    """aiohttp's low-level server, on whose connections the short way is taken where it can be.

    Parameters:
        handler: answers all other requests.
        begin: answers those.
        render: writes their answers.
        options: for each connection, as for `web.Server`.
    """

    def __init__(self, handler: Any, begin: Begin, render: Render, **options: Any) -> None:
        super().__init__(handler, **options)
        self._begin = begin
        self._render = render
        self._options = options
        self._heads = Heads()

    def __call__(self) -> web.RequestHandler:
        """A new connection."""
        return _Connection(self, self._begin, self._render, self._heads, self._options)


class _Connection(web.RequestHandler):
    """One connection. While a request goes the short way, its task sleeps on `_sleeping`, and nobody wakes it."""

    __slots__ = ("_begin", "_heads", "_is_between", "_render", "_server", "_sleeping")

    def __init__(self, server: web.Server, begin: Begin, render: Render, heads: Heads, options: dict[str, Any]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._server = server
        self._begin = begin
        self._render = render
        self._heads = heads
        self._is_between = True  # aiohttp's parser has read whole requests, and no more
        self._sleeping: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        waiter = self._waiter  # there is one while the connection's task waits for a request
        if waiter is None or waiter.done() or self._messages or self._paused:
            self._is_between = False
            super().data_received(data)
            return
        is_open = self._is_between and not (self._close or self._force_close)
        found = self._heads.find(data) if is_open else None
        if found is not None:
            self._waiter, self._sleeping = None, waiter
            self._take(*found)
            return
        self._waiter = None
        super().data_received(data)
        message: Any
        payload: Any
        message, payload = self._messages[0] if len(self._messages) == 1 else (None, None)
        if self._is_short(message, payload):
            self._messages.clear()
            self._parser.message_consumed()  # type: ignore[union-attr]  # there is one: it has just made `message`
            body = payload.read_nowait()
            self._is_between = self._heads.learn(data, message, body)
            self._sleeping = waiter
            path, _, query_string = message.path.partition("?")
            self._take(Query(message.method, path, query_string, message.headers), body)
            return
        self._is_between = False
        self._waiter = waiter
        if self._messages:
            waiter.set_result(None)

    def _is_short(self, message: Any, payload: Any) -> TypeGuard[RawRequestMessage]:
        """The request came whole and is as most are."""
        return (
            isinstance(message, RawRequestMessage)  # else it is what was wrong with it
            and message.path.startswith(_PREFIX)
            and "#" not in message.path
            and message.method in ("POST", "GET")
            and payload.is_eof()
            and not message.should_close
            and not self._upgraded
            and message.version == HttpVersion11
            and not (self._close or self._force_close)
        )

    def _take(self, query: Query, body: bytes) -> None:
        self._server.requests_count += 1
        self._request_in_progress = True
        self._begin(query, body, self._answered)

    def _answered(self, answer: Answer) -> None:
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)  # the server shuts down, and waited for this
        waiter, self._sleeping = self._sleeping, None
        if waiter is None or self.transport is None:
            return  # the client has gone
        self.transport.write(self._render(answer))
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:  # its time was up while this request was under way
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        self._waiter = waiter
        if self._close or self._force_close:
            waiter.cancel()
        elif self._messages:  # that came in meanwhile: the task goes on with them
            waiter.set_result(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        if self._sleeping is not None:
            self._waiter, self._sleeping = self._sleeping, None
        super().connection_lost(exc)
