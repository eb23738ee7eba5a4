"""The node's HTTP, byte for byte: every answer that is not a success, and the manners of HTTP/1.1 and 1.0.

Everything is asked twice: with the short way for reads and writes (nodes/http_shortcut.py), and without.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests_served_node import Gate

from raftbed.nodes import http_shortcut
from raftbed.nodes.peers import PeerNetwork
from raftbed.nodes.raft import Config, Raft, VoteRequest
from raftbed.nodes.server import Server
from raftbed.nodes.service import Query, Service
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.storage import MemoryStore, NodeStorage
from raftbed.nodes.wire import encode


@pytest.fixture(autouse=True, params=["short way", "aiohttp's way"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How reads and writes go through aiohttp."""
    if request.param != "short way":
        monkeypatch.setattr(http_shortcut, "is_usable", lambda: False)
    elif not http_shortcut.is_usable():
        pytest.skip("the short way was not tried with the aiohttp that is installed")
    return str(request.param)


class Client:
    """One connection, spoken to in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: str | bytes, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(request if isinstance(request, bytes) else request.encode())
        return await asyncio.wait_for(self._answer(has_body), 10)

    async def _answer(self, has_body: bool) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await self.reader.readexactly(int(headers["content-length"])) if has_body else b""
        return int(head[0].split()[1]), headers, body

    async def json(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        status, _, answer = await self.ask("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
        return status, json.loads(answer)


@asynccontextmanager
async def gated_node() -> AsyncIterator[tuple[Client, Gate, Server, Raft]]:
    """A node alone that leads, with a gate before its disk, and a connection to it."""
    machine = KeyValueStateMachine()
    gate = Gate(machine)
    raft = Raft("n1", Config("test"), PeerNetwork("test", {}, timeout=1), gate)
    server = Server(raft, machine, cluster="test", peers={"n1": "127.0.0.1:1"})
    port = await server.listen("127.0.0.1", 0)
    await raft.initialize({"n1"})
    await raft.metrics().wait_for(lambda metrics: metrics.last_applied > 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer), gate, server, raft
    finally:
        gate.free.set()
        writer.close()
        await raft.shutdown()
        await server.close()


@asynccontextmanager
async def node(*, initialized: bool = True) -> AsyncIterator[tuple[Client, Raft]]:
    """A node alone, and a connection to it."""
    machine = KeyValueStateMachine()
    network = PeerNetwork("test", {}, timeout=1)
    raft = Raft("n1", Config("test"), network, NodeStorage(MemoryStore(), machine))
    server = Server(raft, machine, cluster="test", peers={"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"})
    port = await server.listen("127.0.0.1", 0)
    if initialized:
        await raft.initialize({"n1"})
        await raft.metrics().wait_for(lambda metrics: metrics.last_applied > 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer), raft
    finally:
        writer.close()
        await raft.shutdown()
        await server.close()


async def wait_until_read(server: Server) -> None:
    """Until the head of the only client's request was read, and its body is waited for."""
    assert server._runner is not None and server._runner.server is not None
    (connection,) = server._runner.server.connections
    while connection._current_request is None or connection._current_request.content._waiter is None:
        await asyncio.sleep(0)


async def test_writes_and_reads() -> None:
    async with node() as (client, _):
        status, answer = await client.json("POST", "/kv/a%20key/put", {"value": [1, {"x": None}]})
        assert (status, answer["key"], answer["value"]) == (200, "a key", [1, {"x": None}])
        status, answer = await client.json("POST", "/kv/a%20key/cas", {"old": [1, {"x": None}], "new": "new"})
        assert (status, answer["index"], answer["term"]) == (200, 3, 1)
        assert await client.json("GET", "/kv/a%20key") == (
            200,
            {"key": "a key", "value": "new", "index": 3, "term": 1, "node": "n1"},
        )
        assert (await client.json("GET", "/kv/other"))[1]["value"] is None


async def test_a_quoted_slash_belongs_to_the_key() -> None:
    async with node() as (client, _):
        assert (await client.json("POST", "/kv/a%2Fput/put", {"value": 1}))[1]["key"] == "a/put"
        assert (await client.json("GET", "/kv/a%2Fput"))[1]["value"] == 1


