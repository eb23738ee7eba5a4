"""What goes into the core (events) and what comes out of it (`Ready`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Entry,
    HardState,
    NodeId,
    Request,
    VoteRequest,
    VoteResponse,
)

Token = Any
"""Whatever the driver uses to find the one who waits for an answer; the core only hands it back."""

Method = Literal["append_entries", "vote", "pre_vote"]


@dataclass(frozen=True, slots=True)
class Received:
    """A peer's request came in; its answer goes to `token`."""

    token: Token
    method: Method
    request: AppendEntriesRequest | VoteRequest


@dataclass(frozen=True, slots=True)
class Answered:
    """A peer answered a request that this node had sent. `sent` is that very effect."""

    sent: Send
    response: AppendEntriesResponse | VoteResponse


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that this node had sent got no answer."""

    sent: Send


@dataclass(frozen=True, slots=True)
class ClientWrite:
    """The application wants `data` committed."""

    token: Token
    data: Any


@dataclass(frozen=True, slots=True)
class ClientRead:
    """The application wants to read what is committed."""

    token: Token


@dataclass(frozen=True, slots=True)
class Initialize:
    """The application makes this pristine node, with `members`, a cluster."""

    token: Token
    members: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Durable:
    """Everything that `Ready.persist` asked for so far is on disk."""


@dataclass(frozen=True, slots=True)
class Elect:
    """An operator wants this node to stand for election now."""


Event = Received | Answered | Failed | ClientWrite | ClientRead | Initialize | Durable | Elect


@dataclass(frozen=True, slots=True)
class Persist:
    """Write this, and sync, before anything in `Ready.effects` leaves.

    Attributes:
        hard_state: the new one, or None when it did not change.
        truncate_from: forget all entries from this index on, first.
        entries: then append these.
    """

    hard_state: HardState | None
    truncate_from: int | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Send:
    """Send a request to a peer and bring its answer back as `Answered`, or `Failed`.

    Attributes:
        to: the peer.
        method: which of its entry points.
        request: what to say.
        round: of the leader's read confirmations, at the time of sending.
        at: when it was sent, in nanoseconds; what an answer proves, it proves of this moment.
    """

    to: NodeId
    method: Method
    request: Request
    round: int
    at: int


@dataclass(frozen=True, slots=True)
class Respond:
    """Give the one who waits an answer: a value, or an exception to raise there."""

    token: Token
    value: Any


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply committed entries to the state machine, in order.

    Attributes:
        entries: without gaps after those applied before.
        tokens: index to who waits for the answer of the state machine to that entry.
    """

    entries: tuple[Entry, ...]
    tokens: Mapping[int, Token]


Effect = Send | Respond | Apply


@dataclass(frozen=True, slots=True)
class Trace:
    """Something worth a line in the node's trace (docs/node.md)."""

    event: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ready:
    """What the driver has to do now, in this order.

    Attributes:
        early: requests that depend on nothing unsynced: send them before `persist`, or beside it.
        persist: what to make durable, or None.
        effects: what to do, in order, once `persist` is on disk.
        traces: for the trace file.
    """

    early: tuple[Send, ...] = ()
    persist: Persist | None = None
    effects: tuple[Effect, ...] = ()
    traces: tuple[Trace, ...] = field(default=())
