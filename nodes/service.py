"""What a node answers, and to whom: clients, operators, peers. Knows no HTTP library; server.py brings the requests.

Bad input gets a 4xx with one sentence and changes nothing; docs/node.md lists every answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from raftbed import __version__
from raftbed.nodes import problems
from raftbed.nodes.admin import Admin, PeerProblem, details, membership_answer, prometheus
from raftbed.nodes.deadlines import Deadlines
from raftbed.nodes.problems import Problem
from raftbed.nodes.raft import NodeId, Raft
from raftbed.nodes.requests import (
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
from raftbed.nodes.wire import (
    CLUSTER_HEADER,
    MAX_MESSAGE,
    NUMBERS,
    TARGET_HEADER,
    NotARaftMessage,
    decode_request,
    encode,
)

MAX_CLIENT_BODY = 1 << 20
MAX_PEER_BODY = MAX_MESSAGE
JSON, MSGPACK, TEXT = "application/json", "application/msgpack", "text/plain; version=0.0.4"
_log = logging.getLogger("raftbed.nodes")
_T = TypeVar("_T")


class Query(msgspec.Struct, frozen=True):
    """A request.

    Attributes:
        method: of HTTP.
        path: as it came, still quoted, without the query.
        query: what stood behind the question mark.
        headers: whose names are looked up without regard to case.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


