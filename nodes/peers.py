"""The connections between nodes, both ends of them (their format: wire.py).

A connection on which nothing has come in for as long as an answer may take is given up, and the next message makes a
new one: TCP would try for minutes to get through to a peer that had been cut off, at ever longer intervals.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    NodeId,
    RaftNetworkError,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.errors import in_words
from raftbed.nodes.raft.events import Method
from raftbed.nodes.raft.messages import Request
from raftbed.nodes.wire import (
    ANSWERS,
    CLUSTER_HEADER,
    NUMBERS,
    OK,
    REFUSED,
    STREAM_PATH,
    TARGET_HEADER,
    UPGRADE,
    Frames,
    NotARaftMessage,
    decode_request,
    encode,
    frame,
)

_MAX_UNANSWERED = 1024
_MAX_REASONS = 8
"""Reasons for which one peer is not reached that are told: some name ports, which are others every time."""
_log = logging.getLogger("raftbed.nodes")


class Receiver(Protocol):
    """Takes peers' requests; a :class:`raftbed.nodes.raft.Raft` is one."""

    def receive(self, method: Method, rpc: Request) -> asyncio.Future[Any]:
        """Begin to answer."""
        ...


class PeerStream(asyncio.Protocol):
    """The end that answers, of a connection that was upgraded.

    Parameters:
        receiver: what answers.
        transport: the connection; this becomes its protocol.
        gone: called with the reason once the connection is.
    """

    def __init__(
        self, receiver: Receiver, transport: asyncio.Transport, gone: Callable[[Exception | None], None]
    ) -> None:
        self._receiver = receiver
        self._transport = transport
        self._gone = gone
        self._frames = Frames()
        self._unanswered = 0
        self._clogged = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        transport.set_protocol(self)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Part of the stream came in."""
        try:
            for number, kind, message in self._frames.feed(data):
                self._take(number, kind, message)
        except NotARaftMessage as error:
            _log.warning("a peer's connection is closed: %s", error)
            self._transport.abort()

    def _take(self, number: int, kind: int, message: memoryview) -> None:
        self._unanswered += 1
        try:
            method, request = decode_request(kind, message)
            answer = self._receiver.receive(method, request)
        except Exception as error:  # it shuts down, or cannot make sense of this: the peer is told
            self._write(number, REFUSED, str(error).encode())
            return
        answer.add_done_callback(lambda answer: self._answer(number, answer))
        if self._unanswered > _MAX_UNANSWERED:
            self._regulate()

    def _answer(self, number: int, answer: asyncio.Future[Any]) -> None:
        error = RaftNetworkError("cancelled") if answer.cancelled() else answer.exception()
        if error is not None:
            self._write(number, REFUSED, str(error).encode())
        else:
            self._write(number, OK, encode(answer.result()))

    def _write(self, number: int, status: int, message: bytes) -> None:
        self._unanswered -= 1
        if not self._transport.is_closing():
            self._transport.write(frame(number, status, message))
            if self._unanswered == _MAX_UNANSWERED:
                self._regulate()

    def pause_writing(self) -> None:
        """The peer does not take its answers: take no more of its requests."""
        self._clogged = True
        self._regulate()

    def resume_writing(self) -> None:
        """It does again."""
        self._clogged = False
        self._regulate()

    def _regulate(self) -> None:
        if self._clogged or self._unanswered > _MAX_UNANSWERED:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        if not self.closed.done():
            self.closed.set_result(None)
        self._gone(error)


class Connection(asyncio.Protocol):
    """The end that asks: one connection, from the attempt to make it to its loss. A lost one is never used again.

    Parameters:
        host: of the peer.
        port: of it.
        head: the HTTP request that begins it.
        patience: seconds that an answer may take; None: whoever asks says when it has had enough, by cancelling, and
            the connection is given up with it.
        lost: called with the reason, once, when it is lost or given up.
        opened: called when the peer has agreed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        head: bytes,
        patience: float | None,
        lost: Callable[[Connection, Exception], None],
        opened: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._head = head
        self._patience = patience
        self._lost = lost
        self._opened = opened
        self._transport: asyncio.Transport | None = None
        self._is_open = False
        self._early: list[bytes] = []  # to be sent once the peer has agreed
        self._answer = b""  # to the upgrade, as far as it has come
        self._frames = Frames()
        self._number = 0
        self._waiting: dict[int, tuple[asyncio.Future[Any], int, float]] = {}  # in order of sending
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._attempt = self._loop.create_task(self._connect(host, port))

    def ask(self, method: int, message: bytes) -> asyncio.Future[Any]:
        """Send a request; the future brings its answer."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if self._error is not None:
            answer.set_exception(self._error)
            return answer
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        self._waiting[number] = (answer, method, self._loop.time())
        data = frame(number, method, message)
        if self._is_open:
            assert self._transport is not None
            self._transport.write(data)
        else:
            self._early.append(data)
        if self._patience is None:
            answer.add_done_callback(self._give_up_if_cancelled)
        elif self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._look)
        return answer

    def give_up(self, error: Exception) -> None:
        """Close it; what is not answered fails with `error`."""
        if self._error is not None:
            return
        self._error = error
        self._attempt.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, {}
        for answer, _, _ in waiting.values():
            _fail(answer, error)
        self._lost(self, error)

    def _give_up_if_cancelled(self, answer: asyncio.Future[Any]) -> None:
        if answer.cancelled():
            self.give_up(TimeoutError("no answer in time"))

    async def _connect(self, host: str, port: int) -> None:
        try:
            await self._loop.create_connection(lambda: self, host, port)
        except OSError as error:
            self.give_up(error)
        except Exception as error:  # a name that can be none, say
            self.give_up(RaftNetworkError(in_words(error)))

    def _look(self) -> None:
        """Fail what has waited too long, and give up a connection that has been silent for as long."""
        self._timer = None
        now = self._loop.time()
        assert self._patience is not None
        while self._waiting:
            number = next(iter(self._waiting))
            answer, _, since = self._waiting[number]
            if since + self._patience > now + 0.0005:
                self._timer = self._loop.call_later(since + self._patience - now, self._look)
                return
            if self._heard <= since:
                self.give_up(TimeoutError("no answer in time"))
                return
            del self._waiting[number]
            _fail(answer, TimeoutError("no answer in time"))

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected: ask for the upgrade."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no subclass of asyncio.Transport
        if self._error is not None:
            transport.close()
            return
        assert self._transport is not None
        self._transport.write(self._head)

    def data_received(self, data: bytes) -> None:
        """Part of the stream came in."""
        self._heard = self._loop.time()
        try:
            if not self._is_open:
                data = self._open(data)
            for number, status, message in self._frames.feed(data):
                self._settle(number, status, message)
        except (RaftNetworkError, NotARaftMessage) as error:
            self.give_up(RaftNetworkError(str(error)))

    def _open(self, data: bytes) -> bytes:
        """Read the answer to the upgrade; returns what came behind it."""
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end:
            if len(self._answer) > 1 << 16:
                raise RaftNetworkError("it does not speak HTTP")
            return b""
        if not head.startswith(b"HTTP/1.1 101 "):
            status = head.split(b"\r\n", 1)[0].decode("latin-1").removeprefix("HTTP/1.1 ")
            raise RaftNetworkError(f"it answered {status}, {_told_in(rest)}")
        self._is_open, self._answer = True, b""
        self._opened()
        assert self._transport is not None
        self._transport.write(b"".join(self._early))
        self._early.clear()
        return rest

    def _settle(self, number: int, status: int, message: memoryview) -> None:
        answer, method, _ = self._waiting.pop(number, (None, 0, 0.0))
        if answer is None or answer.done():
            return  # it had been given up
        if status != OK:
            _fail(answer, RaftNetworkError(f"it refused: {bytes(message).decode(errors='replace')}"))
            return
        try:
            answer.set_result(ANSWERS[method].decode(message))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _fail(answer, RaftNetworkError(f"its answer is none: {error}"))

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self.give_up(error or ConnectionResetError("it closed the connection"))


class PeerNetwork:
    """Carries Raft messages to peers; implements :class:`raftbed.nodes.raft.RaftNetwork`.

    Parameters:
        cluster: name of the cluster; a peer of another refuses.
        peers: node id to "host:port"; may become more.
        timeout: seconds that an answer may take.
    """

    def __init__(self, cluster: str, peers: Mapping[NodeId, str], timeout: float) -> None:
        self._cluster = cluster
        self._peers = peers
        self._timeout = timeout
        self._connections: dict[tuple[NodeId, bool], Connection] = {}
        self._reachable: dict[NodeId, bool] = {}
        self._reasons: dict[NodeId, dict[str, None]] = {}  # why a peer has not been reached since it last was
        self._closed = False
        self._encoded: tuple[Any, bytes] = (None, b"")

    def append_entries(self, target: NodeId, rpc: AppendEntriesRequest) -> asyncio.Future[AppendEntriesResponse]:
        """Have `target` take entries or a heartbeat."""
        return self._ask(target, "append_entries", rpc)

    def vote(self, target: NodeId, rpc: VoteRequest) -> asyncio.Future[VoteResponse]:
        """Ask `target` for its vote."""
        return self._ask(target, "vote", rpc)

    def pre_vote(self, target: NodeId, rpc: VoteRequest) -> asyncio.Future[VoteResponse]:
        """Ask `target` for the promise of its vote."""
        return self._ask(target, "pre_vote", rpc)

    def install_snapshot(self, target: NodeId, rpc: InstallSnapshotRequest) -> asyncio.Future[InstallSnapshotResponse]:
        """Have `target` take a piece of a snapshot, on a connection of its own: no heartbeat stands behind it."""
        return self._ask(target, "install_snapshot", rpc, in_bulk=True)

    def timeout_now(self, target: NodeId, rpc: TimeoutNowRequest) -> asyncio.Future[TimeoutNowResponse]:
        """Have `target` stand for election."""
        return self._ask(target, "timeout_now", rpc)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for connection in list(self._connections.values()):
            connection.give_up(RaftNetworkError("this node shuts down"))

    def _ask(self, target: NodeId, method: Method, rpc: Request, *, in_bulk: bool = False) -> asyncio.Future[Any]:
        connection = self._connections.get((target, in_bulk)) or self._connect(target, in_bulk)
        if in_bulk:
            return connection.ask(NUMBERS[method], encode(rpc))
        if self._encoded[0] != rpc:  # the same often goes to several peers, one after the other
            self._encoded = (rpc, encode(rpc))
        return connection.ask(NUMBERS[method], self._encoded[1])

    def _connect(self, target: NodeId, in_bulk: bool) -> Connection:
        address = self._peers.get(target)
        if address is None or self._closed:
            raise RaftNetworkError(f"no address is known of {target}" if address is None else "this node shuts down")
        host, _, port = address.rpartition(":")
        head = (
            f"GET {STREAM_PATH} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\n"
            f"{CLUSTER_HEADER}: {quote(self._cluster)}\r\n{TARGET_HEADER}: {quote(target)}\r\n\r\n"
        )

        def lost(connection: Connection, error: Exception) -> None:
            if self._connections.get((target, in_bulk)) is connection:
                del self._connections[target, in_bulk]
            self._note(target, error)

        patience = None if in_bulk else self._timeout
        connection = Connection(
            host.strip("[]"), int(port), head.encode(), patience, lost, lambda: self._note(target, None)
        )
        self._connections[target, in_bulk] = connection
        return connection

    def problem(self, target: NodeId) -> str | None:
        """Why `target` cannot be reached; None while it can be, or nobody tried."""
        reasons = self._reasons.get(target)
        return next(reversed(reasons)) if reasons else None

    def _note(self, target: NodeId, error: Exception | None) -> None:
        """Log once that a peer is reachable, that it is not, and each new reason for that."""
        if self._closed:
            return
        if error is None:
            self._reasons.pop(target, None)
            if self._reachable.get(target) is not True:
                self._reachable[target] = True
                _log.info("peer %s is reachable", target)
            return
        self._reachable[target] = False
        reasons, reason = self._reasons.setdefault(target, {}), _in_words(error)
        is_new = reason not in reasons
        reasons.pop(reason, None)
        reasons[reason] = None  # the last one stands last
        if len(reasons) > _MAX_REASONS:
            del reasons[next(iter(reasons))]
        elif is_new:
            _log.warning("peer %s is unreachable: %s", target, reason)


def _in_words(error: Exception) -> str:
    """An error, without numbers that only a programmer knows."""
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens at its address"
    return str(error) or type(error).__name__


def _told_in(body: bytes) -> str:
    """What a node's refusal says; of something else, how it begins."""
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body[:200].decode(errors="replace")
    return f"{refusal.error}: {refusal.message}"


class _Refusal(msgspec.Struct):
    error: str
    message: str


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    """Fail it, if it is not done; whoever asked may have gone away."""
    if not answer.done():
        answer.set_exception(error)
        answer.exception()
