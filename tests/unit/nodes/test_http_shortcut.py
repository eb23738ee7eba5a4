"""Heads of requests that are not read again (nodes/http_shortcut.py): it is only quicker, and makes no difference."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from raftbed.nodes import http_shortcut
from raftbed.nodes.http_shortcut import Heads, ShortcutServer, Tell
from raftbed.nodes.service import Answer, Query

pytestmark = pytest.mark.skipif(
    not http_shortcut.is_usable(), reason="the short way was not tried with the aiohttp that is installed"
)


class Wire(asyncio.Transport):
    """The node's end of a connection, without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        """There is nobody to be told."""

    def resume_reading(self) -> None:
        """Nor here."""


class Spoken:
    """What a server that only writes down its requests makes of bytes that come in.

    Parameters:
        remembers: heads of requests.
        answers_late: what takes the short way is answered some turns of the loop later, not at once.
    """

    def __init__(self, *, remembers: bool, answers_late: bool = False) -> None:
        self.heads = Heads() if remembers else Forgetful()
        self.answers_late = answers_late
        self.requests: list[tuple[str, str, str, bytes]] = []
        self.short = 0
        server = ShortcutServer(self._handle, self._begin, lambda answer: b"<%d>" % answer.status, access_log=None)
        server._heads = self.heads
        self.connection: Any = server()
        self.wire = Wire()
        self.connection.connection_made(self.wire)

    def _begin(self, query: Query, body: bytes, tell: Tell) -> None:
        self._note(query, body)
        self.short += 1
        answer = Answer(200 + self.short, b"")  # so that their order can be seen
        self._answer_later(tell, answer, 3 - self.short % 3 if self.answers_late else 0)

    def _answer_later(self, tell: Tell, answer: Answer, turns: int) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._answer_later, tell, answer, turns - 1)
        else:
            tell(answer)

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        path, _, query = request.raw_path.partition("?")
        body = await request.read()
        self._note(Query(request.method, path, query, request.headers), body)
        return web.Response(body=b"!", headers={"Date": "-", "Server": "-"})

    def _note(self, query: Query, body: bytes) -> None:
        path = f"{query.path}?{query.query}" if query.query else query.path
        self.requests.append((query.method, path, repr(list(query.headers.items())), body))

    async def hear(self, chunk: bytes, *, settle: bool = True) -> None:
        """Bytes come in; before the next ones do, the connection has done what it can, or has not begun to."""
        if not self.wire.closed:
            self.connection.data_received(chunk)
        if settle:
            await self.settle()

    async def settle(self) -> Spoken:
        """Let the connection do what it can."""
        for _ in range(30):
            await asyncio.sleep(0)
        return self

    async def end(self) -> None:
        self.connection.connection_lost(None)
        for _ in range(5):
            await asyncio.sleep(0)


class Forgetful(Heads):
    """Remembers nothing."""

    def find(self, data: bytes) -> None:
        """Have everything read."""


def request(line: str, fields: Sequence[str], body: bytes = b"") -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode() + body


PUT = request("POST /kv/a/put HTTP/1.1", ["Host: x", "Content-Length: 2"], b"{}")

PUT_LINE, PUT_FIELDS = b"POST /kv/a/put HTTP/1.1\r\n", b"Host: x\r\nContent-Length: 50"
ANOTHER = b"GET /kv/secret HTTP/1.1\r\nHost: x\r\n\r\n".ljust(50, b"\n")
assert len(PUT_LINE) + len(PUT_FIELDS) - 2 == len(ANOTHER), "a search that finds nothing makes a length of this, too"
NO_FIELDS = b"GET /kv/a HTTP/1.1\r\n\r\n"

CHUNKED = request("POST /kv/a/put HTTP/1.1", ["Host: x", "Transfer-Encoding: chunked"])

