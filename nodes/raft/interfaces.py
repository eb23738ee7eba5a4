"""What an application brings to a `Raft`: a network and a storage. Two protocols, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Entry,
    HardState,
    NodeId,
    VoteRequest,
    VoteResponse,
)


class RaftNetwork(Protocol):
    """Carries requests to peers and their answers back.

    Each method may raise anything when there is no answer. A coroutine function will do; one that returns a future
    saves a task for each message.
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


class RaftStorage(Protocol):
    """Keeps log, term and vote, and holds the state machine.

    All methods block and are called one at a time; those that touch the disk, in a worker thread. Any exception shuts
    the node down: nothing is assumed of a storage that failed.
    """

    def get_initial_state(self) -> StoredState:
        """Recover, and say what there is."""
        ...

    def persist(self, hard_state: HardState | None, truncate_from: int | None, entries: Sequence[Entry]) -> None:
        """Save the hard state, forget entries from `truncate_from` on, append `entries`; return when it is durable."""
        ...

    def apply_to_state_machine(self, entries: Sequence[Entry]) -> Sequence[Any]:
        """Apply committed entries in order; the answers, one for each. Called in the event loop: be quick."""
        ...

    def close(self) -> None:
        """Let go of all resources."""
        ...
