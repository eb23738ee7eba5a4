"""Connections between nodes, on loopback: questions and answers, and what becomes of them when something goes wrong."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from raftbed.nodes.peers import PeerNetwork, PeerStream
from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Entry,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    MembershipConfig,
    Normal,
    RaftNetworkError,
    ShuttingDown,
    SnapshotMeta,
    TimeoutNowRequest,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.messages import MOST
from raftbed.nodes.server import Server
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.wire import CLUSTER_HEADER, NUMBERS, REFUSED, Frames, encode, frame

VOTE = VoteRequest(1, "n1", 0, 0)
PIECE = InstallSnapshotRequest(1, "n1", SnapshotMeta(5, 1, "0" * 16, MembershipConfig(("n1",)), size=9), 0, b"piece")


class Receiver:
    """Stands for a `Raft`: keeps what it is asked, and answers when the test says so."""

    id = "n2"
    closing = False

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[str, Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.refuses: Exception | None = None

    def receive(self, method: str, rpc: Any) -> asyncio.Future[Any]:
        if self.refuses is not None:
            raise self.refuses
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait((method, rpc, answer))
        return answer

    async def next(self) -> tuple[Any, asyncio.Future[Any]]:
        _method, rpc, answer = await asyncio.wait_for(self.asked.get(), 5)
        return rpc, answer


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def make_server(receiver: Receiver, cluster: str = "test") -> Server:
    return Server(receiver, KeyValueStateMachine(), cluster=cluster, peers={})  # type: ignore[arg-type]


@asynccontextmanager
async def pair(*, timeout: float = 5.0, cluster: str = "test") -> AsyncIterator[tuple[PeerNetwork, Receiver, Server]]:
    """A network that knows one peer, n2, and that peer."""
    receiver = Receiver()
    server = make_server(receiver, cluster)
    port = await server.listen("127.0.0.1", 0)
    network = PeerNetwork("test", {"n2": f"127.0.0.1:{port}"}, timeout=timeout)
    try:
        yield network, receiver, server
    finally:
        await network.close()
        await server.close()


async def answered(network: PeerNetwork, receiver: Receiver, term: int = 1) -> None:
    """One question and its answer."""
    answer = network.vote("n2", VOTE)
    _, token = await receiver.next()
    token.set_result(VoteResponse(term, vote_granted=True))
    assert await answer == VoteResponse(term, vote_granted=True)


async def test_questions_go_out_at_once_and_answers_come_in_any_order() -> None:
    async with pair() as (network, receiver, _):
        first = network.append_entries("n2", AppendEntriesRequest(1, "n1", 0, 0, (), 0))
        second = network.vote("n2", VOTE)
        third = network.pre_vote("n2", VoteRequest(2, "n1", 0, 0))
        asked = [await receiver.next() for _ in range(3)]
        assert [rpc.term for rpc, _ in asked] == [1, 1, 2]
        for term, (_, answer) in reversed(list(enumerate(asked, 5))):
            answer.set_result([term, True])
        assert (await third).term == 7
        assert (await second).term == 6
        assert await first == AppendEntriesResponse(5, success=True)


async def test_a_large_message_arrives() -> None:
    async with pair() as (network, receiver, _):
        entries = tuple(Entry(index, 1, Normal("x" * 100_000)) for index in range(1, 31))
        answer = network.append_entries("n2", AppendEntriesRequest(1, "n1", 0, 0, entries, 0))
        rpc, token = await receiver.next()
        assert rpc.entries == entries
        token.set_result([1, True, 30, None])
        assert (await answer).verified_index == 30


async def test_a_peer_that_refuses_says_why_and_the_connection_goes_on() -> None:
    async with pair() as (network, receiver, _):
        receiver.refuses = ShuttingDown()
        with pytest.raises(RaftNetworkError, match="shutting down"):
            await network.vote("n2", VOTE)
        receiver.refuses = None
        later = network.vote("n2", VOTE)
        _, token = await receiver.next()
        token.set_exception(ShuttingDown("It went down meanwhile."))
        with pytest.raises(RaftNetworkError, match="meanwhile"):
            await later


async def test_a_peer_of_another_cluster_refuses() -> None:
    async with pair(cluster="another") as (network, receiver, _):
        with pytest.raises(RaftNetworkError, match=r"403 Forbidden.*belongs to cluster 'another', not to 'test'"):
            await network.vote("n2", VOTE)
        assert receiver.asked.empty()


async def test_a_node_that_is_taken_for_another_refuses() -> None:
    async with pair() as (network, receiver, server):
        assert server._runner is not None
        network = PeerNetwork("test", {"n3": f"127.0.0.1:{server._runner.addresses[0][1]}"}, timeout=5)
        with pytest.raises(RaftNetworkError, match="This node is n2, not n3"):
            await network.vote("n3", VOTE)
        await network.close()
        assert receiver.asked.empty()


async def test_a_snapshot_has_a_connection_of_its_own_and_all_the_time_it_is_given() -> None:
    async with pair(timeout=0.02) as (network, receiver, server):
        await answered(network, receiver)
        installing = network.install_snapshot("n2", PIECE)
        rpc, token = await receiver.next()
        assert rpc == PIECE
        await asyncio.sleep(0.05)
        await answered(network, receiver)
        assert len(server._streams) == 2
        token.set_result(InstallSnapshotResponse(1))
        assert (await installing).term == 1


async def test_a_piece_of_a_snapshot_that_is_given_up_takes_its_connection_with_it() -> None:
    async with pair() as (network, receiver, server):
        installing = network.install_snapshot("n2", PIECE)
        await receiver.next()
        (stream,) = server._streams
        installing.cancel()
        await asyncio.wait_for(stream.closed, 5)
        again = network.install_snapshot("n2", PIECE)
        _, token = await receiver.next()
        token.set_result(InstallSnapshotResponse(1))
        await again


async def test_a_peer_that_is_down_is_an_error_and_is_found_when_it_comes_up() -> None:
    receiver = Receiver()
    server = make_server(receiver)
    port = await server.listen("127.0.0.1", 0)
    await server.close()
    network = PeerNetwork("test", {"n2": f"127.0.0.1:{port}"}, timeout=5)
    with pytest.raises(OSError, match="onnect"):
        await network.vote("n2", VOTE)
    server = make_server(receiver)
    await server.listen("127.0.0.1", port)
    await answered(network, receiver)
    await network.close()
    await server.close()


async def test_a_peer_that_closes_fails_what_it_owes() -> None:
    async with pair() as (network, receiver, server):
        answer = network.vote("n2", VOTE)
        await receiver.next()
        await server.close()
        with pytest.raises(ConnectionError):
            await answer


async def test_an_unknown_peer_and_a_closed_network_are_errors() -> None:
    async with pair() as (network, receiver, _):
        with pytest.raises(RaftNetworkError, match="no address is known of n3"):
            network.vote("n3", VOTE)
        answer = network.vote("n2", VOTE)
        await receiver.next()
        await network.close()
        for failing in (lambda: answer, lambda: network.vote("n2", VOTE)):
            with pytest.raises(RaftNetworkError, match="shuts down"):
                await failing()


async def test_a_silent_connection_is_given_up_and_a_new_one_made() -> None:
    async with pair(timeout=0.05) as (network, receiver, server):
        await answered(network, receiver)
        (first,) = server._streams
        with pytest.raises(TimeoutError):
            await network.vote("n2", VOTE)
        await asyncio.wait_for(first.closed, 5)
        await receiver.next()
        await answered(network, receiver)
        assert first not in server._streams


async def test_a_slow_answer_fails_alone_where_others_come() -> None:
    async with pair(timeout=0.2) as (network, receiver, server):
        slow = network.vote("n2", VOTE)
        _, slow_token = await receiver.next()
        await answered(network, receiver)
        with pytest.raises(TimeoutError):
            await slow
        slow_token.set_result([1, True])  # far too late: nobody waits for it, and nobody else gets it
        await answered(network, receiver, term=9)
        assert len(server._streams) == 1


async def asked_of_what_says(said: bytes, error: str) -> None:
    """Whatever listens there says this, and who asks it for its vote gets that error."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    network = PeerNetwork("test", {"n2": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}, timeout=5)
    with pytest.raises(RaftNetworkError, match=error):
        await network.vote("n2", VOTE)
    await network.close()
    server.close()


