"""The node over HTTP: peers' requests, the key-value API, status and metrics. The only place that knows aiohttp.

Bad input gets a 4xx with one sentence and changes nothing; docs/node.md lists every answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import msgspec
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from aiohttp.http_exceptions import HttpProcessingError

from raftbed import __version__
from raftbed.nodes import problems
from raftbed.nodes.admin import Admin, details, membership_answer, prometheus
from raftbed.nodes.problems import Problem
from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    NodeId,
    Raft,
    RaftNetworkError,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.messages import Response
from raftbed.nodes.requests import (
    MAX_KEY,
    TIMEOUT_HEADER,
    CasBody,
    PutBody,
    check_key,
    check_value,
    decode_body,
    session_of,
    timeout_of,
)
from raftbed.nodes.state_machine import KeyValueStateMachine, Result

CLUSTER_HEADER = "X-Raftbed-Cluster"
TARGET_HEADER = "X-Raftbed-Target"
MAX_CLIENT_BODY = 1 << 20
MAX_PEER_BODY = 64 << 20
_log = logging.getLogger("raftbed.nodes")
_Message = TypeVar("_Message", AppendEntriesRequest, VoteRequest, InstallSnapshotRequest, TimeoutNowRequest)
_NO_TIMEOUT = ClientTimeout(total=None)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PeerNetwork:
    """Carries Raft messages to peers over HTTP; implements :class:`raftbed.nodes.raft.RaftNetwork`.

    Parameters:
        cluster: name of the cluster, sent with every message.
        peers: node id to "host:port"; may become more.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, cluster: str, peers: Mapping[NodeId, str], timeout: float) -> None:
        self._peers = peers
        self._headers = {CLUSTER_HEADER: quote(cluster), "Content-Type": "application/msgpack"}
        self._session = ClientSession(connector=TCPConnector(limit=0), timeout=_NO_TIMEOUT)
        self._timeout = ClientTimeout(total=timeout)
        self._reachable: dict[NodeId, bool] = {}
        self._encoder = msgspec.msgpack.Encoder()
        self._appended = msgspec.msgpack.Decoder(AppendEntriesResponse)
        self._voted = msgspec.msgpack.Decoder(VoteResponse)
        self._installed = msgspec.msgpack.Decoder(InstallSnapshotResponse)
        self._timed_out = msgspec.msgpack.Decoder(TimeoutNowResponse)

    async def append_entries(self, target: NodeId, rpc: AppendEntriesRequest) -> AppendEntriesResponse:
        """Have `target` take entries or a heartbeat."""
        return self._appended.decode(await self._post(target, "append_entries", rpc))

    async def vote(self, target: NodeId, rpc: VoteRequest) -> VoteResponse:
        """Ask `target` for its vote."""
        return self._voted.decode(await self._post(target, "vote", rpc))

    async def pre_vote(self, target: NodeId, rpc: VoteRequest) -> VoteResponse:
        """Ask `target` for the promise of its vote."""
        return self._voted.decode(await self._post(target, "pre_vote", rpc))

    async def install_snapshot(self, target: NodeId, rpc: InstallSnapshotRequest) -> InstallSnapshotResponse:
        """Have `target` take a piece of a snapshot; whoever asks says how long that may take."""
        return self._installed.decode(await self._post(target, "install_snapshot", rpc, timeout=_NO_TIMEOUT))

    async def timeout_now(self, target: NodeId, rpc: TimeoutNowRequest) -> TimeoutNowResponse:
        """Have `target` stand for election."""
        return self._timed_out.decode(await self._post(target, "timeout_now", rpc))

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _post(self, target: NodeId, method: str, rpc: Any, *, timeout: ClientTimeout | None = None) -> bytes:
        address = self._peers.get(target)
        if address is None:
            raise RaftNetworkError(f"no address is known of {target}")
        try:
            async with self._session.post(
                f"http://{address}/raft/{method}",
                data=self._encoder.encode(rpc),
                headers={**self._headers, TARGET_HEADER: quote(target)},
                timeout=timeout or self._timeout,
            ) as response:
                body = await response.read()
        except (Exception, asyncio.CancelledError) as error:  # cancelled: whoever asked did not wait any longer
            self._note(target, False, error)
            raise
        self._note(target, response.status == 200, None)
        if response.status != 200:
            raise RaftNetworkError(f"{target} answered {response.status}: {body[:200]!r}")
        return body

    def _note(self, target: NodeId, reachable: bool, error: BaseException | None) -> None:
        if self._reachable.get(target) is not reachable and not self._session.closed:
            self._reachable[target] = reachable
            if reachable:
                _log.info("peer %s is reachable", target)
            else:
                _log.warning("peer %s is unreachable: %s", target, _reason(error))