BIG = 1 << 64
BAD = [
    ("POST", "/kv/k/put", b"", {}, 400, "bad-request"),
    ("POST", "/kv/k/put", b"{", {}, 400, "bad-request"),
    ("POST", "/kv/k/put", b'{"value": 1, "more": 2}', {}, 400, "bad-request"),
    ("POST", "/kv/k/put", b'{"value": "\xff"}', {}, 400, "bad-request"),
    ("POST", "/kv/k/put", b'{"value": ' + b"[" * 5000 + b"]" * 5000 + b"}", {}, 400, "bad-request"),
    ("POST", "/kv/k/put", {"value": [[BIG]]}, {}, 400, "bad-request"),
    ("POST", "/kv/k/put", {"value": 1, "client": "c"}, {}, 400, "bad-request"),
    ("POST", "/kv/k/put", {"value": 1, "serial": 1}, {}, 400, "bad-request"),
    ("POST", "/kv/k/put", {"value": 1, "client": "", "serial": 1}, {}, 400, "bad-request"),
    ("POST", "/kv/k/put", {"value": 1, "client": "c", "serial": 0}, {}, 400, "bad-request"),
    ("POST", "/kv/k/put", {"value": 1}, {"X_Raftbed_Timeout": "soon"}, 400, "bad-request"),
    ("POST", "/kv/k/put", {"value": 1}, {"X_Raftbed_Timeout": "nan"}, 400, "bad-request"),
    ("POST", "/kv/k/cas", {"old": 1}, {}, 400, "bad-request"),
    ("POST", f"/kv/{'k' * 1025}/put", {"value": 1}, {}, 400, "bad-request"),
    ("POST", "/kv/%ff/put", {"value": 1}, {}, 400, "bad-request"),
    ("GET", "/kv/k?stale=1", None, {}, 400, "bad-request"),
    ("GET", "/kv/k", None, {"X_Raftbed_Timeout": "-1"}, 400, "bad-request"),
    ("POST", "/admin/initialize", {"members": ["n1", "n9"]}, {}, 400, "bad-request"),
    ("POST", "/admin/initialize", {"members": ["n2"]}, {}, 400, "bad-request"),
    ("POST", "/admin/initialize", {"members": ["n1"]}, {}, 409, "not-allowed"),
    ("POST", "/raft/vote", b"\xc1", {"X_Raftbed_Cluster": "test"}, 400, "bad-request"),
    ("POST", "/raft/vote", b"\xc1", {"X_Raftbed_Cluster": "other"}, 403, "wrong-cluster"),
    ("GET", "/raft/stream", None, {"X_Raftbed_Cluster": "other"}, 403, "wrong-cluster"),
    ("GET", "/raft/stream", None, {"X_Raftbed_Cluster": "test"}, 400, "bad-request"),
    ("GET", "/", None, {}, 404, "not-found"),
    ("GET", "/kv/", None, {}, 404, "not-found"),
    ("POST", "/kv//put", {"value": 1}, {}, 404, "not-found"),
    ("POST", "/kv/k/put/", {"value": 1}, {}, 404, "not-found"),
    ("GET", "/raft/shutdown", None, {}, 404, "not-found"),
    ("GET", "/kv/k/put", None, {}, 405, "method-not-allowed"),
    ("DELETE", "/kv/k", None, {}, 405, "method-not-allowed"),
    ("POST", "/status", {}, {}, 405, "method-not-allowed"),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "code"), BAD)
async def test_bad_input_is_refused_with_one_sentence(
    method: str, path: str, body: Any, headers: dict[str, str], status: int, code: str
) -> None:
    async with node() as (client, raft):
        before = raft.metrics().current.last_log_index
        found, answer = await client.json(method, path, body, **headers)
        assert (found, answer["error"], answer["definite"]) == (status, code, True)
        assert answer["message"].endswith(".")
        assert raft.metrics().current.last_log_index == before
        assert (await client.json("GET", "/status"))[0] == 200, "the connection goes on"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (b"X-Raftbed-Cluster: \xff", "This node belongs to cluster 'test', not to '\\udcff'."),
        (
            b"X-Raftbed-Cluster: test\r\nX-Raftbed-Target: \xff",
            "This node is n1, not \\udcff: check the peers' addresses.",
        ),
    ],
)
async def test_a_header_that_is_no_text_is_refused_with_one_sentence_too(fields: bytes, message: str) -> None:
    async with node() as (client, _):
        request = b"GET /raft/stream HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n\r\n"
        status, _, answer = await client.ask(request)
        assert (status, json.loads(answer)["message"]) == (403, message)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_refused(chunked: bool) -> None:
    body = b'{"value": "' + b"x" * (1 << 20) + b'"}'
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    async with node() as (client, _):
        status, _, answer = await client.ask(f"POST /kv/k/put HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode() + data)
        assert (status, json.loads(answer)["error"]) == (413, "too-large")


async def test_a_body_in_pieces_is_put_together() -> None:
    async with node() as (client, _):
        client.writer.write(b'POST /kv/k/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"va\r\n')
        await client.writer.drain()
        status, _, answer = await client.ask(b'7\r\nlue":1}\r\n0\r\n\r\n')
        assert (status, json.loads(answer)["value"]) == (200, 1)


PUT_HEAD = b"POST /kv/k/put HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n"
PUT_BODY = b'{"value": 1}'
EXPECTING = PUT_HEAD.replace(b"Host: x", b"Host: x\r\nExpect: 100-Continue")


async def test_a_client_that_waits_to_be_asked_for_the_body_is_asked() -> None:
    async with node() as (client, _):
        client.writer.write(EXPECTING)
        asked = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 10)
        assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
        status, _, answer = await client.ask(PUT_BODY)
        assert (status, json.loads(answer)["value"]) == (200, 1)
        assert (await client.json("GET", "/kv/k"))[1]["value"] == 1, "the connection goes on"


