"""What a workload is, and the words it shares with the system under test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from raftbed.model import Plan, often_made


@often_made
class Request:
    """One operation that a client is about to invoke.

    Attributes:
        f: "read", "write" or "cas".
        key: the object.
        value: the argument; None for a read, [old, new] for a cas.
    """

    f: str
    key: Any
    value: Any = None

    @property
    def is_read(self) -> bool:
        """Has no effect, so that a lost answer is a definite failure."""
        return self.f == "read"


@often_made
class Answer:
    """What came back from one attempt to have a request done by one node.

    Attributes:
        fate: "ok" (done), "rejected" (executed, and its condition did not hold: definite, known reason),
            "refused" (this attempt was certainly not executed), "lost" (nobody knows).
        value: the result of a read or the value that is in force after a write.
        code: for every fate but "ok", a short stable reason: "not-leader", "timeout", "connection-reset", ...
        message: the reason in words, as the node or the connection gave it.
        node: who answered; None when nobody did.
        leader: for "refused", the node that is said to be the leader.
    """

    fate: Literal["ok", "rejected", "refused", "lost"]
    value: Any = None
    code: str = ""
    message: str = ""
    node: str | None = None
    leader: str | None = None


@often_made
class Outcome:
    """How an operation ended, after all its attempts.

    Attributes:
        type: "ok", "fail" or "info", as in a history.
        value: what the history shall record as its value.
        error: for fail and info, code and message.
        node: who answered last.
    """

    type: Literal["ok", "fail", "info"]
    value: Any = None
    error: str | None = None
    node: str | None = None


class Generator(Protocol):
    """Produces the operations of one worker. Pure: it knows no clock and no connection."""

    def next(self) -> Request:
        """The operation to invoke next."""
        ...

    def observe(self, request: Request, outcome: Outcome) -> None:
        """Take note of how the last operation ended."""
        ...


class Workload(Protocol):
    """A kind of load together with the checks that judge it.

    Attributes:
        name: as in plans.
        summary: one sentence for lists.
        model: the model of the linearizability check.
        checks: names of the checks that judge a history of this workload.
    """

    @property
    def name(self) -> str:
        """As in plans."""
        ...

    @property
    def summary(self) -> str:
        """One sentence."""
        ...

    @property
    def model(self) -> str:
        """Model for the linearizability check."""
        ...

    @property
    def checks(self) -> tuple[str, ...]:
        """Names of its checks."""
        ...

    def generator(self, plan: Plan, worker: int) -> Generator:
        """The generator of one worker, seeded from the plan."""
        ...

    def final_requests(self, plan: Plan, worker: int) -> Sequence[Request]:
        """The reads that this worker makes once everything has healed."""
        ...