LINES = [
    "POST /kv/a/put HTTP/1.1",
    "POST /kv/b%20c/put HTTP/1.1",
    "GET /kv/a HTTP/1.1",
    "GET /kv/a?x HTTP/1.1",
    "GET /status HTTP/1.1",
    "PUT /kv/a HTTP/1.1",
    "POST /kv/a/put HTTP/1.0",
    "HEAD /kv/a HTTP/1.1",
    "GET  /kv/a",
    "GET http://x/kv/a HTTP/1.1",
    "GET /kv/a#b HTTP/1.1",
    "get /kv/a HTTP/1.1",
    "\r\nPOST /kv/a/put HTTP/1.1",
]
FIELDS = [
    "Accept: */*",
    "accept:text/plain",
    "X-Raftbed-Timeout: 1",
    "X-Raftbed-Timeout:  2 ",
    "Connection: keep-alive",
    "Connection: close",
    "X: POST /kv/a/put HTTP/1.1",
    "Host: y",
    "X-\xe9: y",
    "Expect: 100-continue",
    "Transfer-Encoding: chunked",
    "Content-Length: 1",
    "Content-Length: +0",
    "Upgrade: websocket",
    "X",
    "X: a\r\n folded",
    "X: a\nY: b",
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, most often as it should be."""
    body = draw(st.sampled_from([b"", b"{}", b'{"value": 1}', PUT, b"0\r\n\r\n"]))
    fields = ["Host: x", *draw(st.lists(st.sampled_from(FIELDS), max_size=2))]
    line = draw(st.sampled_from(LINES))
    if draw(st.integers(0, 3)) == 0:  # as long as a part of the head, which a search gone wrong might take for it
        length = len(request(line, [*fields, "Content-Length: 10"])) - draw(st.integers(0, 8))
        body = ANOTHER.ljust(length, b"\n")[: min(length, 99)]
    sizes = [f"Content-Length: {len(body)}"] * 4 + [f"content-length: 0{len(body)}", "Via: me"]
    return request(line, [*fields, draw(st.sampled_from(sizes))], body)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[bytes, bool]]:
    """Chunks in which a few kinds of request come in again and again, and whether each is settled before the next."""
    kinds = draw(st.lists(requests(), min_size=1, max_size=3))
    sent = draw(st.lists(st.sampled_from([*kinds, PUT]), min_size=1, max_size=12))
    chunks = []
    for one in sent:
        end = one.find(b"\r\n\r\n")
        places = st.integers(0, len(one)) | st.integers(max(end - 1, 0), min(end + 5, len(one)))
        cuts = sorted(draw(st.lists(places, max_size=draw(st.sampled_from([0, 0, 0, 2])))))
        chunks += [one[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(one)], strict=True)]
    joined = [draw(st.integers(0, 5)) == 0 for _ in chunks]
    whole: list[bytes] = []
    for chunk, join in zip(chunks, joined, strict=True):
        if join and whole:
            whole[-1] += chunk
        else:
            whole.append(chunk)
    return [(chunk, draw(st.integers(0, 4)) > 0) for chunk in whole if chunk]


async def converse(chunks: list[tuple[bytes, bool]], *, remembers: bool, answers_late: bool) -> tuple[Any, ...]:
    """What a server makes of them, and what it says."""
    spoken = await Spoken(remembers=remembers, answers_late=answers_late).settle()
    for chunk, settle in chunks:
        await spoken.hear(chunk, settle=settle)
    await spoken.hear(b"")
    said = re.sub(rb"Date: [^\r]*", b"", spoken.wire.written)  # two runs may be in different seconds
    result = (spoken.requests, said, spoken.wire.closed)
    await spoken.end()
    return result


@given(conversations(), st.booleans())
@example([(PUT, True), (PUT, True), (b"GET /kv/a HTTP/1.1\r\nX: y\r\nX: ", True), (PUT, True), (PUT, True)], False)
@example([(PUT, True), (PUT, True), (b"POST /kv/a/put HTTP/1.1\r\nX: ", True), (PUT, True), (PUT, True)], False)
@example(
    [
        (PUT, True),
        (PUT, True),
        (b"POST /kv/a/put HTTP/1.1\r\nHost: x\r\nContent-Length: 72\r\n\r\n", True),
        (PUT, True),
    ],
    False,
)
@example(
    [(PUT, True), (PUT, True), (PUT, False), (b"GET /kv/a HTTP/1.1\r\nHost: x\r\nX: ", True), (PUT, True), (PUT, True)],
    True,
)
@example([(PUT, True), (PUT, True), (PUT, False), (PUT, True), (PUT, True)], True)
@example([(CHUNKED + b"0\r\n\r\n", True)] * 2 + [(CHUNKED, True), (b"2\r\n{}\r\n0\r\n\r\n", True)], False)
@example(
    [(PUT_LINE + PUT_FIELDS + b"\r\n\r\n" + ANOTHER, True)] * 2
    + [(PUT_LINE + PUT_FIELDS + b"\r", True), (b"\n\r\n" + ANOTHER, True)],
    False,
)
@example([(b"GET /kv/b HTTP/1.1\r\nHost: ", True), (NO_FIELDS, True)] * 2 + [(NO_FIELDS + b"\r\n", True)], False)
@example([(PUT, True), (PUT, True), (b"\r\n" + PUT, True), (b"\r\n", True), (PUT, True)], True)
def test_it_makes_no_difference_whether_heads_are_remembered(
    chunks: list[tuple[bytes, bool]], answers_late: bool
) -> None:
    remembered = asyncio.run(converse(chunks, remembers=True, answers_late=answers_late))
    read = asyncio.run(converse(chunks, remembers=False, answers_late=answers_late))
    assert remembered == read


async def test_the_third_request_with_the_same_fields_is_not_read() -> None:
    spoken = await Spoken(remembers=True).settle()
    await spoken.hear(PUT)
    await spoken.hear(PUT.replace(b"/kv/a/", b"/kv/b/"))
    spoken.connection._parser = None  # whoever asks it now, fails
    await spoken.hear(PUT.replace(b"/kv/a/", b"/kv/another%20key/"))
    assert [path for _, path, _, _ in spoken.requests] == ["/kv/a/put", "/kv/b/put", "/kv/another%20key/put"]
    assert spoken.requests[0][2:] == spoken.requests[2][2:]
    assert (spoken.short, spoken.wire.written) == (3, b"<201><202><203>")
    await spoken.end()


async def test_what_differs_is_read() -> None:
    spoken = await Spoken(remembers=True).settle()
    await spoken.hear(PUT)
    assert spoken.heads.find(PUT) is None, "it may never come again"
    await spoken.hear(PUT)
    for other in [
        PUT.replace(b"Host: x", b"Host: z"),
        PUT.replace(b"2\r\n\r\n{}", b"3\r\n\r\n{ }"),
        PUT.replace(b"/kv/a/", b"/kv/\xc3\xa9/"),
    ]:
        assert spoken.heads.find(other) is None
    assert spoken.heads.find(PUT[:-1]) is None, "a part of it is missing"
    assert spoken.heads.find(PUT + b"P") is None, "another one begins behind it"
    assert spoken.heads.find(PUT) is not None
    await spoken.end()


async def test_a_connection_that_spoke_otherwise_comes_back_to_it() -> None:
    spoken = await Spoken(remembers=True).settle()
    for chunk in [PUT, PUT, b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n", PUT[:9], PUT[9:], PUT]:
        await spoken.hear(chunk)
    spoken.connection._parser = None
    await spoken.hear(PUT)
    assert len(spoken.requests) == 6
    await spoken.end()


async def test_heads_are_few_and_short() -> None:
    spoken = await Spoken(remembers=True).settle()
    for number in range(2 * http_shortcut.MOST_HEADS + 5):
        one = request("GET /kv/a HTTP/1.1", ["Host: x", f"X: {number}"])
        await spoken.hear(one, settle=False)
        await spoken.hear(one, settle=False)
        assert spoken.heads.find(one) is not None
        assert max(len(spoken.heads), len(spoken.heads._seen)) <= http_shortcut.MOST_HEADS
    long = request("GET /kv/a HTTP/1.1", ["Host: x", "X: " + "y" * http_shortcut.LONGEST_HEAD])
    await spoken.hear(long)
    await spoken.hear(long)
    assert spoken.heads.find(long) is None
    await spoken.end()


async def test_a_connection_that_is_being_closed_takes_nothing_more() -> None:
    spoken = await Spoken(remembers=True).settle()
    for chunk in [PUT, PUT]:
        await spoken.hear(chunk)
    closing = asyncio.ensure_future(spoken.connection.shutdown(0.1))
    await asyncio.sleep(0)
    await spoken.hear(PUT)
    assert len(spoken.requests) == 2
    await closing
    await spoken.end()


async def test_a_connection_whose_time_was_up_while_it_was_busy_is_closed_when_it_is_idle() -> None:
    spoken = await Spoken(remembers=True, answers_late=True).settle()
    await spoken.hear(PUT, settle=False)
    connection = spoken.connection
    assert spoken.short == 1 and not spoken.wire.written, "it is busy"
    connection._next_keepalive_close_time = 0.0
    connection._process_keepalive()
    assert not spoken.wire.closed
    await spoken.settle()
    assert spoken.wire.written
    connection._next_keepalive_close_time = 0.0
    connection._keepalive_handle._run()  # there is a timer again
    assert spoken.wire.closed
    await spoken.end()