async def test_a_client_that_has_sent_the_body_is_not_asked_for_it() -> None:
    async with node() as (client, _):
        for _ in range(3):  # a head that was read twice is known
            assert (await client.ask(EXPECTING + PUT_BODY))[0] == 200


async def test_a_client_that_asks_for_nothing_or_does_not_know_of_asking_is_not_asked() -> None:
    """Else it would take the question for the answer."""
    for head in (PUT_HEAD, EXPECTING.replace(b"HTTP/1.1", b"HTTP/1.0")):
        async with gated_node() as (client, _, server, _):
            client.writer.write(head)
            await wait_until_read(server)
            assert (await client.ask(PUT_BODY))[0] == 200


async def test_a_large_value_comes_back() -> None:
    value = "x" * 500_000
    async with node() as (client, _):
        assert (await client.json("POST", "/kv/k/put", {"value": value}))[0] == 200
        assert (await client.json("GET", "/kv/k"))[1]["value"] == value


async def test_requests_that_come_together_are_answered_in_order() -> None:
    async with node() as (client, _):
        one = "GET /kv/{} HTTP/1.1\r\nHost: x\r\n\r\n"
        client.writer.write((one.format("a") + one.format("b")).encode())
        answers = [await client.ask(one.format("c")), await client.ask(b""), await client.ask(b"")]
        assert [json.loads(body)["key"] for _, _, body in answers] == ["a", "b", "c"]


PUT = PUT_HEAD + PUT_BODY
GET = b"GET /kv/k HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_an_answer_has_the_same_bytes_on_either_way() -> None:
    async with node() as (client, _):
        for request in (PUT, GET):
            client.writer.write(request)
            answer = await client.reader.readuntil(b"}")
            assert answer == (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 52\r\n\r\n"
                b'{"key":"k","value":1,"index":2,"term":1,"node":"n1"}'
            )


async def test_a_client_that_does_not_read_is_not_read_either() -> None:
    """Else its answers would pile up here, as fast as it asks, however small each of them is."""
    asked = 300
    async with gated_node() as (client, _, server, _):
        await client.json("POST", "/kv/k/put", {"value": "x" * 60_000})
        assert server._runner is not None and server._runner.server is not None
        (connection,) = server._runner.server.connections
        client.writer.write(GET * asked)
        while not connection._paused:  # as it is as soon as more is kept for it than a connection's buffer is to hold
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*server._runner.addresses[0])
        for _ in range(asked):  # while others get as many answers, it gets none
            assert (await Client(reader, writer).json("GET", "/status"))[0] == 200
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < 300_000
        writer.close()
        answers = [await client.ask(b"") for _ in range(asked)]
        assert {(status, len(body)) for status, _, body in answers} == {(200, 60_053)}, "they come when it reads"