class Server:
    """Answers HTTP for one node.

    Parameters:
        raft: the node's Raft.
        machine: its state machine, for reads.
        cluster: name of the cluster; peers of another are refused.
        peers: node id to "host:port", for hints.
        bug: name of the planted bug, shown in the status; None in any honest node.
    """

    def __init__(
        self,
        raft: Raft,
        machine: KeyValueStateMachine,
        *,
        cluster: str,
        peers: Mapping[NodeId, str],
        bug: str | None = None,
    ) -> None:
        self._raft = raft
        self._machine = machine
        self._cluster = cluster
        self._peers = peers
        self._bug = bug
        self._started = time.monotonic()
        self._runner: web.AppRunner | None = None
        self._answers: Counter[tuple[str, int]] = Counter()
        self._append = msgspec.msgpack.Decoder(AppendEntriesRequest)
        self._vote = msgspec.msgpack.Decoder(VoteRequest)
        self._install = msgspec.msgpack.Decoder(InstallSnapshotRequest)
        self._over = msgspec.msgpack.Decoder(TimeoutNowRequest)
        self._admin = Admin(raft, peers)
        self._encode = msgspec.msgpack.Encoder().encode

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_PEER_BODY, middlewares=[self._as_json])
        app.add_routes(
            [
                web.post("/raft/append_entries", self._append_entries),
                web.post("/raft/vote", self._take_vote),
                web.post("/raft/pre_vote", self._take_pre_vote),
                web.post("/raft/install_snapshot", self._take_snapshot),
                web.post("/raft/timeout_now", self._take_over),
                web.get("/kv/{key}", self._get),
                web.post("/kv/{key}/put", self._put),
                web.post("/kv/{key}/cas", self._cas),
                web.get("/status", self._status),
                web.get("/metrics", self._metrics),
                *(web.post(path, self._operator(handle)) for path, handle in self._admin.posts.items()),
            ]
        )
        return app

    async def listen(self, host: str, port: int) -> int:
        """Take requests at an address; returns the port, which is chosen when 0 was asked for.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._runner = web.AppRunner(
            self.application(),
            access_log=None,
            shutdown_timeout=1.0,
            logger=_HttpLog(_log),
            auto_decompress=False,  # nobody needs it, and a body is as large as it looks
            max_line_size=4096 + 12 * MAX_KEY,  # a character is at most four bytes, each written as %XX
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, reuse_address=True).start()
        chosen: int = self._runner.addresses[0][1]
        return chosen

    async def close(self) -> None:
        """Take no more requests, and let those under way come to their end."""
        if self._runner is not None:
            await self._runner.cleanup()

    # -- peers ----------------------------------------------------------------------------------------------------

    async def _append_entries(self, request: web.Request) -> web.Response:
        return self._peer_answer(await self._raft.append_entries(await self._peer_message(request, self._append)))

    async def _take_vote(self, request: web.Request) -> web.Response:
        return self._peer_answer(await self._raft.vote(await self._peer_message(request, self._vote)))

    async def _take_pre_vote(self, request: web.Request) -> web.Response:
        return self._peer_answer(await self._raft.pre_vote(await self._peer_message(request, self._vote)))

    async def _take_snapshot(self, request: web.Request) -> web.Response:
        return self._peer_answer(await self._raft.install_snapshot(await self._peer_message(request, self._install)))

    async def _take_over(self, request: web.Request) -> web.Response:
        return self._peer_answer(await self._raft.timeout_now(await self._peer_message(request, self._over)))

    async def _peer_message(self, request: web.Request, decoder: msgspec.msgpack.Decoder[_Message]) -> _Message:
        theirs = unquote(request.headers.get(CLUSTER_HEADER, ""))
        if theirs != self._cluster:
            raise Problem(403, "wrong-cluster", f"This node belongs to cluster {self._cluster!r}, not to {theirs!r}.")
        target = unquote(request.headers.get(TARGET_HEADER, self._raft.id))
        if target != self._raft.id:  # one node that answers for two would be counted twice
            raise Problem(403, "wrong-node", f"This node is {self._raft.id}, not {target}: check the peers' addresses.")
        try:
            message = decoder.decode(await _read(request, MAX_PEER_BODY))
        except msgspec.DecodeError as error:
            raise problems.bad_request(f"Not a Raft message: {error}.") from error
        if not message.is_well_formed():
            raise problems.bad_request("Not a Raft message: it has a gap, or terms that cannot be.")
        return message

    def _peer_answer(self, response: Response) -> web.Response:
        return web.Response(body=self._encode(response), content_type="application/msgpack")

    # -- clients --------------------------------------------------------------------------------------------------

    async def _get(self, request: web.Request) -> web.Response:
        key = check_key(request.match_info["key"])
        if request.query_string:
            raise problems.bad_request("A read takes no query.")
        patience = timeout_of(request.headers.get(TIMEOUT_HEADER))
        try:
            async with asyncio.timeout(patience):
                await self._raft.client_read()
        except Exception as error:
            raise problems.of_read(self._raft.id, error) or error from error
        return self._done(key, self._machine.read(key))

    async def _put(self, request: web.Request) -> web.Response:
        key = check_key(request.match_info["key"])
        body = decode_body(await _read(request, MAX_CLIENT_BODY), PutBody)
        check_value("value", body.value)
        return await self._write(request, key, {"op": "put", "key": key, "value": body.value}, body)

    async def _cas(self, request: web.Request) -> web.Response:
        key = check_key(request.match_info["key"])
        body = decode_body(await _read(request, MAX_CLIENT_BODY), CasBody)
        check_value("old", body.old)
        check_value("new", body.new)
        return await self._write(request, key, {"op": "cas", "key": key, "old": body.old, "new": body.new}, body)

    async def _write(
        self, request: web.Request, key: str, command: dict[str, Any], body: PutBody | CasBody
    ) -> web.Response:
        command.update(session_of(body))
        patience = timeout_of(request.headers.get(TIMEOUT_HEADER))
        if self._raft.closing:
            raise Problem(503, "shutting-down", f"{self._raft.id} is shutting down.")
        try:
            async with asyncio.timeout(patience):
                written = await self._raft.client_write(command)
        except Exception as error:
            raise problems.of_write(self._raft.id, error) or error from error
        result: Result = written.data
        if result.outcome == "precondition-failed":
            message = f"{key!r} does not hold the old value."
            raise Problem(409, "precondition-failed", message, extra=(("current", result.value),))
        if result.outcome != "done":
            expired = result.outcome == "session-expired"
            raise problems.session_expired(body.client) if expired else problems.stale_serial(body.client, body.serial)
        return self._done(key, result.value, index=written.index, term=written.term)

    def _done(self, key: str, value: Any, *, index: int | None = None, term: int | None = None) -> web.Response:
        metrics = self._raft.metrics().current
        answer = {
            "key": key,
            "value": value,
            "index": metrics.last_applied if index is None else index,
            "term": metrics.current_term if term is None else term,
            "node": self._raft.id,
        }
        return _json(answer)

    # -- operators ------------------------------------------------------------------------------------------------

    async def _status(self, request: web.Request) -> web.Response:
        metrics = self._raft.metrics().current
        leader = metrics.current_leader
        return _json(
            {
                "id": metrics.id,
                "cluster": self._cluster,
                "state": metrics.state.value,
                "term": metrics.current_term,
                "leader": leader,
                "leader_address": self._peers.get(leader) if leader else None,
                "last_log_index": metrics.last_log_index,
                "commit_index": metrics.commit_index,
                "last_applied": metrics.last_applied,
                "membership": membership_answer(metrics.membership_config),
                **details(self._raft),
                "version": __version__,
                "bug": self._bug,
                "uptime": round(time.monotonic() - self._started, 3),
            }
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        text = prometheus(self._raft.metrics().current, self._answers)
        return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4"})

    def _operator(self, handle: Callable[[bytes], Awaitable[Any]]) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            raw = await _read(request, MAX_CLIENT_BODY)
            try:
                async with asyncio.timeout(timeout_of(request.headers.get(TIMEOUT_HEADER))):
                    return _json(await handle(raw))
            except TimeoutError as error:
                raise problems.of_change(self._raft.id, error) or error from error

        return answer

    # -- every answer ---------------------------------------------------------------------------------------------

    @web.middleware
    async def _as_json(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except Problem as problem:
            response = self._refuse(problem)
        except web.HTTPException as error:
            codes = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}
            code = codes.get(error.status, "bad-request")
            response = self._refuse(Problem(error.status, code, f"{request.method} {request.path}: {error.reason}."))
        except Exception as error:
            known = problems.of_read(self._raft.id, error)  # a peer's request met a node that shuts down
            if known is None:
                _log.exception("%s %s failed", request.method, request.raw_path)
            response = self._refuse(
                known or Problem(500, "internal", f"{type(error).__name__}: {error}", definite=False)
            )
        resource = request.match_info.route.resource
        self._answers[(resource.canonical if resource else "unknown", response.status)] += 1
        return response

    def _refuse(self, problem: Problem) -> web.Response:
        leader = problem.leader
        answer = {
            "error": problem.code,
            "message": problem.message,
            "definite": problem.definite,
            "leader": leader,
            "leader_address": self._peers.get(leader) if leader else None,
            **dict(problem.extra),
        }
        return _json(answer, status=problem.status)


def _json(answer: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), status=status, content_type="application/json")


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "it refused"
    if isinstance(error, (TimeoutError, asyncio.CancelledError)):
        return "no answer in time"
    return str(error) or type(error).__name__


async def _read(request: web.Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        Problem: it is larger than `limit`, or breaks off.
    """
    raw = bytearray()
    try:
        while chunk := await request.content.readany():
            raw += chunk
            if len(raw) > limit:
                raise Problem(413, "too-large", f"The body is larger than {limit} bytes.")
    except (ConnectionError, web.RequestPayloadError) as error:
        raise problems.bad_request("The body broke off.") from error
    return bytes(raw)


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