async def test_something_else_that_listens_there_is_an_error() -> None:
    await asked_of_what_says(b"220 mail.example ESMTP\r\n\r\n", "220 mail")


async def test_an_answer_that_is_no_frame_loses_the_connection() -> None:
    """It is the network's to log; any other error would be logged by the node, too."""
    await asked_of_what_says(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + b"\xff" * 9, "A frame of")


@pytest.mark.parametrize("host", ["x" * 300, "256.0.0.1.."])
async def test_a_name_that_can_be_none_is_a_peer_that_cannot_be_reached(host: str, caplog) -> None:
    network = PeerNetwork("test", {"n2": f"{host}:1"}, timeout=5)
    with pytest.raises((RaftNetworkError, OSError)):
        await network.vote("n2", VOTE)
    await network.close()
    assert caplog.text.count("peer n2 is unreachable") == 1


TOO_MUCH = MOST + 1
ANSWERS_THAT_ARE_NONE = {
    "nothing": ("vote", None),
    "another kind": ("append_entries", [1, {}]),
    "a vote of a term that cannot be counted on": ("vote", [TOO_MUCH, False]),
    "a promise of the greatest number that there is": ("pre_vote", [(1 << 64) - 1, False]),
    "a vote of a negative term": ("vote", [-1, True]),
    "an append of a term that cannot be counted on": ("append_entries", [TOO_MUCH, False]),
    "an append of a negative term": ("append_entries", [-1, True, 3]),
    "an index that cannot be counted on": ("append_entries", [1, True, TOO_MUCH]),
    "a negative index": ("append_entries", [1, True, -1]),
    "a conflict in a term that cannot be": ("append_entries", [1, False, 0, [TOO_MUCH, 1]]),
    "a conflict at an index that cannot be": ("append_entries", [1, False, 0, [1, -1]]),
    "a snapshot's term that cannot be": ("install_snapshot", [TOO_MUCH, 0]),
    "an offset that cannot be": ("install_snapshot", [1, TOO_MUCH]),
    "a negative offset": ("install_snapshot", [1, -1]),
    "a term of a node that is to stand that cannot be": ("timeout_now", [TOO_MUCH]),
}