class Answer(msgspec.Struct, frozen=True):
    """What to say to it."""

    status: int
    body: bytes
    content_type: str = JSON


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers a request.

    Attributes:
        name: for the metrics.
        method: the only one that is allowed.
        call: takes the query and the body.
        is_for_peers: its body may be larger.
    """

    name: str
    method: str
    call: Callable[[Query, bytes], Awaitable[Answer]]
    is_for_peers: bool = False


@dataclass(frozen=True, slots=True)
class KeyRoute:
    """Who answers a request about a key.

    Attributes:
        name: for the metrics.
        method: the only one that is allowed.
        begin: takes the query, the key as it was quoted, and the body.
    """

    name: str
    method: str
    begin: Callable[[Query, str, bytes], Begun]


class Begun(msgspec.Struct, frozen=True):
    """An operation that is under way.

    Attributes:
        future: of its result.
        patience: seconds after which the client wants to wait no longer.
        finish: makes the answer of the future, once that is done; raises Problem.
    """

    future: asyncio.Future[Any]
    patience: float
    finish: Callable[[asyncio.Future[Any]], Answer]


class Done(msgspec.Struct):
    """Answer to a read or a write that was done."""

    key: str
    value: Any
    index: int
    term: int
    node: str


_encode_json = msgspec.json.Encoder().encode


class Service:
    """Answers requests for one node.

    Parameters:
        raft: the node's Raft.
        machine: its state machine, for reads.
        cluster: name of the cluster; peers of another are refused.
        peers: node id to "host:port", for hints.
        bug: name of the planted bug, shown in the status; None in any honest node.
        problem: why a peer cannot be reached.
    """

    def __init__(
        self,
        raft: Raft,
        machine: KeyValueStateMachine,
        *,
        cluster: str,
        peers: Mapping[NodeId, str],
        bug: str | None,
        problem: PeerProblem,
    ) -> None:
        self._raft = raft
        self._machine = machine
        self._cluster = cluster
        self._peers = peers
        self._bug = bug
        self._problem = problem
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._deadlines = Deadlines(loop)
        self._started = self._clock()
        self._answers: Counter[tuple[str, int]] = Counter()
        self._admin = Admin(raft, peers, problem)
        self._get_route = KeyRoute("/kv/{key}", "GET", self._begin_get)
        self._key_routes = {
            "put": KeyRoute("/kv/{key}/put", "POST", self._begin_put),
            "cas": KeyRoute("/kv/{key}/cas", "POST", self._begin_cas),
        }
        self._routes = {
            "/status": Route("/status", "GET", self._status),
            "/metrics": Route("/metrics", "GET", self._metrics),
        }
        for path in self._admin.posts:
            self._routes[path] = Route(path, "POST", self._operate)
        for method in NUMBERS:
            path = f"/raft/{method}"
            self._routes[path] = Route(path, "POST", self._take_from_peer, is_for_peers=True)

    # -- every request ------------------------------------------------------------------------------------------------

    async def answer(self, query: Query, read_body: Callable[[int], Awaitable[bytes]]) -> Answer:
        """Answer a request, whatever it is; `read_body` is given the most bytes that are allowed."""
        name = "unknown"
        try:
            route, key = self._route(query)
            name = route.name
            is_for_peers = isinstance(route, Route) and route.is_for_peers
            body = b"" if route.method == "GET" else await read_body(MAX_PEER_BODY if is_for_peers else MAX_CLIENT_BODY)
            if isinstance(route, Route):
                answer = await route.call(query, body)
            else:
                begun = route.begin(query, key, body)
                with contextlib.suppress(Exception):  # `finish` knows what to make of it
                    await _within(begun.patience, begun.future)
                answer = begun.finish(begun.future)
        except Exception as error:
            answer = self._failure(query, error)
        return self._counted(name, answer)

    def begin(self, query: Query, body: bytes, tell: Callable[[Answer], None]) -> None:
        """The same for a request about a key that came whole, without a task: `tell` is given the answer, once."""
        name = "unknown"
        try:
            route, key = self._route(query)
            name = route.name
            assert isinstance(route, KeyRoute), "others have to be awaited"
            begun = route.begin(query, key, body)
        except Exception as error:
            tell(self._counted(name, self._failure(query, error)))
            return
        deadlines = self._deadlines
        deadline = deadlines.set(begun.future, begun.patience)

        def done(future: asyncio.Future[Any]) -> None:
            deadlines.clear(future, deadline)
            try:
                answer = begun.finish(future)
            except Exception as error:
                answer = self._failure(query, error)
            tell(self._counted(name, answer))

        begun.future.add_done_callback(done)

    def _counted(self, name: str, answer: Answer) -> Answer:
        self._answers[(name, answer.status)] += 1
        return answer

    def _failure(self, query: Query, error: Exception) -> Answer:
        """What to say when an answer could not be made, because of `error`, which is being handled."""
        if isinstance(error, Problem):
            return self.refusal(error)
        known = problems.of_read(self._raft.id, error)  # a peer's request met a node that shuts down
        if known is None:
            _log.exception("%s %s failed", query.method, query.path)
        return self.refusal(known or Problem(500, "internal", f"{type(error).__name__}: {error}", definite=False))

    def refusal(self, problem: Problem) -> Answer:
        """A problem as an answer."""
        leader = problem.leader
        answer = {
            "error": problem.code,
            "message": problem.message.encode(errors="backslashreplace").decode(),  # it may quote what is no text
            "definite": problem.definite,
            "leader": leader,
            "leader_address": self._peers.get(leader) if leader else None,
            **dict(problem.extra),
        }
        return Answer(problem.status, _encode_json(answer))

    def check_peer(self, headers: Mapping[str, str]) -> None:
        """Refuse a peer of another cluster, and one that takes this node for another.

        Raises:
            Problem: it is one.
        """
        theirs = unquote(headers.get(CLUSTER_HEADER, ""))
        if theirs != self._cluster:
            raise Problem(403, "wrong-cluster", f"This node belongs to cluster {self._cluster!r}, not to {theirs!r}.")
        target = unquote(headers.get(TARGET_HEADER, self._raft.id))
        if target != self._raft.id:  # one node that answers for two would be counted twice
            raise Problem(403, "wrong-node", f"This node is {self._raft.id}, not {target}: check the peers' addresses.")

    def _route(self, query: Query) -> tuple[Route | KeyRoute, str]:
        """Who answers, and the key where it is about one."""
        route: Route | KeyRoute | None
        quoted = ""
        if query.path.startswith("/kv/"):
            quoted, slash, verb = query.path[4:].partition("/")
            route = (self._key_routes.get(verb) if slash else self._get_route) if quoted else None
        else:
            route = self._routes.get(query.path)
        if route is None:
            raise Problem(404, "not-found", f"{query.method} {query.path}: Not Found.")
        if query.method != route.method and not (query.method == "HEAD" and route.method == "GET"):
            raise Problem(405, "method-not-allowed", f"{query.method} {query.path}: Method Not Allowed.")
        return route, quoted

    # -- clients ------------------------------------------------------------------------------------------------------

    def _begin_get(self, query: Query, quoted: str, body: bytes) -> Begun:
        key = _key(quoted)
        if query.query:
            raise problems.bad_request("A read takes no query.")
        patience = _patience(query)
        try:
            future = self._raft.begin_read()
        except Exception as error:
            raise problems.of_read(self._raft.id, error) or error from error
        return Begun(future, patience, partial(self._finish_get, key))

    def _finish_get(self, key: str, future: asyncio.Future[Any]) -> Answer:
        try:
            future.result()
        except Exception as error:
            raise problems.of_read(self._raft.id, error) or error from error
        metrics = self._raft.metrics().current
        done = Done(key, self._machine.read(key), metrics.last_applied, metrics.current_term, self._raft.id)
        return Answer(200, _encode_json(done))

    def _begin_put(self, query: Query, quoted: str, body: bytes) -> Begun:
        key = _key(quoted)
        put = decode_body(body, PutBody)
        check_value("value", put.value)
        return self._begin_write(query, key, {"op": "put", "key": key, "value": put.value}, put)

    def _begin_cas(self, query: Query, quoted: str, body: bytes) -> Begun:
        key = _key(quoted)
        cas = decode_body(body, CasBody)
        check_value("old", cas.old)
        check_value("new", cas.new)
        return self._begin_write(query, key, {"op": "cas", "key": key, "old": cas.old, "new": cas.new}, cas)

    def _begin_write(self, query: Query, key: str, command: dict[str, Any], body: PutBody | CasBody) -> Begun:
        if body.client is not None or body.serial is not None:
            command.update(session_of(body))
        patience = _patience(query)
        if self._raft.closing:
            raise Problem(503, "shutting-down", f"{self._raft.id} is shutting down.")
        try:
            future = self._raft.begin_write(command)
        except Exception as error:
            raise problems.of_write(self._raft.id, error) or error from error
        return Begun(future, patience, partial(self._finish_write, key, body))

    def _finish_write(self, key: str, body: PutBody | CasBody, future: asyncio.Future[Any]) -> Answer:
        try:
            written = future.result()
        except Exception as error:
            raise problems.of_write(self._raft.id, error) or error from error
        result: Result = written.data
        if result.outcome == "precondition-failed":
            message = f"{key!r} does not hold the old value."
            raise Problem(409, "precondition-failed", message, extra=(("current", result.value),))
        if result.outcome != "done":
            expired = result.outcome == "session-expired"
            raise problems.session_expired(body.client) if expired else problems.stale_serial(body.client, body.serial)
        return Answer(200, _encode_json(Done(key, result.value, written.index, written.term, self._raft.id)))

    # -- peers that speak plain HTTP; ordinarily they speak over streams ----------------------------------------------

    async def _take_from_peer(self, query: Query, body: bytes) -> Answer:
        self.check_peer(query.headers)
        try:
            method, request = decode_request(NUMBERS[query.path.rpartition("/")[2]], body)
        except NotARaftMessage as error:
            raise problems.bad_request(str(error)) from error
        return Answer(200, encode(await self._raft.receive(method, request)), MSGPACK)

    # -- operators ----------------------------------------------------------------------------------------------------

    async def _status(self, query: Query, body: bytes) -> Answer:
        metrics = self._raft.metrics().current
        leader = metrics.current_leader
        status = {
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
            **details(self._raft, self._problem),
            "version": __version__,
            "bug": self._bug,
            "uptime": round(self._clock() - self._started, 3),
        }
        return Answer(200, _encode_json(status))

    async def _metrics(self, query: Query, body: bytes) -> Answer:
        return Answer(200, prometheus(self._raft.metrics().current, self._answers).encode(), TEXT)

    async def _operate(self, query: Query, body: bytes) -> Answer:
        if "Origin" in query.headers or "Sec-Fetch-Site" in query.headers:
            # Browsers send these, and whoever has a page open in one did not mean this (cross-site request forgery).
            raise Problem(403, "from-a-web-page", "A web page may not ask this: the request came from a browser.")
        return Answer(200, _encode_json(await self._admin.posts[query.path](body, _patience(query))))


async def _within(seconds: float, future: asyncio.Future[_T]) -> _T:
    """What the future brings, or TimeoutError; cheaper than `asyncio.timeout`, which can cancel anything."""
    timer = asyncio.get_running_loop().call_later(seconds, _time_out, future)
    try:
        return await future
    finally:
        timer.cancel()


def _time_out(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _key(quoted: str) -> str:
    key = quoted
    if "%" in quoted:
        try:
            key = unquote(quoted, errors="strict")
        except UnicodeDecodeError as error:
            raise problems.bad_request("The key is not UTF-8.") from error
    return check_key(key)


def _patience(query: Query) -> float:
    return timeout_of(query.headers.get(TIMEOUT_HEADER))
