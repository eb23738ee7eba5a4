"""A short way through aiohttp for the requests that are many: reads and writes of keys.

aiohttp wakes a task for each request, which makes another one, with a request and a writer object: more than half of
what a replicated write cost (docs/benchmarks.md). Here aiohttp reads the request as ever, but one that came whole, on
a connection that waits for one, is answered by a callback, while the connection's task sleeps on. Every other request
goes aiohttp's way: what is malformed, large, in pieces, pipelined, of HTTP/1.0, or is not about a key.

This relies on how aiohttp's `RequestHandler` works within, which only a new version of aiohttp may change. So it is
taken only with versions that were tried (`is_usable`); with others everything goes aiohttp's way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

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
    "_keepalive_timeout",
    "_messages",
    "_next_keepalive_close_time",
    "_parser",
    "_paused",
    "_request_in_progress",
    "_upgraded",
    "_waiter",
)


def is_usable() -> bool:
    """The aiohttp that is installed is one that was tried, and has what is relied on."""
    return aiohttp.__version__.startswith(_TRIED) and all(hasattr(web.RequestHandler, name) for name in _RELIED_ON)


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

    def __call__(self) -> web.RequestHandler:
        """A new connection."""
        return _Connection(self, self._begin, self._render, self._options)


class _Connection(web.RequestHandler):
    """One connection. While a request goes the short way, its task sleeps on `_sleeping`, and nobody wakes it."""

    __slots__ = ("_begin", "_render", "_server", "_sleeping")

    def __init__(self, server: web.Server, begin: Begin, render: Render, options: dict[str, Any]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._server = server
        self._begin = begin
        self._render = render
        self._sleeping: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        waiter = self._waiter  # there is one while the connection's task waits for a request
        if waiter is None or waiter.done() or self._messages or self._paused:
            super().data_received(data)
            return
        self._waiter = None
        super().data_received(data)
        if len(self._messages) == 1 and self._is_short(*self._messages[0]):
            self._sleeping = waiter
            self._take(*self._messages.popleft())
            return
        self._waiter = waiter
        if self._messages:
            waiter.set_result(None)

    def _is_short(self, message: Any, payload: Any) -> bool:
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

    def _take(self, message: Any, payload: Any) -> None:
        self._parser.message_consumed()  # type: ignore[union-attr]  # there is one: it has just made `message`
        self._server.requests_count += 1
        self._request_in_progress = True
        path, _, query_string = message.path.partition("?")
        self._begin(Query(message.method, path, query_string, message.headers), payload.read_nowait(), self._answered)

    def _answered(self, answer: Answer) -> None:
        self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)  # the server shuts down, and waited for this
        waiter, self._sleeping = self._sleeping, None
        if waiter is None or self.transport is None:
            return  # the client has gone
        self.transport.write(self._render(answer))
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
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