@pytest.mark.parametrize("what", ANSWERS_THAT_ARE_NONE)
async def test_an_answer_that_cannot_be_is_an_error_and_the_connection_goes_on(what: str) -> None:
    method, nonsense = ANSWERS_THAT_ARE_NONE[what]
    request = {
        "append_entries": AppendEntriesRequest(1, "n1", 0, 0, (), 0),
        "install_snapshot": PIECE,
        "timeout_now": TimeoutNowRequest(1, "n1"),
    }.get(method, VOTE)
    async with pair() as (network, receiver, server):
        await answered(network, receiver)
        answer = getattr(network, method)("n2", request)
        _, token = await receiver.next()
        token.set_result(nonsense)
        with pytest.raises(RaftNetworkError, match="its answer is none: Expected"):
            await answer
        await answered(network, receiver)
        assert len(server._streams) == (2 if method == "install_snapshot" else 1)


async def test_an_answer_that_nobody_can_read_is_an_error_and_the_connection_goes_on() -> None:
    async with pair() as (network, receiver, server):
        answer = network.vote("n2", VOTE)
        _, token = await receiver.next()
        token.set_result(msgspec.Raw(b"\x93\x01\xc2" + b"\x91" * 5000 + b"\x90"))
        with pytest.raises(RaftNetworkError, match="its answer is none: maximum recursion depth"):
            await answer
        await answered(network, receiver)
        assert len(server._streams) == 1


# -- the end that answers, from below ---------------------------------------------------------------------------------


