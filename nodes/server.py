"""The node's HTTP server. Only this and http_shortcut.py know aiohttp.

It is aiohttp's low-level server: requests go straight to service.py, without aiohttp's router, middlewares and response
objects, which together cost more than a replicated write does (docs/benchmarks.md).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11
from aiohttp.http_exceptions import HttpProcessingError

from raftbed.nodes import http_shortcut
from raftbed.nodes.admin import PeerProblem
from raftbed.nodes.http_shortcut import ShortcutServer
from raftbed.nodes.peers import PeerStream
from raftbed.nodes.problems import Problem, bad_request
from raftbed.nodes.raft import NodeId, Raft
from raftbed.nodes.requests import MAX_KEY
from raftbed.nodes.service import Answer, Query, Service
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.wire import STREAM_PATH, UPGRADE

_log = logging.getLogger("raftbed.nodes")
_FIELDS = "Content-Type: %b\r\nContent-Length: %d\r\n%b\r\n"
_HEADS = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n{_FIELDS}".encode() for status in HTTPStatus}


class Server:
    """Answers HTTP for one node.

    Parameters:
        raft: the node's Raft.
        machine: its state machine, for reads.
        cluster: name of the cluster; peers of another are refused.
        peers: node id to "host:port", for hints.
        bug: name of the planted bug, shown in the status; None in any honest node.
        problem: why a peer cannot be reached; None while it can be.
    """

    def __init__(
        self,
        raft: Raft,
        machine: KeyValueStateMachine,
        *,
        cluster: str,
        peers: Mapping[NodeId, str],
        bug: str | None = None,
        problem: PeerProblem = lambda _: None,
    ) -> None:
        self._raft = raft
        self._service = Service(raft, machine, cluster=cluster, peers=peers, bug=bug, problem=problem)
        self._runner: web.ServerRunner | None = None
        self._streams: dict[PeerStream, None] = {}

    async def listen(self, host: str, port: int) -> int:
        """Take requests at an address; returns the port, which is chosen when 0 was asked for.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._runner = web.ServerRunner(self.protocols(), shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, reuse_address=True).start()
        chosen: int = self._runner.addresses[0][1]
        return chosen

    def protocols(self) -> web.Server:
        """Makes an `asyncio.Protocol` for each connection, when it is called."""
        options: dict[str, Any] = {
            "access_log": None,
            "logger": _HttpLog(_log),
            "auto_decompress": False,  # nobody needs it, and a body is as large as it looks
            "max_line_size": 4096 + 12 * MAX_KEY,  # a character is at most four bytes, each written as %XX
        }
        if http_shortcut.is_usable():
            return ShortcutServer(self._handle, self._service.begin, _render, **options)
        return web.Server(self._handle, **options)

    async def close(self) -> None:
        """Take no more requests, and let those under way come to their end."""
        for stream in list(self._streams):
            stream.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path, mark, query_string = request.raw_path.partition("?")
        if not path.startswith("/") or "#" in request.raw_path:  # a proxy's absolute form, say
            path, query_string = request.rel_url.raw_path, request.rel_url.raw_query_string
        if path == STREAM_PATH:
            return await self._stream(request)
        query = Query(request.method, path, query_string if mark else "", request.headers)
        return _Answer(await self._service.answer(query, lambda limit: _body(request, limit)))

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        """Let a peer go on with frames instead of HTTP; returns when its connection is gone."""
        try:
            self._service.check_peer(request.headers)
            if request.headers.get("Upgrade", "").lower() != UPGRADE:
                raise bad_request(f"{STREAM_PATH} is for peers, which ask for an upgrade to {UPGRADE}.")
        except Problem as problem:
            return _Answer(self._service.refusal(problem))
        transport = request.transport
        if transport is None or self._raft.closing:
            return _Answer(self._service.refusal(Problem(503, "shutting-down", "This node is shutting down.")))
        transport.write(
            f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\n\r\n".encode()
        )
        stream = PeerStream(self._raft, transport, request.protocol.connection_lost)
        self._streams[stream] = None
        try:
            await stream.closed
        finally:
            self._streams.pop(stream, None)
            stream.close()
        return _Upgraded()


class _Answer(web.StreamResponse):
    """Writes head and body in one piece; of aiohttp's response, only what its server calls is there.

    Parameters:
        answer: what to say.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._keep = True

    @property
    def keep_alive(self) -> bool:
        """Whether the connection is used for another request."""
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send everything."""
        transport, answer = request.transport, self._answer
        if transport is None:
            raise ConnectionResetError("the client has gone")
        self._keep = request.keep_alive
        more = b"" if self._keep and request.version.minor else b"Connection: close\r\n"
        if self._keep and not request.version.minor:
            more = b"Connection: keep-alive\r\n"
        transport.write(_head(answer, more) if request.method == "HEAD" else _render(answer, more))
        await request.writer.drain()  # whoever asks and asks, and does not read, is not kept the answers for
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be sent."""


class _Upgraded(web.StreamResponse):
    """What is left of a request whose connection speaks another protocol now, and is gone."""

    @property
    def keep_alive(self) -> bool:
        """There is no connection to be kept."""
        return False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send nothing."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nor this."""


def _head(answer: Answer, more: bytes = b"") -> bytes:
    """The head of an answer, with `more` fields."""
    return _HEADS[answer.status] % (answer.content_type.encode(), len(answer.body), more)


def _render(answer: Answer, more: bytes = b"") -> bytes:
    """A whole answer."""
    return _head(answer, more) + answer.body


async def _body(request: web.BaseRequest, limit: int) -> bytes:
    content = request.content
    if content.is_eof():  # it came with the head, as it does in all but large requests
        body = content.read_nowait()
    else:
        parts = bytearray()
        if _waits_to_be_asked(request) and request.transport is not None:  # else it has gone
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            while (chunk := await content.readany()) and len(parts) <= limit:
                parts += chunk
        except (ConnectionError, web.RequestPayloadError) as error:
            raise bad_request("The body broke off.") from error
        body = bytes(parts)
    if len(body) > limit:
        raise Problem(413, "too-large", f"The body is larger than {limit} bytes.")
    return body


def _waits_to_be_asked(request: web.BaseRequest) -> bool:
    """The client sends the body only when it is told to, or has waited for a while (RFC 9110, 10.1.1)."""
    return request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue"


class _HttpLog(logging.LoggerAdapter[logging.Logger]):
    """The HTTP library's log. What strangers send is a line; a traceback would look like a crash of the node."""

    def exception(self, msg: object, *args: Any, **options: Any) -> None:
        """Log an exception, with a traceback only if it is this side's."""
        error = options.get("exc_info")
        if isinstance(error, (HttpProcessingError, web.RequestPayloadError, ConnectionError)):
            reason = str(getattr(error, "message", "") or error or type(error).__name__)
            self.warning("a request could not be read: %s", reason.partition("\n")[0])
        else:
            super().exception(msg, *args, **options)
