"""What an application brings to a `Raft`: a network and a storage. Two protocols, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Entry,
    HardState,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    LogBase,
    NodeId,
    SnapshotMeta,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)


class RaftNetwork(Protocol):
    """Carries requests to peers and their answers back.

    Each method may raise anything when there is no answer: the node goes on, and tries again. Whatever is no OSError
    (TimeoutError is one) and no `RaftNetworkError`, and an answer that is none, is logged as a warning, once for each
    peer and reason; of a peer that is merely away the network says in the log what it likes. A request without an
    answer is cancelled after `Config.election_timeout_min`, an `install_snapshot` after
    `Config.install_snapshot_timeout`.

    A coroutine function will do; one that returns a future saves a task for each message.
    """

    def append_entries(self, target: NodeId, rpc: AppendEntriesRequest) -> Awaitable[AppendEntriesResponse]:
        """Have `target`'s `Raft.append_entries` called."""
        ...

    def vote(self, target: NodeId, rpc: VoteRequest) -> Awaitable[VoteResponse]:
        """Have `target`'s `Raft.vote` called."""
        ...

    def pre_vote(self, target: NodeId, rpc: VoteRequest) -> Awaitable[VoteResponse]:
        """Have `target`'s `Raft.pre_vote` called."""
        ...

    def install_snapshot(self, target: NodeId, rpc: InstallSnapshotRequest) -> Awaitable[InstallSnapshotResponse]:
        """Have `target`'s `Raft.install_snapshot` called; carries up to `Config.snapshot_max_chunk_size` bytes."""
        ...

    def timeout_now(self, target: NodeId, rpc: TimeoutNowRequest) -> Awaitable[TimeoutNowResponse]:
        """Have `target`'s `Raft.timeout_now` called."""
        ...


class StoredState(Protocol):
    """What a storage holds when a node starts."""

    @property
    def hard_state(self) -> HardState:
        """Term and vote."""
        ...

    @property
    def entries(self) -> Sequence[Entry]:
        """The log, without gaps."""
        ...

    @property
    def base(self) -> LogBase:
        """What the entries follow."""
        ...

    @property
    def snapshot(self) -> SnapshotMeta | None:
        """The snapshot, which the state machine holds now; includes everything up to `base`, or more."""
        ...


@dataclass(frozen=True, slots=True)
class ReceivedChunk:
    """What became of a piece of a snapshot.

    Attributes:
        next_offset: what is needed next; 0 to begin again, where the whole did not have its checksum.
        complete: everything is there, verified, synced and read.
    """

    next_offset: int
    complete: bool = False


class RaftStorage(Protocol):
    """Keeps log, term, vote and snapshot, and holds the state machine.

    All methods block, and are called at three places, at each one at a time, beside those of the others:

    - in a worker thread: `get_initial_state`, first, then `persist`, and `close`, last;
    - in the event loop: `apply_to_state_machine`, `capture_state` and `restore_snapshot`;
    - in another worker thread: `write_snapshot`, `read_snapshot`, `receive_snapshot` and `remove_obsolete`.

    A leader's entries are applied, and its state captured, whether `persist` is done with them, is at work on them, or
    has not had them yet: a quorum of others holds them then. So nothing that is applied may outlive a crash, but in a
    snapshot.

    An exception shuts the node down, since nothing is assumed of a storage that failed; `Raft.wait_closed` raises it as
    a `RaftStorageError`. Four methods are different, what they raise is only logged: `capture_state` and
    `write_snapshot` cost the snapshot, which is tried again when the policy next says so; `remove_obsolete` costs room;
    `close` nothing. And where `read_snapshot` or `receive_snapshot` cannot open a file because the process has too many
    open (EMFILE, ENFILE), the piece is asked for again.
    """

    def get_initial_state(self) -> StoredState:
        """Recover, and say what there is. The state machine then holds what the snapshot, if there is one, includes."""
        ...

    def persist(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
        *,
        compact_to: LogBase | None = None,
        install: SnapshotMeta | None = None,
    ) -> None:
        """Do the following, in this order; return when it is durable.

        Make the received snapshot `install` the node's own; save the hard state; forget entries from `truncate_from`
        on; forget entries up to `compact_to`, after which the log begins then, if need be beyond the end that it had;
        append `entries`.
        """
        ...

    def apply_to_state_machine(self, entries: Sequence[Entry]) -> Sequence[Any]:
        """Apply committed entries in order, and leave them as they are: they are yet to be written, or sent.

        Returns the answers, one for each. Called in the event loop: be quick.
        """
        ...

    def capture_state(self) -> Any:
        """Something that keeps hold of the state as it is now, for `write_snapshot`. In the event loop: be quick."""
        ...

    def restore_snapshot(self, snapshot: SnapshotMeta) -> None:
        """Make the state that was received, and is read already, the state machine's. In the event loop: be quick."""
        ...

    def close(self) -> None:
        """Let go of all resources; called last, after a failure, too."""
        ...

    # -- beside everything else -----------------------------------------------------------------------------------

    def write_snapshot(
        self, snapshot: SnapshotMeta, captured: Any, cancelled: Callable[[], bool]
    ) -> SnapshotMeta | None:
        """Write what was captured; return the snapshot with its size and checksum when it is durable.

        None as soon as `cancelled` says so: then nothing is left of it.
        """
        ...

    def remove_obsolete(self) -> None:
        """Remove what a `persist` with `compact_to`, which is durable, made obsolete, and `persist` left where it was.

        Removing large files takes long enough to delay a sync. It may be late, or never be called: then what is left
        is removed at the next start.
        """
        ...

    def read_snapshot(self, snapshot: SnapshotMeta, offset: int, size: int) -> bytes:
        """A piece of the node's snapshot, at most `size` bytes.

        It may have given way to a newer one since this was asked for; then raise: the peer is sent the newer one.
        """
        ...

    def receive_snapshot(self, snapshot: SnapshotMeta, offset: int, data: bytes, done: bool) -> ReceivedChunk:
        """Store a piece of a snapshot that is being received; offset 0 begins anew.

        With the last piece, verify the whole against its size and checksum, sync it, and read the state. Raising, or
        raising from, an `OSError` that says that too many files are open does not shut the node down: the leader begins
        again.
        """
        ...