@asynccontextmanager
async def upgraded() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Receiver]]:
    """A raw connection that was upgraded."""
    async with pair() as (_, receiver, server):
        assert server._runner is not None
        reader, writer = await asyncio.open_connection(*server._runner.addresses[0])
        upgrade = "Connection: Upgrade\r\nUpgrade: raftbed-raft\r\n"
        writer.write(f"GET /raft/stream HTTP/1.1\r\nHost: x\r\n{upgrade}{CLUSTER_HEADER}: test\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        yield reader, writer, receiver
        writer.close()


async def test_a_malformed_message_is_refused_and_the_next_is_taken() -> None:
    async with upgraded() as (reader, writer, receiver):
        writer.write(frame(1, 99, b"") + frame(2, NUMBERS["vote"], b"\xc1") + frame(3, NUMBERS["vote"], encode(VOTE)))
        _, token = await receiver.next()
        token.set_result([1, False])
        frames, answers = Frames(), []
        while len(answers) < 3:
            answers += [(n, kind, bytes(message)) for n, kind, message in frames.feed(await reader.read(1000))]
        assert [(number, kind) for number, kind, _ in answers] == [(1, REFUSED), (2, REFUSED), (3, 0)]
        assert answers[0][2] == b"There is no method 99."


async def test_an_impossible_frame_ends_the_connection() -> None:
    async with upgraded() as (reader, writer, _):
        writer.write(b"\xff" * 9)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)


async def test_only_an_upgrade_is_let_in() -> None:
    async with pair() as (_, _receiver, server):
        assert server._runner is not None
        reader, writer = await asyncio.open_connection(*server._runner.addresses[0])
        writer.write(f"GET /raft/stream HTTP/1.1\r\nHost: x\r\n{CLUSTER_HEADER}: test\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()


class Transport(asyncio.Transport):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.written: list[bytes] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


async def test_a_flood_is_not_read_until_it_is_answered() -> None:
    receiver, transport = Receiver(), Transport()
    stream = PeerStream(receiver, transport, lambda error: None)
    stream.data_received(frame(1, NUMBERS["vote"], encode(VOTE)) * 1024)
    assert transport.reading
    stream.data_received(frame(1, NUMBERS["vote"], encode(VOTE)))
    assert not transport.reading
    _, token = await receiver.next()
    token.set_result([1, True])
    await asyncio.sleep(0)
    assert transport.reading


async def test_a_peer_that_does_not_take_its_answers_is_not_read() -> None:
    transport = Transport()
    stream = PeerStream(Receiver(), transport, lambda error: None)
    stream.pause_writing()
    assert not transport.reading
    stream.resume_writing()
    assert transport.reading


# -- what is told of a peer that is not reached -----------------------------------------------------------------------


async def test_each_reason_for_which_a_peer_is_not_reached_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "raftbed.nodes")
    peers = {"n3": f"127.0.0.1:{free_port()}"}
    network = PeerNetwork("test", peers, timeout=5)
    async with pair() as (_, _, server):
        assert server._runner is not None
        assert network.problem("n3") is None, "nobody tried"
        for _ in range(2):
            with pytest.raises(OSError):
                await network.vote("n3", VOTE)
        assert network.problem("n3") == "nobody listens at its address"
        nowhere, peers["n3"] = peers["n3"], f"127.0.0.1:{server._runner.addresses[0][1]}"
        with pytest.raises(RaftNetworkError):
            await network.vote("n3", VOTE)
        assert str(network.problem("n3")).endswith("wrong-node: This node is n2, not n3: check the peers' addresses.")
        peers["n3"] = nowhere
        with pytest.raises(OSError):
            await network.vote("n3", VOTE)
        assert network.problem("n3") == "nobody listens at its address", "the last one counts"
    await network.close()
    told = [record.getMessage() for record in caplog.records]
    assert [text.partition(": ")[2].partition(",")[0] for text in told] == [
        "nobody listens at its address",
        "it answered 403 Forbidden",
    ]


async def test_a_peer_that_is_reached_has_no_problem() -> None:
    async with pair() as (network, receiver, _):
        network._note("n2", TimeoutError("no answer in time"))
        assert network.problem("n2") == "no answer in time"
        await answered(network, receiver)
        assert network.problem("n2") is None


def test_reasons_that_are_others_every_time_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    network = PeerNetwork("test", {}, timeout=5)
    for number in range(100):
        network._note("n2", OSError(f"port {number}"))
    assert len(caplog.records) == 8
    assert network.problem("n2") == "port 99"
