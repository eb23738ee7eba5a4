"""How simulated clients reach simulated nodes: what `raftbed.nodes.server` and the HTTP client are in a live run.

The answers are the same, because they are made by the same code: `raftbed.nodes.problems` says what a node answers, and
`raftbed.systems.kv_client` what that means for the operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from raftbed.model import SECOND
from raftbed.nodes import problems
from raftbed.nodes.problems import Problem
from raftbed.nodes.raft.events import ClientRead, ClientWrite
from raftbed.nodes.state_machine import Result
from raftbed.sim.node import SimulatedNode
from raftbed.sim.timeline import Resume, Timeline, Wait
from raftbed.systems.kv_client import fate_of_problem
from raftbed.workloads.base import Answer, Request

_LEAST_DELAY = 100_000  # nanoseconds, each way
_SPREAD = 300_000


class Attempt(Wait):
    """One attempt under way, which its client awaits; implements `raftbed.sim.replies.Waiting`."""

    __slots__ = ("client", "connection", "name", "over", "request", "resume", "serial", "timeout")
    resume: Resume

    def __init__(
        self, connection: SimulatedConnection, name: str, request: Request, client: str, serial: int, timeout: float
    ) -> None:
        self.connection = connection
        self.name = name
        self.request = request
        self.client = client
        self.serial = serial
        self.timeout = timeout
        self.over = False

    def begin(self, resume: Resume) -> None:
        """See `Wait`: the client has sent its request."""
        self.resume = resume
        self.connection.begin(self)

    def answer(self, node: SimulatedNode, value: Any) -> None:
        """See `Waiting`: this is what the server does with what its Raft answered."""
        if not self.over:
            self.connection.back(self, _answer(node, self.request, self.client, self.serial, value))

    def reset(self, node: SimulatedNode) -> None:
        """See `Waiting`."""
        self.connection.back(self, Answer("lost", code="connection-lost", message=f"{node.name}: connection reset"))

    def end(self, answer: Answer) -> None:
        """The client has its answer, or has given up."""
        if not self.over:
            self.over = True
            self.resume(answer)


class SimulatedConnection:
    """Implements :class:`raftbed.clients.Connection`. Clients reach every machine at all times.

    Parameters:
        timeline: virtual time.
        nodes: by name.
        random: drawn from for delays.

    Attributes:
        attempts: that were begun so far.
    """

    def __init__(self, timeline: Timeline, nodes: Mapping[str, SimulatedNode], random: Random) -> None:
        self._timeline = timeline
        self._nodes = nodes
        self._draw = random.random
        self.attempts = 0

    def attempt(self, node: str, request: Request, *, client: str, serial: int, timeout: float) -> Attempt:
        """See `Connection`."""
        return Attempt(self, node, request, client, serial, timeout)

    def begin(self, attempt: Attempt) -> None:
        """A request leaves for its node."""
        self.attempts += 1
        self._timeline.after(_LEAST_DELAY + int(self._draw() * _SPREAD), self._arrived, attempt)
        self._timeline.after(int(attempt.timeout * SECOND), _given_up, attempt)

    def back(self, attempt: Attempt, answer: Answer) -> None:
        """An answer leaves for its client."""
        self._timeline.after(_LEAST_DELAY + int(self._draw() * _SPREAD), attempt.end, answer)

    def _arrived(self, attempt: Attempt) -> None:
        node = self._nodes[attempt.name]
        if not node.powered or attempt.over:
            return
        if not node.running:
            self.back(attempt, Answer("refused", code="connection-refused", message=f"{attempt.name}: nobody listens"))
            return
        request = attempt.request
        if request.is_read:
            node.take(ClientRead(attempt))
        else:
            command = _command(request, attempt.client, attempt.serial)
            node.take(ClientWrite(attempt, command, command))


def _given_up(attempt: Attempt) -> None:
    if not attempt.over:
        message = f"no answer from {attempt.name} within {attempt.timeout:.2f} s"
        attempt.end(Answer("lost", code="timeout", message=message))


def _command(request: Request, client: str, serial: int) -> dict[str, Any]:
    if request.f == "cas":
        old, new = request.value
        return {"op": "cas", "key": request.key, "old": old, "new": new, "client": client, "serial": serial}
    assert request.f == "write", f"the key-value API has no operation {request.f!r}"
    return {"op": "put", "key": request.key, "value": request.value, "client": client, "serial": serial}


def _answer(node: SimulatedNode, request: Request, client: str, serial: int, value: Any) -> Answer:
    """What the server answers, as the client takes it."""
    if isinstance(value, Exception):
        known = problems.of_read if request.is_read else problems.of_write
        problem = known(node.name, value) or Problem(500, "internal", str(value), definite=False)
        return _refusal(node, request, problem)
    if request.is_read:
        return Answer("ok", value=node.machine.read(request.key), node=node.name)
    result: Result = value
    if result.outcome == "done":
        return Answer("ok", value=result.value, node=node.name)
    if result.outcome == "precondition-failed":
        message = f"{request.key!r} does not hold the old value."
        extra = (("current", result.value),)
        return _refusal(node, request, Problem(409, "precondition-failed", message, extra=extra))
    return _refusal(node, request, problems.stale_serial(client, serial))


def _refusal(node: SimulatedNode, request: Request, problem: Problem) -> Answer:
    content = {
        "error": problem.code,
        "message": problem.message,
        "definite": problem.definite,
        "leader": problem.leader,
        **dict(problem.extra),
    }
    return fate_of_problem(node.name, request, problem.status, content)
