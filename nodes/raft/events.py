"""What goes into the core (events) and what comes out of it (`Ready`).

These are msgspec structs rather than dataclasses because several are made for every message: making a frozen dataclass
takes several times as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from raftbed.nodes.raft.messages import (
    Entry,
    HardState,
    InstallSnapshotRequest,
    LogBase,
    NodeId,
    Request,
    Response,
    SnapshotMeta,
)

Token = Any
"""Whatever the driver uses to find the one who waits for an answer; the core only hands it back."""

Method = Literal["append_entries", "vote", "pre_vote", "install_snapshot", "timeout_now"]


class Received(msgspec.Struct, frozen=True):
    """A peer's request came in; its answer goes to `token`."""

    token: Token
    method: Method
    request: Request


class Answered(msgspec.Struct, frozen=True):
    """A peer answered a request that this node had sent. `sent` is that very effect."""

    sent: Send
    response: Response


class Failed(msgspec.Struct, frozen=True):
    """A request that this node had sent got no answer."""

    sent: Send


class ClientWrite(msgspec.Struct, frozen=True):
    """The application wants `data` committed.

    Attributes:
        token: whom to answer.
        data: a copy that nobody else changes.
        given: what it is a copy of, which goes back with a refusal.
        size: bytes that `data` takes in msgpack, for whoever bounds what waits.
    """

    token: Token
    data: Any
    given: Any
    size: int = 0


class ClientRead(msgspec.Struct, frozen=True):
    """The application wants to read what is committed."""

    token: Token


class Initialize(msgspec.Struct, frozen=True):
    """The application makes this pristine node, with `members`, a cluster."""

    token: Token
    members: tuple[NodeId, ...]
    addresses: Mapping[NodeId, str] = msgspec.field(default_factory=dict)


class AddNonVoter(msgspec.Struct, frozen=True):
    """An operator wants `node` to be sent the log; answered once it is at line rate."""

    token: Token
    node: NodeId
    address: str | None = None


class RemoveNonVoter(msgspec.Struct, frozen=True):
    """An operator wants `node`, which is no voter, not to be sent the log any more; answered when it is committed."""

    token: Token
    node: NodeId


class ChangeMembership(msgspec.Struct, frozen=True):
    """An operator wants `members` to be the voters."""

    token: Token
    members: tuple[NodeId, ...]
    addresses: Mapping[NodeId, str] = msgspec.field(default_factory=dict)


class TransferLeadership(msgspec.Struct, frozen=True):
    """An operator wants `target` to lead, or whoever is best prepared."""

    token: Token
    target: NodeId | None = None


class Compact(msgspec.Struct, frozen=True):
    """An operator wants a snapshot to be taken now; answered with its `SnapshotMeta`."""

    token: Token


class SnapshotTaken(msgspec.Struct, frozen=True):
    """The snapshot that `TakeSnapshot` asked for is durable; `snapshot` is complete now."""

    snapshot: SnapshotMeta


class SnapshotFailed(msgspec.Struct, frozen=True):
    """There is none: it was aborted, or could not be written, because of `error`. The node goes on."""

    index: int
    reason: str
    error: Exception | None = None


class ChunkStored(msgspec.Struct, frozen=True):
    """What became of the piece of a snapshot that `StoreChunk` brought.

    Attributes:
        token: who waits.
        request: that brought it.
        next_offset: what is needed next; 0 to begin again, because the whole did not have its checksum.
        complete: everything is there, verified, synced and read.
    """

    token: Token
    request: InstallSnapshotRequest
    next_offset: int
    complete: bool


class Durable(msgspec.Struct, frozen=True):
    """Everything that `Ready.persist` asked for so far is on disk."""


class Elect(msgspec.Struct, frozen=True):
    """An operator wants this node to stand for election now."""


class Heartbeat(msgspec.Struct, frozen=True):
    """An operator wants this leader to let its peers hear from it now."""


Event = (
    Received
    | Answered
    | Failed
    | ClientWrite
    | ClientRead
    | Initialize
    | AddNonVoter
    | RemoveNonVoter
    | ChangeMembership
    | TransferLeadership
    | Compact
    | SnapshotTaken
    | SnapshotFailed
    | ChunkStored
    | Durable
    | Elect
    | Heartbeat
)


class Persist(msgspec.Struct, frozen=True):
    """Write this, and sync, before anything in `Ready.effects` leaves.

    Attributes:
        hard_state: the new one, or None when it did not change.
        truncate_from: forget all entries from this index on, first.
        entries: then append these.
        compact_to: before appending, forget what a snapshot includes: the log begins after this, if need be beyond the
            end that it had.
        install: the received snapshot that is to be the node's own, before anything else: what `compact_to` forgets, it
            includes.
    """

    hard_state: HardState | None
    truncate_from: int | None
    entries: tuple[Entry, ...]
    compact_to: LogBase | None = None
    install: SnapshotMeta | None = None


class Send(msgspec.Struct, frozen=True, eq=False):
    """Send a request to a peer and bring its answer back as `Answered`, or `Failed`.

    An InstallSnapshotRequest comes without data: the driver puts in the piece of the snapshot that begins at its
    offset, and says whether it is the last.

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


class Respond(msgspec.Struct, frozen=True):
    """Give the one who waits an answer: a value, or an exception to raise there."""

    token: Token
    value: Any


class Apply(msgspec.Struct, frozen=True):
    """Apply committed entries to the state machine, in order.

    Attributes:
        entries: without gaps after those applied before.
        tokens: index to who waits for the answer of the state machine to that entry.
    """

    entries: tuple[Entry, ...]
    tokens: Mapping[int, Token]


class TakeSnapshot(msgspec.Struct, frozen=True):
    """Keep hold of the state machine as it is now, and write it down beside everything else that goes on.

    Comes back as `SnapshotTaken` or `SnapshotFailed`.

    Attributes:
        snapshot: what it will be; size and checksum are not known yet.
    """

    snapshot: SnapshotMeta


class AbortSnapshot(msgspec.Struct, frozen=True):
    """Stop writing the snapshot that is being taken, if there still is one: a leader sends a newer one."""


class StoreChunk(msgspec.Struct, frozen=True):
    """Store a piece of a snapshot that a leader sent, beside everything else that goes on; then step `ChunkStored`."""

    token: Token
    request: InstallSnapshotRequest


class Restore(msgspec.Struct, frozen=True):
    """Make what the installed snapshot holds the state of the state machine."""

    snapshot: SnapshotMeta


Effect = Send | Respond | Apply | TakeSnapshot | AbortSnapshot | StoreChunk | Restore


class Trace(msgspec.Struct, frozen=True):
    """Something worth a line in the node's trace (docs/node.md)."""

    event: str
    fields: Mapping[str, Any]


class Ready(msgspec.Struct, frozen=True):
    """What the driver has to do now, in this order.

    Attributes:
        early: requests that depend on nothing unsynced: send them before `persist`, or beside it.
        persist: what to make durable, or None.
        effects: what to do, in order, once `persist` is on disk.
        traces: for the trace file.
        independent: the effects depend on nothing in `persist`: do them as soon as it was handed to the disk.
    """

    early: tuple[Send, ...] = ()
    persist: Persist | None = None
    effects: tuple[Effect, ...] = ()
    traces: tuple[Trace, ...] = ()
    independent: bool = False