async def test_reads_and_writes_go_the_short_way_where_it_is_usable(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, begin = [], Service.begin

    def counted(self: Service, query: Query, *arguments: Any) -> None:
        begun.append((query.method, query.path))
        begin(self, query, *arguments)

    monkeypatch.setattr(Service, "begin", counted)
    async with node() as (client, _):
        await client.json("GET", "/status")  # a connection's first request may find its task not begun
        await client.ask(PUT)
        await client.ask(GET)
        await client.ask(GET.replace(b"1.1", b"1.0"))
    assert begun == ([("POST", "/kv/k/put"), ("GET", "/kv/k")] if way == "short way" else [])


async def test_requests_that_come_while_one_is_under_way_are_answered_after_it() -> None:
    async with gated_node() as (client, gate, _, _):
        await client.ask(GET)
        gate.close_gate()
        client.writer.write(PUT)
        await gate.has_write()
        client.writer.write(GET + b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
        await client.writer.drain()
        gate.free.set()
        answers = [json.loads((await client.ask(b""))[2]) for _ in range(4)]
        assert [answer.get("key", answer.get("state")) for answer in answers] == ["k", "k", "leader", "k"]
        assert (await client.ask(GET))[0] == 200, "the connection goes on"


async def test_a_client_that_leaves_has_written_all_the_same() -> None:
    async with gated_node() as (client, gate, _, raft):
        await client.ask(GET)
        gate.close_gate()
        client.writer.write(PUT)
        await gate.has_write()
        client.writer.transport.abort()
        gate.free.set()
        assert (await raft.metrics().wait_for(lambda metrics: metrics.last_applied == 2)).last_applied == 2


async def test_a_request_under_way_is_answered_before_the_server_is_closed() -> None:
    async with gated_node() as (client, gate, server, _):
        await client.ask(GET)
        gate.close_gate()
        client.writer.write(PUT)
        await gate.has_write()
        closing = asyncio.ensure_future(server.close())
        await asyncio.wait([closing], timeout=0.01)  # it has begun
        gate.free.set()
        assert (await client.ask(b""))[0] == 200
        await asyncio.wait_for(closing, 10)
        assert await client.reader.read() == b"", "and then the connection is closed"


async def test_connections_are_closed_or_kept_as_the_client_asks() -> None:
    async with node() as (client, _):
        _, headers, _ = await client.ask("GET /status HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert headers["connection"] == "keep-alive"
        _, headers, _ = await client.ask("GET http://x/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert headers["connection"] == "close"
        assert await client.reader.read() == b""
    async with node() as (client, _):
        await client.ask(GET)
        _, headers, _ = await client.ask(GET.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        assert headers["connection"] == "close"
        assert await client.reader.read() == b""


async def test_head_is_answered_without_a_body() -> None:
    async with node() as (client, _):
        status, headers, _ = await client.ask("HEAD /status HTTP/1.1\r\nHost: x\r\n\r\n", has_body=False)
        assert status == 200
        assert int(headers["content-length"]) > 0
        assert (await client.json("GET", "/status"))[0] == 200


async def test_a_pristine_node_refuses_and_is_initialized() -> None:
    async with node(initialized=False) as (client, _):
        for asked in [("GET", "/kv/k"), ("POST", "/kv/k/put", {"value": 1})]:
            status, answer = await client.json(*asked)
            assert (status, answer["error"], answer["definite"]) == (503, "no-leader", True)
        assert await client.json("POST", "/admin/initialize", {"members": ["n1"]}) == (200, {"members": ["n1"]})


async def test_a_peer_may_speak_plain_http() -> None:
    async with node() as (client, _):
        body = encode(VoteRequest(9, "n2", 0, 0))
        head = f"POST /raft/vote HTTP/1.1\r\nHost: x\r\nX-Raftbed-Cluster: test\r\nContent-Length: {len(body)}\r\n\r\n"
        status, headers, answer = await client.ask(head.encode() + body)
        assert (status, headers["content-type"]) == (200, "application/msgpack")
        assert answer == encode([1, False])


async def test_a_write_without_an_answer_in_time_is_unknown_and_a_read_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, persist = threading.Event(), MemoryStore.persist

    def persist_through_gate(self: MemoryStore, *arguments: Any) -> None:
        assert gate.wait(30)
        persist(self, *arguments)

    async with node() as (client, _):
        monkeypatch.setattr(MemoryStore, "persist", persist_through_gate)
        status, answer = await client.json("POST", "/kv/k/put", {"value": 1}, X_Raftbed_Timeout="0.01")
        assert (status, answer["error"], answer["definite"]) == (504, "timeout", False)
        with monkeypatch.context() as nobody_confirms:
            nobody_confirms.setattr(Raft, "begin_read", lambda self: asyncio.get_running_loop().create_future())
            status, answer = await client.json("GET", "/kv/k", X_Raftbed_Timeout="0.01")
            assert (status, answer["error"], answer["definite"]) == (503, "read-not-confirmed", True)
        gate.set()
        await client.json("POST", "/kv/another/put", {"value": 2})  # behind it in the log
        assert (await client.json("GET", "/kv/k"))[1]["value"] == 1, "the write happened, as it may"


async def test_metrics_count_answers_by_route() -> None:
    async with node() as (client, _):
        await client.json("POST", "/kv/k/put", {"value": 1})
        await client.json("GET", "/nowhere")
        _, _, text = await client.ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'raftbed_http_responses_total{route="/kv/{key}/put",status="200"} 1\n' in text
        assert b'raftbed_http_responses_total{route="unknown",status="404"} 1\n' in text


async def test_a_node_that_shut_down_says_so() -> None:
    async with node() as (client, raft):
        await raft.shutdown()
        for asked in [("GET", "/kv/k"), ("POST", "/kv/k/put", {"value": 1})]:
            status, answer = await client.json(*asked)
            assert (status, answer["error"], answer["definite"]) == (503, "shutting-down", True)
